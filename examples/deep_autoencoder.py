"""Reproduce Hinton & Salakhutdinov (2006): deep autoencoders, layer by layer, and what became of them.

Each layer is first an RBM, trained on what the one before makes of the images. Unrolled, the RBMs are an
autoencoder: the decoder starts with the transposed weights, and all is trained together. In 2006 no other
deep network went below principal components; --starts compares it with a random start of the same sigmoid
network, and with what one would do now: ReLU, He's initial weights and Adam. Run it with --help to see what
can be changed.
"""

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import minidl as dl

#: Units from the pixels to the code, of the paper's networks.
SIZES = {
    "images": [784, 1000, 500, 250, 30],
    "curves": [784, 400, 200, 100, 50, 25, 6],
    "faces": [625, 2000, 1000, 500, 30],
}


class DeepAutoencoder(dl.Layer):
    """(batch, pixels) to the logits of the pixels (or, for faces, the pixels themselves).

    Tied, the decoder has biases alone, and uses the encoder's weights transposed.
    """

    def __init__(self, sizes, activation, tied, weight_initializer, seed):
        generator = dl.Generator(seed)
        self.activation = activation
        pairs = list(pairwise(sizes))
        make = lambda a, b: dl.Dense(a, b, weight_initializer=weight_initializer, seed=generator)
        self.encoder = [make(a, b) for a, b in pairs]
        self.biases = [dl.Parameter(dl.zeros(a)) for a, _ in pairs]
        self.weights = None if tied else [make(b, a).weight for a, b in pairs]

    def encode(self, x):
        for layer in self.encoder[:-1]:
            x = self.activation(layer(x))
        return self.encoder[-1](x)  # the code is linear

    def decode(self, z):
        weights = self.weights or [layer.weight.T for layer in self.encoder]
        for weight, bias in list(zip(weights, self.biases, strict=True))[:0:-1]:
            z = self.activation(z @ weight + bias)
        return z @ weights[0] + self.biases[0]

    def forward(self, x):
        return self.decode(self.encode(x))

    def unroll(self, rbms):
        """Start from trained RBMs: the decoder with the encoder's weights, transposed."""
        for i, (layer, rbm) in enumerate(zip(self.encoder, rbms, strict=True)):
            layer.weight.assign(rbm.weight)
            layer.bias.assign(rbm.hidden_bias)
            self.biases[i].assign(rbm.visible_bias)
            if self.weights is not None:
                self.weights[i].assign(rbm.weight.T)


def pretrain(images, sizes, kind, options):
    """Train one RBM for each layer by CD-1, with the paper's settings, or load it; return them."""
    rbms = []
    for i, (visible, hidden) in enumerate(pairwise(sizes)):
        is_linear = {"visible": i == 0 and kind == "faces", "hidden": i == len(sizes) - 2}
        units = {name: "gaussian" if linear else "bernoulli" for name, linear in is_linear.items()}
        normal = lambda shape, random: 0.1 * random.standard_normal(shape)
        rbm = dl.RBM(visible, hidden, **units, weight_initializer=normal, seed=options.seed)
        path = options.out / f"rbm-{visible}-{hidden}.safetensors"
        if path.exists():
            rbm.load(path)
        else:
            train_rbm(rbm, images, 0.001 if any(is_linear.values()) else 0.1, options)
            rbm.save(path)
        rbms.append(rbm)
        images = np.concatenate([rbm(x).numpy() for x in dl.data.batches(images, batch_size=1000)])
    return rbms


