"""HIPS autograd: the loss in its NumPy, the gradient by `value_and_grad`, Adam in place."""

import autograd.numpy as np
import numpy
from autograd import value_and_grad

from benchmarks.jobs.autoencoder import LAYERS
from benchmarks.peers import Job
from benchmarks.peers.adam_in_numpy import Adam


def loss_of(weights, x):
    z = x
    for i in LAYERS:
        z = np.maximum(np.dot(z, weights[f"weight{i}"]) + weights[f"encoder_bias{i}"], 0)
    for i in reversed(LAYERS):
        z = np.dot(z, weights[f"weight{i}"].T) + weights[f"decoder_bias{i}"]
        if i > 1:
            z = np.maximum(z, 0)
    return np.mean(np.maximum(z, 0) - x * z + np.log1p(np.exp(-np.abs(z))))


def build(weights: dict[str, numpy.ndarray], batch_size: int) -> Job:
    weights = {name: value.copy() for name, value in weights.items()}
    optimizer = Adam(weights)
    loss_and_gradients = value_and_grad(loss_of)

    def step(x):
        loss, gradients = loss_and_gradients(weights, x)
        optimizer.step(gradients)
        return float(loss)

    def evaluate(x):
        return float(loss_of(weights, x))

    return Job(
        prepare=lambda x: x, step=step, evaluate=evaluate, save=lambda path: numpy.savez(path, **weights)
    )
