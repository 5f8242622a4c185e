"""Train an autoencoder whose decoder reuses the encoder's weights, transposed.

The network is the one of MATLAB's "Weight Tying Using Nested Layer": a nested encoder
784 -> 784 -> 392 -> 196; the decoder uses the transposed weights of the encoder, and its own
biases. With the original's settings, which are the defaults, a linear code of the same size is better:
principal components. With --recipe best the same network starts as just that code, and ends below it;
docs/better_than_pca.md says what each part of the recipe brings. Run it with --help to see what can be
changed. On several processes:

    mpiexec -n 4 python -m mpi4py examples/tied_autoencoder.py --distributed
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import minidl as dl


class TiedAutoencoder(dl.Layer):
    """An encoder, and a decoder that shares its weights.

    Input and output are images of any shape with values in [0, 1], as (batch, ...).
    """

    def __init__(self, encoder):
        self.encoder = encoder
        self.dense = [layer for layer in encoder if isinstance(layer, dl.Dense)]  # the same objects
        self.biases = [dl.Parameter(dl.zeros(layer.in_features)) for layer in self.dense]

    def forward(self, x):
        z = self.encoder(x)
        for layer, bias in reversed(list(zip(self.dense[1:], self.biases[1:], strict=True))):
            z = dl.relu(z @ layer.weight.T + bias)
        return dl.sigmoid(z @ self.dense[0].weight.T + self.biases[0]).reshape(x.shape)


def build_network(seed):
    generator = dl.Generator(seed)
    encoder = dl.Network(
        [
            dl.Flatten(),
            dl.Dense(784, 784, seed=generator),
            dl.ReLU(),
            dl.Dense(784, 392, seed=generator),
            dl.ReLU(),
            dl.Dense(392, 196, seed=generator),
            dl.ReLU(),
        ]
    )
    return TiedAutoencoder(encoder)


def start_at_pca(network, images, gain=9.0):
    """Set the weights so that the network is a linear code: its principal components, clipped by a sigmoid.

    The first layer passes pixels on. The second projects on the components and on their negatives, so that
    what ReLU cuts off of one is kept by the other. The third takes the difference of the two, times
    sqrt(gain); its bias keeps the code positive. The decoder does the same backwards, and its last sigmoid,
    which is steepest at a pixel of 0.5, goes from nearly 0 to nearly 1.
    """
    first, second, third = network.dense
    found = dl.data.pca(images, third.out_features)
    scale, components = np.float32(gain**0.5), found.components.T
    eye = np.eye(third.out_features, dtype=np.float32)
    projected_mean = found.mean @ components
    lowest = found.encode(images).min(axis=0)
    first.weight.assign(np.eye(first.in_features, dtype=np.float32))
    second.weight.assign(np.hstack([components, -components]))
    second.bias.assign(np.hstack([-projected_mean, projected_mean]))
    third.weight.assign(scale * np.vstack([eye, -eye]))
    third.bias.assign(-scale * lowest)
    network.biases[2].assign(gain * np.hstack([lowest, -lowest]))
    network.biases[1].assign(gain * found.mean)
    network.biases[0].assign(np.full(first.in_features, -gain / 2, np.float32))


def start_at_rbms(network, images, seed, epochs=10):
    """Set weights and biases to those of RBMs, each trained on what the one before makes of the images."""
    data = images.reshape(len(images), -1)
    for layer, bias in zip(network.dense, network.biases, strict=True):
        rbm = dl.RBM(layer.in_features, layer.out_features, seed=seed)
        optimizer = dl.SGD(rbm.parameters(), learning_rate=0.1, momentum=0.5, l2=2e-4)

        @dl.compile
        def step(batch, rbm=rbm, optimizer=optimizer):
            error = rbm.contrastive_divergence(batch)
            optimizer.step()
            return error

        for epoch in range(epochs):
            optimizer.momentum = 0.5 if epoch < 5 else 0.9
            order = [seed, epoch]
            errors = [
                step(dl.tensor(batch)).item()
                for batch in dl.data.batches(data, batch_size=100, shuffle=True, seed=order, drop_last=True)
            ]
        print(f"{rbm!r}: squared error {np.mean(errors):.2f}")
        layer.weight.assign(rbm.weight)
        layer.bias.assign(rbm.hidden_bias)
        bias.assign(rbm.visible_bias)
        data = rbm(data).numpy()


def shift(images, pixels, random):
    """Return images (n, height, width, 1) shifted by up to so many whole pixels; 0 comes in from outside."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    down, right = random.integers(0, 2 * pixels + 1, (2, n, 1))
    rows, columns = down + np.arange(height), right + np.arange(width)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def mini_batches(images, options):
    """Return a function that gives the mini-batches of the next epoch: pairs of the same shifted images."""
    random = np.random.default_rng(options.seed)
    batches = dl.data.batches(
        images, batch_size=options.batch_size, shuffle=True, seed=options.seed, drop_last=True
    )

    def epoch():
        for batch in batches:
            shifted = shift(batch, options.shift, random)
            yield shifted, shifted

    return epoch


