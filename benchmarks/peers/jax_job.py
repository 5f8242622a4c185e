"""What JAX's peers of all jobs share: the whole step in one `jit`, with parameters and state donated."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from functools import partial

import jax
import jax.numpy as jnp
import optax

from benchmarks.peers import Job


def make_job(weights, loss_of, optimizer) -> Job:
    """`loss_of(parameters, x, target)`."""
    parameters = {name: jnp.array(value) for name, value in weights.items()}
    state = optimizer.init(parameters)

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(parameters, state, x, target):
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, target)
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    def step(batch):
        nonlocal parameters, state
        parameters, state, loss = train_step(parameters, state, *batch)
        jax.block_until_ready(parameters)
        return float(loss)

    return Job(prepare=lambda batch: tuple(map(jnp.asarray, batch)), step=step)


def cross_entropy(logits, target):
    return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()
