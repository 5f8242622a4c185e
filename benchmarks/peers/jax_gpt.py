"""JAX: the GPT; queries, keys and values are one product."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jobs.gpt import BETA1, BETA2, BLOCKS, EPSILON, HEADS, LEARNING_RATE, NORM_EPSILON, WIDTH
from benchmarks.peers import Job
from benchmarks.peers.jax_job import cross_entropy, make_job


def normalise(weights, name, x):
    mean, variance = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(variance + NORM_EPSILON)
    return x * weights[name] + weights[f"{name}_shift"]


def dense(weights, name, x):
    return x @ weights[name] + weights[f"{name}_bias"]


def attention(weights, i, x):
    batch, time, _ = x.shape
    projected = dense(weights, f"inputs{i}", x).reshape(batch, time, 3, HEADS, WIDTH // HEADS)
    q, k, v = (projected[:, :, part] for part in range(3))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return dense(weights, f"output{i}", y.reshape(x.shape))


def loss_of(weights, x, target):
    h = weights["characters"][x] + weights["positions"]
    for i in BLOCKS:
        h = h + attention(weights, i, normalise(weights, f"norm1_{i}", h))
        wide = dense(weights, f"wide{i}", normalise(weights, f"norm2_{i}", h))
        h = h + dense(weights, f"narrow{i}", jax.nn.gelu(wide, approximate=False))
    return cross_entropy(normalise(weights, "norm", h) @ weights["characters"].T, target)


def build(weights, batch_size: int) -> Job:
    weights = dict(weights)
    for i in BLOCKS:
        for end in ("", "_bias"):
            parts = [weights.pop(f"{name}{i}{end}") for name in ("query", "key", "value")]
            weights[f"inputs{i}{end}"] = np.concatenate(parts, axis=-1)
    return make_job(weights, loss_of, optax.adam(LEARNING_RATE, b1=BETA1, b2=BETA2, eps=EPSILON))