class PrincipalAdam(dl.Adam):
    """Adam that changes weights of pixels in the basis (pixels, pixels) of the images' principal components.

    Neighbouring pixels are alike, and so are the gradients of their weights. Along principal components they
    are not, and Adam can give each a step size of its own. SOAP (Vyas et al., 2024) is Adam in the basis in
    which the gradients are uncorrelated, computed again and again; this one is computed once.
    """

    def __init__(self, parameters, learning_rate, basis, **options):
        self.basis = dl.tensor(basis)
        super().__init__(parameters, learning_rate, **options)

    def turn(self, weight, basis):
        """Return a weight with each of its axes that are over pixels in another basis; a bias as it is."""
        if weight.ndim == 2 and weight.shape[0] == len(basis):
            weight = basis.T @ weight
        if weight.ndim == 2 and weight.shape[1] == len(basis):
            weight = weight @ basis
        return weight

    def initial_state(self, parameter):
        turned = self.turn(parameter.detach(), self.basis).copy()
        state = {"turned": turned, "basis": self.basis}  # they move to a GPU when the Parameter does
        return super().initial_state(parameter) | state

    def update(self, parameter, gradient, rate, **state):
        """Make Adam's step with the coefficients of the components, then return to pixels."""
        turned, basis = state["turned"], state["basis"]
        super().update(turned, self.turn(gradient, basis), rate, **state)
        parameter.assign(self.turn(turned, basis.T))


def squared_error(y, x):
    """Return the squared error of an image, summed over its pixels, on average."""
    return dl.mean_squared_error(y, x) * float(np.prod(x.shape[1:]))


def make_optimizer(network, images, steps, options):
    rate = SCHEDULES[options.schedule](options.learning_rate, steps)
    if options.optimizer == "adam":
        return dl.Adam(network.parameters(), rate, l2=options.l2)
    basis = dl.data.pca(images, images[0].size).components.T
    return PrincipalAdam(network.parameters(), rate, basis, l2=options.l2)


def load_images(data):
    """Return the images for training and for validation and test, each (N, 28, 28, 1)."""
    if data == ["digits"]:
        train, test = dl.data.digits()
    elif len(data) == 1:
        train, test = dl.data.read_idx_folder(data[0])
    elif len(data) == 2:
        train, test = map(dl.data.read_mat, data)
    else:
        raise ValueError("--data takes 'digits', one folder of IDX files, or two .mat files")
    for name, part in (("training", train), ("test", test)):
        dl.data.check_finite(part.images, f"the {name} images")
        if part.images.shape[1:] != (28, 28, 1):
            raise ValueError(f"the {name} images are {part.images.shape[1:]}, not (28, 28, 1)")
    return train.images, test.images


