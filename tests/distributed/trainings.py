"""Trainings of small networks of four kinds; run by itself, all of them on the processes of mpiexec.

    mpiexec -n 3 python tests/distributed/trainings.py FOLDER

Rank 0 writes the weights after 50 steps, and the figures, into the folder.
"""

import json
import sys
from pathlib import Path

import numpy

import minidl as dl

#: How steps are computed, by name.
WAYS = {
    "eager": {"compile": False},
    "numpy": {"compile": {"kernels": "numpy"}},
    "c": {"compile": {"kernels": "c"}},
    "ordered": {"compile": {"kernels": "numpy"}, "reproducible": True},
}


class Autoencoder(dl.Layer):
    def __init__(self, first_seed):
        self.dense = [dl.Dense(24, 16, seed=first_seed), dl.Dense(16, 8, seed=1)]
        self.biases = [dl.Parameter(dl.zeros(24)), dl.Parameter(dl.zeros(16))]

    def forward(self, x):
        for layer in self.dense:
            x = dl.relu(layer(x))
        for layer, bias in zip(self.dense[::-1], self.biases[::-1], strict=True):
            x = x @ layer.weight.T + bias
        return dl.sigmoid(x)


def network(kind, first_seed):
    """Return a network, which shall not depend on the first seed: that of rank 0 counts."""
    layers = {
        "cnn": lambda: [
            dl.Conv2D(2, 4, 3, padding="same", seed=first_seed),
            dl.ReLU(),
            dl.MaxPool2D(2),
            dl.Flatten(),
            dl.Dense(36, 3, seed=1),
        ],
        "lstm": lambda: [dl.LSTM(4, 6, seed=first_seed), dl.Dense(6, 3, seed=1)],
        "batchnorm": lambda: [
            dl.Dense(10, 12, seed=first_seed),
            dl.Tanh(),
            dl.BatchNorm(12),
            dl.Dropout(0.3, seed=first_seed),
            dl.Dense(12, 3, seed=1),
        ],
    }
    return Autoencoder(first_seed) if kind == "autoencoder" else dl.Network(layers[kind]())


KINDS = ("autoencoder", "cnn", "lstm", "batchnorm")
SHAPES = {"autoencoder": (24,), "cnn": (6, 6, 2), "lstm": (5, 4), "batchnorm": (10,)}


def data(kind, count=131):
    rng = numpy.random.default_rng(0)
    x = rng.uniform(size=(count, *SHAPES[kind])).astype("float32")
    return (x, x) if kind == "autoencoder" else (x, rng.integers(0, 3, count))


def train(kind, way, distributed, first_seed=0, **options):
    """Train for 50 steps: 10 epochs of four mini-batches of 30, and one of 11, which no number divides."""
    x, y = data(kind)
    loss = dl.binary_cross_entropy if kind == "autoencoder" else dl.softmax_cross_entropy
    built = network(kind, first_seed)
    trainer = dl.Trainer(
        built,
        loss,
        dl.Adam(built.parameters(), 1e-3, clip_global_norm=1.0),
        [dl.rmse if kind == "autoencoder" else dl.accuracy],
        device="cpu",
        seed=5,
        distributed=distributed,
        **WAYS[way],
    )
    options = {"epochs": 10, "validation_data": (x[:70], y[:70]), "output_network": "last"} | options
    history = trainer.fit(
        x, y, batch_size=30, drop_last=False, validation_frequency=20, verbose=False, **options
    )
    figures = {"steps": history.steps, "validation": history.validation, "reason": history.stop_reason}
    return trainer, built.state_dict(), figures


def main(folder):
    rank = dl.distributed.communicator().rank
    for way in WAYS:
        for kind in KINDS:
            trainer, weights, figures = train(kind, way, True, first_seed=rank)
            if trainer.ranks.is_first:
                numpy.savez(Path(folder) / f"{kind}-{way}.npz", **weights)
                (Path(folder) / f"{kind}-{way}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
