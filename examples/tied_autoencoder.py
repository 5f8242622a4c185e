"""Train an autoencoder whose decoder reuses the encoder's weights, transposed.

The network is the one of MATLAB's "Weight Tying Using Nested Layer": a nested encoder
784 -> 784 -> 392 -> 196; the decoder uses the transposed weights of the encoder, and its own
biases. Run it with --help to see what can be changed. On several processes:

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


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        nargs="+",
        default=["digits"],
        metavar="WHAT",
        help="'digits' (generated), a folder with MNIST's IDX files, or TRAIN.mat TEST.mat",
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--l2", type=float, default=1e-4, help="L2 regularisation of the weights")
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
    trainer = dl.Trainer(
        network,
        loss=dl.binary_cross_entropy,
        optimizer=dl.Adam(network.parameters(), learning_rate=options.learning_rate, l2=options.l2),
        metrics=[dl.rmse],
        device=options.device,
        compile=not options.eager and {"kernels": options.kernels, "precision": options.precision},
        seed=options.seed,
        distributed=options.distributed,
        reproducible=options.reproducible,
    )
    history = trainer.fit(
        images,
        images,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_data=(validation, validation),
        plot=options.out / "training.png",
    )
    if not trainer.ranks.is_first:
        return  # one of the processes writes the results
    reconstructions = trainer.predict(test)
    test_rmse = dl.rmse(reconstructions, test).item()

    network.save(options.out / "weights.safetensors")
    history.to_json(options.out / "history.json")
    metrics = {
        "test_rmse": test_rmse,
        "best_validation_loss": min(history.validation["loss"]),
        "training_seconds": round(history.seconds, 2),
    }
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
    shown = np.random.default_rng(options.seed).choice(len(test), 8, replace=False)
    plot_reconstructions(test[shown], reconstructions[shown], options.out / "reconstructions.png")
    print(f"trained in {history.seconds:.1f} s; plots and weights are in {options.out}")
    print(f"test RMSE {test_rmse:.4f}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