def plot_reconstructions(originals, reconstructions, path):
    """Draw pairs of original (above) and reconstruction (below)."""
    from matplotlib.figure import Figure

    count = len(originals)
    figure = Figure(figsize=(1.3 * count, 3), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for row, images in zip(axes, (originals, reconstructions), strict=True):
        for cell, image in zip(row, images, strict=True):
            cell.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("original")
    axes[1, 0].set_ylabel("reconstruction")
    figure.savefig(path, dpi=120)


LOSSES = {"bce": dl.binary_cross_entropy, "mse": squared_error}

#: Of the learning rate, which all but the first bring down to 0 in so many steps.
SCHEDULES = {
    "constant": lambda rate, steps: rate,
    "cosine": dl.schedules.Cosine,
    "linear": dl.schedules.Polynomial,
}

#: Settings by name: the original's, and those that make the same network better than a linear code.
RECIPES = {
    "original": {
        "start": "random",
        "loss": "bce",
        "epochs": 30,
        "batch_size": 128,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "l2": 1e-4,
        "shift": 0,
    },
    "best": {
        "start": "pca",
        "loss": "mse",
        "epochs": 30,
        "batch_size": 128,
        "optimizer": "principal-adam",
        "learning_rate": 8e-4,
        "schedule": "linear",
        "l2": 0.0,
        "shift": 2,
    },
}


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        nargs="+",
        default=["digits"],
        metavar="WHAT",
        help="'digits' (generated), a folder with MNIST's IDX files, or TRAIN.mat TEST.mat",
    )
    parser.add_argument(
        "--recipe", choices=RECIPES, default="original", help="what the options below are if not given"
    )
    parser.add_argument("--start", choices=["random", "rbm", "pca"], help="the weights to start from")
    parser.add_argument("--loss", choices=LOSSES, help="binary cross-entropy, or the squared error")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument(
        "--optimizer", choices=["adam", "principal-adam"], help="Adam, or Adam along the images' components"
    )
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate")
    parser.add_argument("--l2", type=float, help="L2 regularisation of the weights")
    parser.add_argument(
        "--shift", type=int, metavar="PIXELS", help="shift images at random by up to so many pixels"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the training step")
    parser.add_argument("--kernels", default="auto", help="auto, numpy or c (which needs a C compiler)")
    parser.add_argument(
        "--precision", default="float32", help="of matrix products: float32, tf32 or bfloat16 (for a GPU)"
    )
    parser.add_argument(
        "--distributed", action="store_true", help="train on all processes that mpiexec started"
    )
    parser.add_argument(
        "--reproducible", action="store_true", help="give the same bits on any number of processes"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/tied_autoencoder"), metavar="DIR")
    recipe = RECIPES[parser.parse_args(arguments).recipe]
    parser.set_defaults(**recipe)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    dl.devices.resolve(options.device)  # so is an unknown device
    images, test_images = load_images(options.data)
    validation_part, test_part = dl.data.partition(len(test_images), [0.6, 0.4], seed=options.seed)
    validation, test = test_images[validation_part], test_images[test_part]

    network = build_network(options.seed)
    seen = images
    if options.shift:  # what the network will see: images and some of their shifts
        seen = np.concatenate(
            [images] + [shift(images, options.shift, np.random.default_rng(i)) for i in range(4)]
        )
    if options.start == "pca":
        start_at_pca(network, seen)
    elif options.start == "rbm":
        start_at_rbms(network, images, options.seed)
    steps = options.epochs * max(1, len(images) // options.batch_size)
    trainer = dl.Trainer(
        network,
        loss=LOSSES[options.loss],
        optimizer=make_optimizer(network, seen, steps, options),
        metrics=[dl.rmse],
        device=options.device,
        compile=not options.eager and {"kernels": options.kernels, "precision": options.precision},
        seed=options.seed,
        distributed=options.distributed,
        reproducible=options.reproducible,
    )
    data = (mini_batches(images, options),) if options.shift else (images, images)
    history = trainer.fit(
        *data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(validation, validation),
        plot=options.out / "training.png",
    )
    if not trainer.ranks.is_first:
        return  # one of the processes writes the results
    reconstructions = trainer.predict(test)
    test_rmse = dl.rmse(reconstructions, test).item()
    linear = dl.data.pca(images, network.dense[-1].out_features).reconstruct(test, low=0, high=1)
    linear_rmse = dl.rmse(linear, test).item()

    network.save(options.out / "weights.safetensors")
    history.to_json(options.out / "history.json")
    metrics = {
        "test_rmse": test_rmse,
        "pca_test_rmse": linear_rmse,
        "best_validation_loss": min(history.validation["loss"]),
        "training_seconds": round(history.seconds, 2),
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    shown = np.random.default_rng(options.seed).choice(len(test), 8, replace=False)
    plot_reconstructions(test[shown], reconstructions[shown], options.out / "reconstructions.png")
    print(f"trained in {history.seconds:.1f} s; plots and weights are in {options.out}")
    print(f"a linear code of the same size, clipped: test RMSE {linear_rmse:.4f}")
    print(f"test RMSE {test_rmse:.4f}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
