"""JAX on a GPU: the whole step in one `jit`, parameters and state donated, optax's Adam.

By default JAX rounds the factors of float32 products on such GPUs; each precision is asked for by name.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cuda")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peers share the card

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Job
from benchmarks.peers.jax_jit import loss_of, training

NAMES = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "BF16_BF16_F32"}


def build(weights: dict[str, np.ndarray], batch_size: int, precision: str = "float32") -> Job:
    jax.config.update("jax_default_matmul_precision", NAMES[precision])
    train_step, parameters, state = training(weights)

    def step(x):
        nonlocal parameters, state
        parameters, state, loss = train_step(parameters, state, x)
        return loss

    return Job(
        prepare=jnp.asarray,
        step=step,
        evaluate=lambda x: float(loss_of(parameters, x)),
        save=lambda path: np.savez(path, **parameters),
        wait=lambda: jax.block_until_ready(parameters),
    )
