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
import tempfile
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


def pretrain(images, sizes, kind, epochs, seed):
    """Train one RBM for each layer by CD-1, with the paper's settings; return them."""
    from tqdm import tqdm

    rbms = []
    for i, (visible, hidden) in enumerate(pairwise(sizes)):
        is_linear = {"visible": i == 0 and kind == "faces", "hidden": i == len(sizes) - 2}
        units = {name: "gaussian" if linear else "bernoulli" for name, linear in is_linear.items()}
        normal = lambda shape, random: 0.1 * random.standard_normal(shape)
        rbm = dl.RBM(visible, hidden, **units, weight_initializer=normal, seed=seed)
        rate = 0.001 if any(is_linear.values()) else 0.1
        optimizer = dl.SGD(rbm.parameters(), learning_rate=rate, momentum=0.5, l2=2e-4)

        @dl.compile
        def step(batch, rbm=rbm, optimizer=optimizer):
            error = rbm.contrastive_divergence(batch)  # sets gradients, without backward()
            optimizer.step()
            return error

        bar = tqdm(range(epochs), desc=f"RBM {visible}-{hidden}", disable=None)
        for epoch in bar:
            optimizer.momentum = 0.5 if epoch < 5 else 0.9
            batches = dl.data.batches(images, batch_size=100, shuffle=True, seed=[seed, epoch])
            error = np.mean([step(dl.tensor(batch)).item() for batch in batches])
            bar.set_postfix(error=f"{error:.2f}")
        if epochs:
            print(f"RBM {visible}-{hidden}: squared error {error:.2f}", flush=True)
        rbms.append(rbm)
        images = np.concatenate([rbm(x).numpy() for x in dl.data.batches(images, batch_size=1000)])
    return rbms


def loss_of(kind):
    """Return the cross-entropy of the pixels of an image, or for faces half the squared error."""
    if kind == "faces":
        return lambda y, x: 0.5 * ((y - x) ** 2).sum() / len(x)
    return lambda y, x: dl.binary_cross_entropy_with_logits(y, x, reduction="batchmean")


