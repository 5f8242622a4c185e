"""Learn to draw digits: a variational autoencoder (Kingma & Welling, 2014).

The encoder gives for each image a mean and a variance for each number of its code; the code is drawn from
them, and the decoder makes the image again. The loss is what the image costs, given the code, plus how far
the codes are from standard normal ones, so that afterwards codes drawn at random become new digits. Run it
with --help to see what can be changed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import minidl as dl


class VariationalAutoencoder(dl.Layer):
    """(batch, 28, 28, 1) images to the logits of their pixels, and the means and log variances of codes."""

    def __init__(self, code_size, hidden, seed):
        self.generator = dl.Generator(seed)
        self.encoder = dl.Network(
            [
                dl.Flatten(),
                dl.Dense(784, hidden, seed=self.generator),
                dl.ReLU(),
                dl.Dense(hidden, hidden, seed=self.generator),
                dl.ReLU(),
                dl.Dense(hidden, 2 * code_size, seed=self.generator),
            ]
        )
        self.decoder = dl.Network(
            [
                dl.Dense(code_size, hidden, seed=self.generator),
                dl.ReLU(),
                dl.Dense(hidden, hidden, seed=self.generator),
                dl.ReLU(),
                dl.Dense(hidden, 784, seed=self.generator),
                dl.Reshape(28, 28, 1),
            ]
        )

    def forward(self, images):
        mean, log_variance = dl.split(self.encoder(images), 2, axis=-1)
        code = mean
        if self.training:  # noise times deviation plus mean: gradients flow through both (reparameterisation)
            noise = dl.random.normal(mean.shape, generator=self.generator, device=mean.device)
            code = mean + dl.exp(0.5 * log_variance) * noise
        return self.decoder(code), mean, log_variance


def divergence(mean, log_variance):
    """Return how far each code is from standard normal: KL(N(mean, variance) || N(0, 1)), in nats."""
    return 0.5 * (dl.exp(log_variance) + mean**2 - 1 - log_variance).sum(axis=-1)


def negative_elbo(logits, mean, log_variance, images):
    """Return the mean over the images of what pixels and code cost together, in nats."""
    pixels = dl.binary_cross_entropy_with_logits(logits, images, reduction="batchmean")
    return pixels + divergence(mean, log_variance).mean()


def code_cost(logits, mean, log_variance, images):
    """Return the share of the code in it."""
    return divergence(mean, log_variance).mean()


def plot_images(network, images, path, seed, columns=12):
    """Draw test images, what comes out of their codes, and out of codes drawn at random or between two."""
    from matplotlib.figure import Figure

    device = network.parameters()[0].device
    decoded = lambda codes: dl.sigmoid(network.decoder(dl.tensor(codes, "float32", device=device))).numpy()
    images = images[:: max(1, len(images) // columns)][:columns]
    with dl.no_grad(), network.evaluating():
        codes = network(dl.tensor(images, device=device))[1].numpy()
        random = np.random.default_rng(seed).standard_normal((2, columns, codes.shape[1]))
        way = np.linspace(0, 1, columns)[:, None]
        rows = {
            "test images": images,
            "decoded": decoded(codes),
            "drawn": decoded(random[0]),
            "drawn ": decoded(random[1]),
            "between": decoded((1 - way) * codes[0] + way * codes[len(codes) // 2]),
            "between ": decoded((1 - way) * codes[1] + way * codes[-1]),
        }
    figure = Figure(figsize=(columns * 0.8, len(rows) * 0.85), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(len(rows), columns), rows.items(), strict=True):
        axes[0].set_ylabel(name, fontsize=9)
        for axis, image in zip(axes, row, strict=False):
            axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=1)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=100)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        default="digits",
        metavar="WHAT",
        help="'digits' (made on the spot), or a folder with MNIST's IDX files",
    )
    parser.add_argument("--code-size", type=int, default=16, help="numbers in a code")
    parser.add_argument("--hidden", type=int, default=256, help="units of the hidden layers")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at first; it falls to 0")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the training step")
    parser.add_argument("--out", type=Path, default=Path("runs/variational_autoencoder"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    if min(options.epochs, options.batch_size, options.code_size, options.hidden) < 1:
        raise ValueError("--epochs, --batch-size, --code-size and --hidden must be at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    train, test = dl.data.digits() if options.data == "digits" else dl.data.read_idx_folder(options.data)
    for name, images in (("training", train.images), ("test", test.images)):
        if images.shape[1:] != (28, 28, 1):
            raise ValueError(f"the {name} images are {images.shape[1:]}, not (28, 28, 1)")

    network = VariationalAutoencoder(options.code_size, options.hidden, options.seed)
    steps = options.epochs * max(1, len(train.images) // options.batch_size)
    trainer = dl.Trainer(
        network,
        loss=negative_elbo,
        optimizer=dl.Adam(network.parameters(), dl.schedules.Cosine(options.learning_rate, steps)),
        metrics=[dl.Metric(code_cost)],
        device=options.device,
        compile=not options.eager,
        seed=options.seed,
    )
    history = trainer.fit(
        train.images,
        train.images,
        epochs=options.epochs,
        batch_size=options.batch_size,
        plot=options.out / "training.png",
    )
    figures = trainer.evaluate(test.images, test.images)
    network.save(options.out / "weights.safetensors")
    history.to_json(options.out / "history.json")
    plot_images(network, test.images, options.out / "images.png", options.seed)
    print(f"trained in {history.seconds:.1f} s; pictures and weights are in {options.out}")
    print(f"a test image costs {figures['loss']:.1f} nats, {figures['code_cost']:.1f} of them its code")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
