"""JAX: the whole step in one `jit`, parameters and state donated, optax's Adam, data on the device."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LAYERS, LEARNING_RATE
from benchmarks.peers import Job


def loss_of(weights, x):
    z = x
    for i in LAYERS:
        z = jax.nn.relu(z @ weights[f"weight{i}"] + weights[f"encoder_bias{i}"])
    for i in reversed(LAYERS):
        z = z @ weights[f"weight{i}"].T + weights[f"decoder_bias{i}"]
        if i > 1:
            z = jax.nn.relu(z)
    return optax.sigmoid_binary_cross_entropy(z, x).mean()


def training(weights: dict[str, np.ndarray]):
    """The compiled step, and what it begins with: `step(parameters, state, x) -> parameters, state, loss`."""
    is_weight = {name: name.startswith("weight") for name in weights}
    optimizer = optax.chain(
        optax.add_decayed_weights(L2, mask=is_weight),  # before Adam: coupled
        optax.adam(LEARNING_RATE, b1=BETA1, b2=BETA2, eps=EPSILON),
    )
    parameters = {name: jnp.array(value) for name, value in weights.items()}

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(parameters, state, x):
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    return train_step, parameters, optimizer.init(parameters)


def build(weights: dict[str, np.ndarray], batch_size: int) -> Job:
    train_step, parameters, state = training(weights)

    def step(x):
        nonlocal parameters, state
        parameters, state, loss = train_step(parameters, state, x)
        jax.block_until_ready(parameters)
        return float(loss)

    compiled_loss = jax.jit(loss_of)

    def save(path):
        np.savez(path, **parameters)

    return Job(
        prepare=jnp.asarray, step=step, evaluate=lambda x: float(compiled_loss(parameters, x)), save=save
    )
