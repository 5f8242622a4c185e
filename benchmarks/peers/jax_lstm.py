"""JAX: the language model with LSTMs, whose steps are a `scan`."""

import jax
import jax.numpy as jnp
import optax

from benchmarks.jobs.lstm import CLIP, LEARNING_RATE, UNITS
from benchmarks.peers import Job
from benchmarks.peers.jax_job import cross_entropy, make_job


def lstm(weights, i, x):
    """(time, batch, units) to the same; the input's product is one for all steps."""
    projected = x @ weights[f"input{i}"] + weights[f"bias{i}"]

    def step(state, projected):
        h, c = state
        i_, f, g, o = jnp.split(projected + h @ weights[f"recurrent{i}"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i_) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((x.shape[1], UNITS))
    return jax.lax.scan(step, (zeros, zeros), projected)[1]


def loss_of(weights, x, target):
    h = weights["embedding"][x.T]
    h = lstm(weights, 2, lstm(weights, 1, h))
    return cross_entropy(h @ weights["embedding"].T + weights["output_bias"], target.T)


def build(weights, batch_size: int) -> Job:
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.sgd(LEARNING_RATE))
    return make_job(weights, loss_of, optimizer)
