"""JAX: the convolutional network, channels last."""

import jax
import jax.numpy as jnp
import optax

from benchmarks.jobs.cnn import EPSILON, LEARNING_RATE, MOMENTUM
from benchmarks.peers import Job
from benchmarks.peers.jax_job import cross_entropy, make_job


def loss_of(weights, x, target):
    """Without the running statistics, which would be state that goes from step to step."""
    for i in (1, 2, 3):
        x = jax.lax.conv_general_dilated(
            x, weights[f"kernel{i}"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, variance = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        x = (x - mean) * (weights[f"gain{i}"] / jnp.sqrt(variance + EPSILON)) + weights[f"shift{i}"]
        x = jax.nn.relu(x)
        if i < 3:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return cross_entropy(x.reshape(len(x), -1) @ weights["weight"] + weights["bias"], target)


def build(weights, batch_size: int) -> Job:
    return make_job(weights, loss_of, optax.sgd(LEARNING_RATE, momentum=MOMENTUM))
