"""The jobs that peers are compared on, one file each, and what each file must provide.

- ``TITLE``, ``WHAT``: what it is called, and in one sentence what a step does
- ``BATCH_SIZES``: of the training step, by default
- ``TOLERANCE``: how far the losses of the first steps may be off, relatively
- ``initial_weights()``: NumPy arrays by name, the same for every peer
- ``step_batches(images, batch_size)``: a few batches that a step benchmark goes through, over and over. Only
  the autoencoder takes images; the others make their own data
- ``reference_losses(batches, count)``: the losses of the first steps, in float64
"""

from importlib import import_module
from types import ModuleType

JOBS = ("autoencoder", "cnn", "lstm", "gpt")
BATCHES = 4
CHECKED_STEPS = 20
QUICKLY_CHECKED_STEPS = 3


def load(name: str) -> ModuleType:
    return import_module(f"benchmarks.jobs.{name}")


def float64_losses(build, weights, batches, count: int) -> list[float]:
    """The losses of minidl's plain, eager training in float64, batch after batch.

    It shares nothing with what is measured but the textbook code of the network: no compiler, no kernels.
    The other frameworks' losses are compared with it as well, so that it is right if they agree.
    """
    job = build(weights, len(batches[0][0]), kernels=None, dtype="float64")
    prepared = [job.prepare(batch) for batch in batches]
    return [float(job.step(prepared[i % len(prepared)])) for i in range(count)]
