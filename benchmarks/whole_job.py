"""One peer's whole job in a fresh process: `python -m benchmarks.whole_job PEER IMAGES.npz EPOCHS WEIGHTS`.

Trains on shuffled mini-batches, measures the validation loss after each epoch, saves the weights. Prints one
JSON line: the last validation loss and the peak of resident memory.
"""

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks import machine, peers
from benchmarks.jobs import autoencoder


def train(peer: str, images: Path, epochs: int, weights: Path) -> float:
    """Returns the last validation loss."""
    training, validation = autoencoder.read_images(images)
    job = peers.load(peer)(autoencoder.initial_weights(), autoencoder.BATCH_SIZE)
    generator = np.random.default_rng(0)
    validation_batch = job.prepare(validation)
    validation_loss = float("nan")
    for _ in range(epochs):
        order = generator.permutation(len(training))
        for start in range(0, len(training) - autoencoder.BATCH_SIZE + 1, autoencoder.BATCH_SIZE):
            job.step(job.prepare(training[order[start : start + autoencoder.BATCH_SIZE]]))
        validation_loss = job.evaluate(validation_batch)
    job.save(weights)
    return validation_loss


def main() -> None:
    peer, images, epochs, weights = sys.argv[1:]
    validation_loss = train(peer, Path(images), int(epochs), Path(weights))
    print(json.dumps({"validation_loss": validation_loss, "peak_memory": machine.peak_memory()}))


if __name__ == "__main__":
    main()
