"""One peer's whole job in a fresh process: `python -m benchmarks.whole_job PEER IMAGES.npz EPOCHS WEIGHTS`.

Trains on shuffled mini-batches, measures the validation loss after each epoch, saves the weights. Prints one
JSON line: the last validation loss and the peak of resident memory.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from benchmarks import peers, problem


def train(peer: str, images: Path, epochs: int, weights: Path) -> float:
    """Returns the last validation loss."""
    training, validation = problem.read_images(images)
    job = peers.load(peer)(problem.initial_weights(), problem.BATCH_SIZE)
    generator = np.random.default_rng(0)
    validation_batch = job.prepare(validation)
    validation_loss = float("nan")
    for _ in range(epochs):
        order = generator.permutation(len(training))
        for start in range(0, len(training) - problem.BATCH_SIZE + 1, problem.BATCH_SIZE):
            job.step(job.prepare(training[order[start : start + problem.BATCH_SIZE]]))
        validation_loss = job.evaluate(validation_batch)
    job.save(weights)
    return validation_loss


def peak_memory() -> int:
    """Most bytes of resident memory of this process so far.

    Linux carries `ru_maxrss` over from the parent at `exec`; VmHWM starts from zero.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    peer, images, epochs, weights = sys.argv[1:]
    validation_loss = train(peer, Path(images), int(epochs), Path(weights))
    print(json.dumps({"validation_loss": validation_loss, "peak_memory": peak_memory()}))


if __name__ == "__main__":
    main()
