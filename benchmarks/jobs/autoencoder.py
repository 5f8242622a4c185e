"""The main job: its sizes, first weights, batches, and the losses that every peer must reach.

A weight-tied autoencoder 784-784-392-196 with ReLU. The decoder uses the encoder's weights transposed, has
biases of its own, and ends in a sigmoid. The loss is the binary cross-entropy averaged over all elements.
Adam updates, bias-corrected and with epsilon outside the root; 1e-4 times the weight is added to the gradient
of each weight (coupled L2), not of the biases. Everything is float32.
"""

from pathlib import Path

import numpy as np

from benchmarks.jobs import BATCHES, CHECKED_STEPS

TITLE = "tied autoencoder"
WHAT = "784-784-392-196 and back by the same weights, binary cross-entropy, Adam with L2"
BATCH_SIZES = (32, 128, 1024)
GPU_BATCH_SIZES = (128, 1024, 8192)
SIZES = (784, 784, 392, 196)
LAYERS = (1, 2, 3)
LEARNING_RATE = 1e-3
BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8
L2 = 1e-4

BATCH_SIZE = 128  # of the whole job
# Relative, between a peer's loss and the float64 one. Rounding alone gives up to 6e-5 (a ReLU or the sign of
# a tiny gradient falls the other way); no L2 gives 3e-2, ten times epsilon 3e-3, 0.1% of the rate 1e-3.
TOLERANCE = 2e-4
# Of float32, with factors of products rounded to fewer bits; what is left out altogether would still show.
TOLERANCES = {"float32": TOLERANCE, "tf32": 3e-3, "bfloat16": 3e-3}


def initial_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Glorot-uniform `weight1`.. (in, out), zero `encoder_bias1`.. (out,) and `decoder_bias1`.. (in,)."""
    generator = np.random.default_rng(seed)
    weights = {}
    for i, inputs, outputs in zip(LAYERS, SIZES[:-1], SIZES[1:], strict=True):
        bound = np.sqrt(6 / (inputs + outputs))
        weights[f"weight{i}"] = generator.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
        weights[f"encoder_bias{i}"] = np.zeros(outputs, np.float32)
        weights[f"decoder_bias{i}"] = np.zeros(inputs, np.float32)
    return weights


def save_images(path: Path, training: np.ndarray, validation: np.ndarray) -> None:
    """Write the job's images as float32 rows of 784 in [0, 1]; uncompressed, so they are read fast."""
    np.savez(path, x_train=as_rows(training), x_validation=as_rows(validation))


def as_rows(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.reshape(images, (len(images), SIZES[0])), np.float32)


def read_images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation images, (n, 784) each."""
    with np.load(path) as file:
        return file["x_train"], file["x_validation"]


def step_batches(images: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """A few random mini-batches, the same for every peer."""
    generator = np.random.default_rng(batch_size)
    return [images[generator.choice(len(images), batch_size, replace=False)] for _ in range(BATCHES)]


def reference_losses(batches: list[np.ndarray], count: int = CHECKED_STEPS) -> list[float]:
    """The losses of the first steps, in float64 as a textbook writes them: every peer must agree."""
    weights = {name: value.astype(np.float64) for name, value in initial_weights().items()}
    first_moment = {name: np.zeros_like(value) for name, value in weights.items()}
    second_moment = {name: np.zeros_like(value) for name, value in weights.items()}
    losses = []
    for step in range(1, count + 1):
        loss, gradients = reference_gradients(weights, batches[(step - 1) % len(batches)].astype(np.float64))
        losses.append(loss)
        for name, gradient in gradients.items():
            if name.startswith("weight"):
                gradient = gradient + L2 * weights[name]
            first_moment[name] = BETA1 * first_moment[name] + (1 - BETA1) * gradient
            second_moment[name] = BETA2 * second_moment[name] + (1 - BETA2) * gradient**2
            first = first_moment[name] / (1 - BETA1**step)
            second = second_moment[name] / (1 - BETA2**step)
            weights[name] = weights[name] - LEARNING_RATE * first / (np.sqrt(second) + EPSILON)
    return losses


def reference_gradients(weights: dict, x: np.ndarray) -> tuple[float, dict]:
    """The loss of one batch and its gradient for every weight and bias."""
    encoded = [x]
    for i in LAYERS:
        encoded.append(np.maximum(encoded[-1] @ weights[f"weight{i}"] + weights[f"encoder_bias{i}"], 0))
    decoded = {4: encoded[-1]}  # decoded[i] is what the decoder's layer i gives: relu, relu, then the logits
    for i in reversed(LAYERS):
        z = decoded[i + 1] @ weights[f"weight{i}"].T + weights[f"decoder_bias{i}"]
        decoded[i] = np.maximum(z, 0) if i > 1 else z
    logits = decoded[1]
    loss = np.mean(np.logaddexp(0, logits) - x * logits)

    gradients = {}
    g = (1 / (1 + np.exp(-logits)) - x) / x.size
    for i in LAYERS:
        gradients[f"decoder_bias{i}"] = g.sum(axis=0)
        gradients[f"weight{i}"] = g.T @ decoded[i + 1]
        g = (g @ weights[f"weight{i}"]) * (decoded[i + 1] > 0)
    for i in reversed(LAYERS):
        gradients[f"encoder_bias{i}"] = g.sum(axis=0)
        gradients[f"weight{i}"] += encoded[i - 1].T @ g
        g = (g @ weights[f"weight{i}"].T) * (encoded[i - 1] > 0)
    return float(loss), gradients
