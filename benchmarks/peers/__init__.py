"""The peers, one file each, and what a peer must give.

A peer's file gives `build(weights, batch_size) -> Job`. Its imports stand at the top, so that importing it
tells whether its packages are there.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """One peer's training of the main job, from the given weights on."""

    prepare: Callable[[np.ndarray], Any]
    """NumPy images (n, 784) -> the batch as the peer takes it. Not timed in the step benchmark."""
    step: Callable[[Any], float]
    """One training step on a prepared batch of `batch_size`: the loss, once the weights are updated."""
    evaluate: Callable[[Any], float]
    """The loss of a prepared batch of any size; trains nothing."""
    save: Callable[[Path], Any]
    """Write the weights to a file (the peer's own suffix is appended where the peer insists on one)."""


class Peer(NamedTuple):
    title: str
    imports: str
    """What a user of the peer imports: timed as its import time."""
    packages: tuple[str, ...]
    """The distributions whose versions belong to the figure."""


PEERS = {
    "minidl_c_mkl": Peer("minidl compiled, C kernels, MKL", "minidl", ("minidl", "numpy", "mkl")),
    "minidl_c": Peer("minidl compiled, C kernels", "minidl", ("minidl", "numpy")),
    "minidl_compiled": Peer("minidl compiled", "minidl", ("minidl", "numpy")),
    "minidl_eager": Peer("minidl eager", "minidl", ("minidl", "numpy")),
    "numpy_static": Peer("NumPy by hand, static buffers", "numpy", ("numpy",)),
    "jax_jit": Peer("JAX jit + optax", "jax, jax.numpy, optax", ("jax", "jaxlib", "optax")),
    "torch_compile": Peer("torch.compile", "torch", ("torch",)),
    "torch_fused": Peer("PyTorch, fused Adam", "torch", ("torch",)),
    "torch_eager": Peer("PyTorch eager", "torch", ("torch",)),
    "keras_jax": Peer("Keras on JAX", "keras", ("keras", "jax", "jaxlib")),
    "hip_autograd": Peer("HIPS autograd", "autograd, autograd.numpy", ("autograd", "numpy")),
    "mygrad_eager": Peer("MyGrad", "mygrad, mygrad.nnet", ("mygrad", "numpy")),
}


def load(peer: str) -> Callable[[dict[str, np.ndarray], int], Job]:
    """Give the peer's `build`. ModuleNotFoundError if a package is absent."""
    return import_module(f"benchmarks.peers.{peer}").build
