"""What the Trainer costs on top of the bare compiled loop: `python -m benchmarks.trainer [--kernels c]`.

Both train the tied autoencoder on the same mini-batches and note loss and RMSE of each step; the
Trainer shows its bar as well. They take turns; the median of the ratios of their times is printed.
"""

import argparse
import io
import statistics
import sys
import time

import minidl as dl
from benchmarks.peers.minidl_eager import TiedAutoencoder

EPOCHS = 3


def make_optimizer(network: dl.Layer) -> dl.Adam:
    return dl.Adam(network.parameters(), learning_rate=1e-3, l2=1e-4)


class Terminal(io.StringIO):
    """Takes what a terminal would show."""

    def isatty(self) -> bool:
        return True


def bare_loop(images, kernels):
    network = TiedAutoencoder()
    optimizer = make_optimizer(network)

    @dl.compile(kernels=kernels)
    def train_step(x):
        y = network(x)
        loss = dl.binary_cross_entropy(y, x)
        loss.backward()
        optimizer.step()
        return loss, dl.rmse(y, x)

    def run():
        losses, errors = [], []
        for epoch in range(EPOCHS):
            options = {"batch_size": 128, "shuffle": True, "drop_last": True, "seed": epoch}
            for batch in dl.data.batches(images, **options):
                loss, error = train_step(batch)
                losses.append(loss.item())
                errors.append(error.item())

    return run


def trainer_loop(images, kernels):
    network = TiedAutoencoder()
    trainer = dl.Trainer(
        network,
        dl.binary_cross_entropy,
        make_optimizer(network),
        metrics=[dl.rmse],
        device="cpu",
        compile={"kernels": kernels},
        seed=0,
    )

    def run():
        stderr, sys.stderr = sys.stderr, Terminal()
        try:
            trainer.fit(images, images, epochs=EPOCHS, batch_size=128)
        finally:
            sys.stderr = stderr

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", default="numpy")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    images = dl.data.digits()[0].images.reshape(-1, 784)
    loops = {"bare": bare_loop(images, options.kernels), "trainer": trainer_loop(images, options.kernels)}
    for run in loops.values():
        run()
    ratios = []
    for number in range(options.rounds):
        seconds = {}
        for name in sorted(loops, reverse=bool(number % 2)):
            time.sleep(0.15)
            started = time.perf_counter()
            loops[name]()
            seconds[name] = time.perf_counter() - started
        ratios.append(seconds["trainer"] / seconds["bare"])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"Trainer / bare compiled loop ({options.kernels}): {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
