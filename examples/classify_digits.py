"""Classify images of digits with a small convolutional network.

Three 3x3 convolutions of 8, 16 and 32 channels, each with batch normalisation and ReLU, two 2x2 max poolings
and a dense layer: 21,000 parameters, trained by SGD with momentum. The digits are made on the spot, or read
from a folder with MNIST's files. Run it with --help to see what can be changed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import minidl as dl


def build_network(seed):
    """Return the network: (batch, 28, 28, 1) to one logit for each of the ten digits."""
    generator = dl.Generator(seed)

    def block(in_channels, out_channels):
        return [
            dl.Conv2D(in_channels, out_channels, 3, padding="same", bias=False, seed=generator),
            dl.BatchNorm(out_channels),
            dl.ReLU(),
        ]

    return dl.Network(
        [
            *block(1, 8),
            dl.MaxPool2D(2),
            *block(8, 16),
            dl.MaxPool2D(2),
            *block(16, 32),
            dl.Flatten(),
            dl.Dense(7 * 7 * 32, 10, seed=generator),
        ]
    )


def load_digits(data):
    """Return the labelled images for training and for testing, each (N, 28, 28, 1)."""
    train, test = dl.data.digits() if data == "digits" else dl.data.read_idx_folder(data)
    for name, part in (("training", train), ("test", test)):
        if part.labels is None:
            raise ValueError(f"{data} has no labels for the {name} images")
        dl.data.check_finite(part.images, f"the {name} images")
        if part.images.shape[1:] != (28, 28, 1):
            raise ValueError(f"the {name} images are {part.images.shape[1:]}, not (28, 28, 1)")
    return train, test


def plot_predictions(images, labels, probabilities, path):
    """Draw what the network is least sure of: the image, and the probability of each digit."""
    from matplotlib.figure import Figure

    of_the_label = probabilities[np.arange(len(labels)), labels]
    shown = np.argsort(of_the_label)[:8]
    figure = Figure(figsize=(1.5 * len(shown), 3.4), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column, i in zip(axes.T, shown, strict=True):
        guess = probabilities[i].argmax()
        column[0].imshow(images[i, ..., 0], cmap="gray_r", vmin=0, vmax=1)
        column[0].set(xticks=[], yticks=[], title=f"{labels[i]}, taken for {guess}")
        colours = ["tab:green" if digit == labels[i] else "tab:red" for digit in range(10)]
        column[1].bar(range(10), probabilities[i], color=colours)
        column[1].set(xticks=range(10), yticks=[], ylim=(0, 1))
        column[1].tick_params(labelsize=7)
        column[1].spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"the {len(shown)} of {len(labels)} test images whose label is given least probability")
    figure.savefig(path, dpi=120)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        default="digits",
        metavar="WHAT",
        help="'digits' (made on the spot), or a folder with MNIST's IDX files",
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.05, help="at first; it falls to 0")
    parser.add_argument("--l2", type=float, default=1e-4, help="L2 regularisation of the weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="do not compile the training step")
    parser.add_argument("--out", type=Path, default=Path("runs/classify_digits"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    if options.epochs < 1 or options.batch_size < 1:
        raise ValueError("--epochs and --batch-size must be at least 1")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    dl.devices.resolve(options.device)  # an unknown one is an error now, too
    train, test = load_digits(options.data)
    training, validation = dl.data.partition(len(train.images), [0.9, 0.1], seed=options.seed)

    network = build_network(options.seed)
    print(network.summary((28, 28, 1)))
    steps = options.epochs * max(1, len(training) // options.batch_size)
    rate = dl.schedules.Cosine(options.learning_rate, steps)
    trainer = dl.Trainer(
        network,
        loss=dl.softmax_cross_entropy,
        optimizer=dl.SGD(network.parameters(), rate, momentum=0.9, l2=options.l2),
        metrics=[dl.accuracy],
        device=options.device,
        compile=not options.eager,
        seed=options.seed,
    )
    history = trainer.fit(
        train.images[training],
        train.labels[training],
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(train.images[validation], train.labels[validation]),
        plot=options.out / "training.png",
    )
    logits = trainer.predict(test.images)
    accuracy = (logits.argmax(axis=-1) == test.labels).mean()

    network.save(options.out / "weights.safetensors")
    history.to_json(options.out / "history.json")
    probabilities = dl.softmax(logits).numpy()
    plot_predictions(test.images, test.labels, probabilities, options.out / "predictions.png")
    print(f"trained in {history.seconds:.1f} s; pictures and weights are in {options.out}")
    print(f"test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