def train_by_adam(network, images, loss, options):
    steps = options.epochs * max(1, len(images) // options.batch_size)
    rate = dl.schedules.Cosine(options.learning_rate, steps)
    optimizer = dl.Adam(network.parameters(), rate)
    trainer = dl.Trainer(network, loss, optimizer, device="cpu", seed=options.seed)
    trainer.fit(images, images, epochs=options.epochs, batch_size=options.batch_size, verbose_frequency=1000)


def train_by_conjugate_gradients(network, images, loss, options):
    """Three line searches on each 1,000 images, as in the paper."""
    from tqdm import tqdm

    optimizer = dl.ConjugateGradient(network.parameters(), max_iterations=3)

    @dl.compile
    def gradient(x):
        value = loss(network(x), x)
        value.backward()
        return value

    for epoch in tqdm(range(options.epochs), desc="conjugate gradients", disable=None):
        order = [options.seed, epoch]
        for batch in dl.data.batches(images, batch_size=1000, shuffle=True, seed=order):
            x = dl.tensor(batch)
            optimizer.minimize(lambda x=x: gradient(x))


def reconstruct(network, images, kind):
    """Return what the network makes of images, as (N, pixels)."""
    function = (lambda x: x) if kind == "faces" else dl.sigmoid
    with dl.no_grad():
        batches = dl.data.batches(images, batch_size=1000)
        return np.concatenate([function(network(dl.tensor(x))).numpy() for x in batches])


def logistic_pca(train, test, components, iterations=100):
    """Return reconstructions of the test images: sigmoids of a linear code that is fitted to each image."""
    start = dl.data.pca(train, components)
    rows = dl.Parameter(4 * start.components)
    mean = train.mean(axis=0).clip(0.01, 0.99)
    bias = dl.Parameter(np.log(mean / (1 - mean)))

    def fit(images, parameters):
        codes = dl.Parameter(start.encode(images))
        x = dl.tensor(images)

        @dl.compile
        def closure():
            logits = codes @ rows + bias
            loss = dl.binary_cross_entropy_with_logits(logits, x, reduction="batchmean")
            loss.backward()
            return loss

        dl.LBFGS([codes, *parameters], max_iterations=iterations).minimize(closure)
        return dl.sigmoid(codes.detach() @ rows.detach() + bias.detach()).numpy()

    fit(train, [rows, bias])
    rows.requires_grad = bias.requires_grad = False
    return fit(test, [])


def error(reconstructions, images):
    """Return the paper's measure: the squared error of an image, summed over its pixels, on average."""
    return float(((reconstructions - images) ** 2).sum(axis=1).mean())


def draw_curves(count, seed, pen=0.75):
    """Draw quadratic curves through three random points, with a pen of this width in pixels: (count, 784).

    The data of the paper are lost; these have six numbers behind them as well.
    """
    random = np.random.default_rng(seed)
    ends, t = random.uniform(3, 24, (count, 3, 2)), np.linspace(0, 1, 40)[:, None]
    lagrange = np.hstack([(1 - t) * (1 - 2 * t), 4 * t * (1 - t), t * (2 * t - 1)])
    points = np.einsum("tk,nkd->ntd", lagrange, ends)
    ink = np.exp(-0.5 * ((points[..., None] - np.arange(28)) / pen) ** 2).astype(np.float32)
    images = np.zeros((count, 28, 28), np.float32)
    for row, column in ink.transpose(1, 2, 0, 3):  # for each place of the pen
        np.maximum(images, row[:, :, None] * column[:, None, :], out=images)
    return images.reshape(count, -1)


def cut_faces(path, seed):
    """Cut 25 x 25 patches from the Olivetti faces: 30 persons to train, 10 to test; about normal values."""
    from scipy.io import loadmat

    faces = loadmat(path)["faces"].T.reshape(400, 64, 64).transpose(0, 2, 1) / np.float32(255)
    faces = faces.reshape(400, 32, 2, 32, 2).mean(axis=(2, 4))
    random = np.random.default_rng(seed)
    parts = []
    for part, copies in ((faces[:300], 40), (faces[300:], 20)):
        part = np.repeat(part, copies, axis=0)
        down, right = random.integers(0, 8, (2, len(part), 1)) + np.arange(25)
        patches = part[np.arange(len(part))[:, None, None], down[:, :, None], right[:, None, :]]
        patches = patches.reshape(len(part), -1)
        patches = patches - patches.mean(axis=1, keepdims=True)
        parts.append((patches / patches.std(axis=1, keepdims=True)).astype(np.float32))
    return parts


def load_data(what, seed):
    """Return the kind of data, images to train and to test on as (N, pixels), and their labels."""
    if what == "curves":
        return "curves", draw_curves(20_000, seed), draw_curves(10_000, seed + 1), None
    if what.endswith(".mat"):
        return "faces", *cut_faces(what, seed), None
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
    """Draw two-dimensional codes coloured by class, one panel for each kind of code."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(codes), 6), layout="constrained")
    for axis, (name, points) in zip(
        figure.subplots(1, len(codes), squeeze=False)[0], codes.items(), strict=True
    ):
        for digit in range(10):
            chosen = points[labels == digit][:500]
            axis.plot(*chosen.T, ".", markersize=3, color=f"C{digit}", label=str(digit))
        axis.set(xticks=[], yticks=[], title=name)
    axis.legend(markerscale=4, loc="upper right", fontsize=9)
    figure.savefig(path, dpi=110)


def train(start, data, sizes, rbms, options):
    """Return a trained network, and how many seconds that took."""
    kind, images = data[0], data[1]
    began = time.perf_counter()
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
    fit = train_by_adam if options.optimizer == "adam" else train_by_conjugate_gradients
    fit(network, images, loss_of(kind), options)
    return network, time.perf_counter() - began


STARTS = ("rbm", "rbm-tied", "random", "relu", "relu-tied")


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        default="digits",
        metavar="WHAT",
        help="'digits' or 'curves' (made on the spot), a folder with MNIST's IDX files, or olivettifaces.mat",
    )
    parser.add_argument("--code", type=int, help="numbers in a code (30, for curves 6); 2 draws a map")
    parser.add_argument(
        "--starts", nargs="+", choices=STARTS, default=["rbm"], help="which networks to train"
    )
    parser.add_argument("--tied", action="store_true", help="keep encoder and decoder tied in all of them")
    parser.add_argument("--rbm-epochs", type=int, default=10, help="for each RBM; 50 in the paper")
    parser.add_argument("--optimizer", choices=["adam", "cg"], default="adam", help="cg is the paper's")
    parser.add_argument("--epochs", type=int, default=30, help="of fine-tuning; 200 in the paper")
    parser.add_argument("--batch-size", type=int, default=100, help="of Adam; cg takes 1,000")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam; it falls to 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/deep_autoencoder"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    if min(options.epochs, options.batch_size, options.code or 1) < 1 or options.rbm_epochs < 0:
        raise ValueError("--epochs, --batch-size and --code must be at least 1, --rbm-epochs at least 0")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    data = kind, images, test, labels = load_data(options.data, options.seed)
    sizes = [*SIZES[kind][:-1], options.code or SIZES[kind][-1]]
    print(f"{len(images):,} images to train, {len(test):,} to test; network {'-'.join(map(str, sizes))}")

    began = time.perf_counter()
    needs_rbms = any(start.startswith("rbm") for start in options.starts)
    rbms = pretrain(images, sizes, kind, options.rbm_epochs, options.seed) if needs_rbms else None
    seconds = {"rbms": time.perf_counter() - began}
    found = dl.data.pca(images, sizes[-1])
    made, codes = {}, {}
    for start in options.starts:
        network, seconds[start] = train(start, data, sizes, rbms, options)
        made[start] = reconstruct(network, test, kind)
        codes[f"{start}: {'-'.join(map(str, sizes))}"] = network.encode(dl.tensor(test)).numpy()
        network.save(options.out / f"{start}.safetensors")
    if kind != "faces":
        subset = np.random.default_rng(options.seed).permutation(len(images))[:10_000]
        made[f"logistic PCA {sizes[-1]}"] = logistic_pca(images[subset], test, sizes[-1])
    made[f"PCA {sizes[-1]}"] = found.reconstruct(test)
    made["mean image"] = np.broadcast_to(found.mean, test.shape)

    errors = {name: error(y, test) for name, y in made.items()}
    content = {"squared error of a test image": errors, "seconds": seconds}
    (options.out / "metrics.json").write_text(json.dumps(content, indent=1))
    places = np.linspace(0, len(test) - 1, 12).astype(int)
    rows = {"test images": test[places]} | {name: y[places] for name, y in made.items()}
    plot_rows(rows, options.out / "reconstructions.png")
    if sizes[-1] == 2 and labels is not None:
        plot_codes({"PCA": found.encode(test)} | codes, labels, options.out / "codes.png")
    print(f"squared error of a test image; pictures and weights are in {options.out}")
    for name, value in errors.items():
        time_taken = f"{seconds[name]:8.0f} s" if name in seconds else ""
        print(f"{name:18} {value:8.2f} {time_taken}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as problem:
        sys.exit(f"error: {problem}")
