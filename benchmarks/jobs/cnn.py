"""A small convolutional network, such as classifies digits.

Images 28x28x1; three 3x3 "same" convolutions of 8, 16 and 32 channels without biases, each followed by
BatchNorm and ReLU, and the first two by a 2x2 max pool; a dense layer to 10 classes; softmax cross-entropy,
averaged over the batch. SGD with momentum. Everything is float32.
"""

import itertools

import numpy as np

from benchmarks.jobs import BATCHES, float64_losses

TITLE = "small convolutional network"
WHAT = "28x28 images, 3x3 convolutions of 8, 16 and 32 channels with BatchNorm, SGD with momentum"
BATCH_SIZES = (128,)
TOLERANCE = 1e-3
CHANNELS = (1, 8, 16, 32)
SIDE = 28
FLAT = 7 * 7 * 32
CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
EPSILON = 1e-5  # of BatchNorm, whose running statistics move by a tenth


def initial_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """He-normal `kernel1`.. (3, 3, in, out), `gain1`.. and `shift1`.. (out,); `weight` (in, out), `bias`."""
    generator = np.random.default_rng(seed)
    weights = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS), 1):
        weights[f"kernel{i}"] = generator.normal(0, np.sqrt(2 / (9 * inputs)), (3, 3, inputs, outputs))
        weights[f"gain{i}"], weights[f"shift{i}"] = np.ones(outputs), np.zeros(outputs)
    weights["weight"] = generator.normal(0, np.sqrt(1 / FLAT), (FLAT, CLASSES))
    weights["bias"] = np.zeros(CLASSES)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def step_batches(images: None, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images (batch, 28, 28, 1) float32 of smooth blobs, and classes (batch,) int64: where the blob lies."""
    generator = np.random.default_rng(batch_size)
    rows, columns = np.arange(SIDE)[:, None], np.arange(SIDE)
    batches = []
    for _ in range(BATCHES):
        target = generator.integers(0, CLASSES, batch_size)
        y = (10 + target % 3 * 4 + generator.normal(0, 1, batch_size))[:, None, None]
        x = (7 + target // 3 * 4 + generator.normal(0, 1, batch_size))[:, None, None]
        image = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 10)
        image += generator.normal(0, 0.1, image.shape)
        batches.append((image[..., None].astype(np.float32), target))
    return batches


def reference_losses(batches, count: int) -> list[float]:
    from benchmarks.peers.minidl_cnn import build

    return float64_losses(build, initial_weights(), batches, count)