def train_rbm(rbm, images, rate, options):
    """Train an RBM on mini-batches of 100, in a step that needs no backward()."""
    from tqdm import tqdm

    optimizer = dl.SGD(rbm.parameters(), learning_rate=rate, momentum=0.5, l2=2e-4)

    @dl.compile
    def step(batch):
        error = rbm.contrastive_divergence(batch)  # sets gradients
        optimizer.step()
        return error

    began, name = time.perf_counter(), f"RBM {rbm.visible_features}-{rbm.hidden_features}"
    bar = tqdm(total=options.rbm_epochs * -(-len(images) // 100), desc=name, disable=None)
    for epoch in range(options.rbm_epochs):
        optimizer.momentum = 0.5 if epoch < 5 else 0.9
        errors = []
        for batch in dl.data.batches(images, batch_size=100, shuffle=True, seed=[options.seed, epoch]):
            errors.append(step(dl.tensor(batch)).item())
            bar.update()
        bar.set_postfix(error=f"{np.mean(errors):.2f}")
    bar.close()
    if options.rbm_epochs:
        seconds = time.perf_counter() - began
        print(f"{name}: squared error {np.mean(errors):.2f}, {seconds:.0f} s", flush=True)


def loss_of(kind):
    """Return the cross-entropy of the pixels of an image, or for faces half the squared error."""
    if kind == "faces":
        return lambda y, x: 0.5 * ((y - x) ** 2).sum() / len(x)
    return lambda y, x: dl.binary_cross_entropy_with_logits(y, x, reduction="batchmean")


def train_by_gradients(network, images, loss, options, folder):
    """Train by Adam or SGD, with a learning rate that falls to 0 along half a cosine; return the seconds."""
    steps = options.epochs * max(1, len(images) // options.batch_size)
    rate = dl.schedules.Cosine(options.learning_rate, steps)
    make = {"adam": dl.Adam, "sgd": dl.SGD}[options.optimizer]
    trainer = dl.Trainer(network, loss, make(network.parameters(), rate), device="cpu", seed=options.seed)
    history = trainer.fit(
        images,
        images,
        epochs=options.epochs,
        batch_size=options.batch_size,
        checkpoint_folder=folder,
        resume=True,
        verbose_frequency=1000,
    )
    return history.seconds


def train_by_conjugate_gradients(network, images, loss, options, folder):
    """Make three line searches on each 1,000 images, as in the paper; return the seconds."""
    from tqdm import tqdm

    optimizer = dl.ConjugateGradient(network.parameters(), max_iterations=3)

    @dl.compile
    def gradient(x):
        value = loss(network(x), x)
        value.backward()
        return value

    began = time.perf_counter()
    folder.mkdir(exist_ok=True)
    done = max((int(path.stem) for path in folder.glob("*.safetensors")), default=0)
    if done:
        network.load(folder / f"{done}.safetensors")
    bar = tqdm(range(done, options.epochs), initial=done, total=options.epochs, unit="epoch", disable=None)
    for epoch in bar:
        order, losses = [options.seed, epoch], []
        for batch in dl.data.batches(images, batch_size=1000, shuffle=True, seed=order):
            x, found = dl.tensor(batch), []
            optimizer.minimize(lambda x=x: gradient(x), found.append)
            losses += found[-1:]
        bar.write(f"epoch {epoch + 1}/{options.epochs}: loss {np.mean(losses):.2f}")
        network.save(folder / f"{epoch + 1}.safetensors")
        (folder / f"{epoch}.safetensors").unlink(missing_ok=True)
    return time.perf_counter() - began


def reconstruct(network, images, kind):
    """Return what the network makes of images, as (N, pixels)."""
    function = (lambda x: x) if kind == "faces" else dl.sigmoid
    with dl.no_grad():
        batches = dl.data.batches(images, batch_size=1000)
        return np.concatenate([function(network(dl.tensor(x))).numpy() for x in batches])


def logistic_pca(train, test, components, seed, epochs=10):
    """Return reconstructions by sigmoids of a linear code: a network without hidden layers, begun as PCA."""
    found = dl.data.pca(train, components)
    network = DeepAutoencoder([train.shape[1], components], None, False, "zeros", seed)
    network.encoder[0].weight.assign(found.components.T)
    network.encoder[0].bias.assign(-found.components @ found.mean)
    network.weights[0].assign(4 * found.components)  # where a sigmoid is steepest, its slope is 1/4
    mean = found.mean.clip(0.01, 0.99)
    network.biases[0].assign(np.log(mean / (1 - mean)))

    rate = dl.schedules.Cosine(3e-3, epochs * max(1, len(train) // 100))
    optimizer = dl.Adam(network.parameters(), rate)
    trainer = dl.Trainer(network, loss_of("images"), optimizer, device="cpu", seed=seed)
    trainer.fit(train, train, epochs=epochs, batch_size=100, verbose=False)
    return reconstruct(network, test, "images")


def error(reconstructions, images):
    """Return the paper's measure: the squared error of an image, summed over its pixels, on average."""
    return float(((reconstructions - images) ** 2).sum(axis=1).mean())


def draw_curves(count, seed, margin=6.0, radius=1.0):
    """Draw Bezier curves of three random points as (count, 784), with a round pen that has soft edges.

    They stand in for the paper's, which are a file that --data takes. Points that far from the edges, and
    this pen, give PCA and logistic PCA about as much trouble as the paper's curves do.
    """
    random = np.random.default_rng(seed)
    ends, t = random.uniform(margin, 27 - margin, (count, 3, 2)), np.linspace(0, 1, 40)[:, None]
    bernstein = np.hstack([(1 - t) ** 2, 2 * t * (1 - t), t**2])
    points = np.einsum("tk,nkd->ntd", bernstein, ends)
    squares = ((points[..., None] - np.arange(28)) ** 2).astype(np.float32)
    nearest = np.full((count, 28, 28), np.inf, np.float32)
    for row, column in squares.transpose(1, 2, 0, 3):  # for each place of the pen
        np.minimum(nearest, row[:, :, None] + column[:, None, :], out=nearest)
    return np.clip(radius + 0.5 - np.sqrt(nearest), 0, 1).reshape(count, -1)


def cut_faces(faces, copies, random):
    """Cut 25 x 25 patches from faces (n, 64, 64), so many from each, at any place, angle and size that fits.

    As in the paper's supplement they are turned by up to 90 degrees, and 1.4 to 1.8 times as coarse.
    """
    from scipy.ndimage import map_coordinates

    patches = np.empty((copies, len(faces), 625), np.float32)  # any first part has all faces
    down, right = np.mgrid[-12:13, -12:13].reshape(2, 625, 1)
    for i, face in enumerate(faces):
        angle, size = random.uniform(-np.pi / 2, np.pi / 2, copies), random.uniform(1.4, 1.8, copies)
        along, across = size * np.cos(angle), size * np.sin(angle)
        reach = 12 * (abs(along) + abs(across))
        row, column = random.uniform(reach, 63 - reach, (2, copies))
        places = [row + along * down - across * right, column + across * down + along * right]
        patches[:, i] = map_coordinates(face, places, order=1).T
    return patches.reshape(-1, 625)


def load_mat(path, seed):
    """Return the kind of data in a .mat file, faces or the paper's curves, and both parts of them."""
    from scipy.io import loadmat

    content = loadmat(path)
    if "bdata" in content:
        return "curves", *(content[name].astype(np.float32) for name in ("bdata", "bdatatest"))
    if "faces" not in content:
        raise ValueError(f"{path} has neither 'faces' (Olivetti) nor 'bdata' (curves)")
    faces = content["faces"].T.reshape(400, 64, 64).transpose(0, 2, 1) / np.float32(255)
    random = np.random.default_rng(seed)
    train, test = cut_faces(faces[:300], 100, random), cut_faces(faces[300:], 50, random)  # 30 and 10 persons
    both = np.concatenate([train, test])
    both -= both.mean(axis=0)
    return "faces", *np.split(both / both.std(), [len(train)])


def load_data(what, seed):
    """Return the kind of data, images to train and to test on as (N, pixels), and their labels."""
    if what == "curves":
        return "curves", draw_curves(20_000, seed), draw_curves(10_000, seed + 1), None
    if what.endswith(".mat"):
        return *load_mat(what, seed), None
    train, test = dl.data.digits(train=20_000) if what == "digits" else dl.data.read_idx_folder(what)
    if train.images.shape[1:] != (28, 28, 1):
        raise ValueError(f"the images are {train.images.shape[1:]}, not (28, 28, 1)")
    flat = [part.images.reshape(len(part.images), -1) for part in (train, test)]
    return "images", *flat, test.labels


def plot_rows(rows, path):
    """Draw images in rows as in the paper: the originals, and below what each code makes of them."""
    from matplotlib.figure import Figure

    columns, side = len(next(iter(rows.values()))), round(next(iter(rows.values())).shape[1] ** 0.5)
    figure = Figure(figsize=(columns * 0.7 + 1.6, len(rows) * 0.75), layout="constrained")
    low, high = np.percentile(next(iter(rows.values())), [0, 100])
    for axes, (name, images) in zip(figure.subplots(len(rows), columns), rows.items(), strict=True):
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(image.reshape(side, side), cmap="gray", vmin=low, vmax=high)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def plot_codes(codes, labels, path):
    """Draw two-dimensional codes of 5,000 test images coloured by class, one panel for each kind of code."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(codes), 5.2), layout="constrained")
    panels = figure.subplots(1, len(codes), squeeze=False)[0]
    colours = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "linewidths": 0}
    for axes, (name, points) in zip(panels, codes.items(), strict=True):
        dots = axes.scatter(*points[:5000].T, s=5, c=labels[:5000], **colours)
        axes.set(xticks=[], yticks=[], title=name)
    figure.legend(*dots.legend_elements(), loc="outside right center", frameon=False, title="digit")
    figure.savefig(path, dpi=100)


def train(start, data, sizes, rbms, options):
    """Return a trained network, and how many seconds its training took."""
    kind, images = data[0], data[1]
    tied = options.tied or start.endswith("tied")
    is_modern = start.startswith("relu")
    network = DeepAutoencoder(
        sizes,
        dl.relu if is_modern else dl.sigmoid,
        tied,
        "he_normal" if is_modern else "glorot_uniform",
        options.seed,
    )
    if start.startswith("rbm"):
        network.unroll(rbms)
    print(f"--- {start}: {network.parameter_count():,} parameters, {options.optimizer}", flush=True)
    fit = train_by_conjugate_gradients if options.optimizer == "cg" else train_by_gradients
    seconds = fit(network, images, loss_of(kind), options, options.out / start)
    network.save(options.out / f"{start}.safetensors")
    return network, seconds


STARTS = ("rbm", "rbm-tied", "random", "relu", "relu-tied")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        default="digits",
        metavar="WHAT",
        help="'digits' or 'curves' (made on the spot), a folder with MNIST's IDX files, olivettifaces.mat, "
        "or digs3pts_1.mat, the paper's own curves",
    )
    parser.add_argument("--code", type=int, help="numbers in a code (30, for curves 6); 2 draws a map")
    parser.add_argument(
        "--starts", nargs="+", choices=STARTS, default=["rbm"], help="which networks to train"
    )
    parser.add_argument("--tied", action="store_true", help="keep encoder and decoder tied in all of them")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--rbm-epochs", type=int, default=10, help="for each RBM; 50 in the paper")
    parser.add_argument(
        "--optimizer",
        choices=["adam", "sgd", "cg"],
        default="adam",
        help="cg, the paper's, takes 1,000 images",
    )
    parser.add_argument("--epochs", type=int, default=20, help="of fine-tuning; 200 in the paper")
    parser.add_argument("--batch-size", type=int, default=100, help="of Adam and SGD")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam and SGD; it falls to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/deep_autoencoder"),
        metavar="DIR",
        help="where to write; what is there already of a run with these settings is not trained again",
    )
    return parser.parse_args(arguments)


def prepare_folder(options):
    """Make the folder of the results, or refuse one that holds other results."""
    settings = {name: x for name, x in vars(options).items() if name not in ("starts", "out")}
    path = options.out / "settings.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text()) != settings:
        raise ValueError(f"{options.out} holds a run with other settings: choose another --out")
    path.write_text(json.dumps(settings, indent=1))


def write_results(test, labels, made, columns, codes, out):
    """Write the errors of all reconstructions and draw them; print a table with further columns."""
    errors = {name: error(y, test) for name, y in made.items()}
    content = {"test": errors} | columns
    (out / "metrics.json").write_text(json.dumps(content, indent=1))
    places = np.linspace(0, len(test) - 1, 10).astype(int)
    if labels is not None:
        places = np.unique(labels, return_index=True)[1]
    rows = {f"{name}\n{errors[name]:.2f}": y[places] for name, y in made.items()}
    plot_rows({"test images": test[places]} | rows, out / "reconstructions.png")
    if codes["PCA"].shape[1] == 2 and labels is not None:
        plot_codes(codes, labels, out / "codes.png")
    print(f"pictures and weights are in {out}\n")
    print(f"{'squared error of an image':26}" + "".join(f"{name:>10}" for name in content))
    for name in errors:
        found = [f"{column[name]:10.2f}" for column in content.values() if name in column]
        print(f"{name:26}" + "".join(found))


def main(arguments=None):
    options = parse_arguments(arguments)
    for name in ("epochs", "batch_size", "code", "images"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
    if options.rbm_epochs < 0:
        raise ValueError("--rbm-epochs must be at least 0")
    kind, images, test, labels = load_data(options.data, options.seed)
    prepare_folder(options)  # what is wrong with it is an error now, not after the training
    images = images[: options.images]
    sizes = [*SIZES[kind][:-1], options.code or SIZES[kind][-1]]
    name = "-".join(map(str, sizes))
    print(f"{len(images):,} images to train, {len(test):,} to test; network {name}", flush=True)

    needs_rbms = any(start.startswith("rbm") for start in options.starts)
    rbms = pretrain(images, sizes, kind, options) if needs_rbms else None
    found = dl.data.pca(images, sizes[-1])
    made, codes, columns = {}, {"PCA": found.encode(test)}, {"training": {}, "seconds": {}}
    for start in options.starts:
        network, columns["seconds"][start] = train(start, (kind, images), sizes, rbms, options)
        columns["training"][start] = error(reconstruct(network, images[:10_000], kind), images[:10_000])
        made[start] = reconstruct(network, test, kind)
        codes[f"{start}: {name}"] = network.encode(dl.tensor(test)).numpy()
    if kind != "faces":
        made[f"logistic PCA {sizes[-1]}"] = logistic_pca(images, test, sizes[-1], options.seed)
    made[f"PCA {sizes[-1]}"] = found.reconstruct(test)
    made["mean image"] = np.broadcast_to(found.mean, test.shape)
    write_results(test, labels, made, columns, codes, options.out)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as problem:
        sys.exit(f"error: {problem}")
