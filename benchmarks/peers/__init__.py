"""The peers, one file each, and what each must provide.

A peer's file defines `build(weights, batch_size) -> Job`. Its imports are at the top, so that importing it
shows whether its packages are installed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.problem import TOLERANCE, TOLERANCES


class Job(NamedTuple):
    """One peer's training of the main job, from the given weights on."""

    prepare: Callable[[np.ndarray], Any]
    """NumPy images (n, 784) -> the batch as the peer takes it. Not timed in the step benchmark."""
    step: Callable[[Any], float]
    """One training step on a prepared batch of `batch_size`: the loss, once the weights are updated."""
    evaluate: Callable[[Any], float]
    """The loss of a prepared batch of any size; trains nothing."""
    save: Callable[[Path], Any]
    """Write the weights to a file (the peer may append its own suffix)."""
    wait: Callable[[], Any] = lambda: None
    """On a GPU, where `step` gives the loss without waiting for it: wait until all steps are done."""


class Peer(NamedTuple):
    title: str
    imports: str
    """What a user of the peer imports: timed as its import time."""
    packages: tuple[str, ...]
    """The distributions whose versions belong to the figure."""
    device: str = "cpu"
    module: str = ""
    """The file in this folder; by default the one with the peer's name."""
    options: Mapping[str, Any] = {}
    """What its `build` is told beside weights and batch size."""
    tolerance: float = TOLERANCE
    """How far its losses may be off, relatively."""


def _rounding(
    precision: str, title: str, imports: str, packages: tuple[str, ...], module: str, **options: Any
) -> Peer:
    """A peer on a GPU whose matrix products round their factors: ``"tf32"`` or ``"bfloat16"``."""
    options |= {"precision": precision}
    title = f"{title}, {'TF32' if precision == 'tf32' else precision}"
    return Peer(title, imports, packages, "gpu", module, options, TOLERANCES[precision])


MINIDL, TORCH, JAX = ("minidl", "cupy-cuda12x", "cupy-cuda13x"), ("torch",), ("jax", "jaxlib", "optax")

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
    "gpu_minidl": Peer("minidl compiled", "minidl", MINIDL, "gpu", "gpu_minidl"),
    "gpu_minidl_tf32": _rounding("tf32", "minidl compiled", "minidl", MINIDL, "gpu_minidl"),
    "gpu_minidl_bfloat16": _rounding("bfloat16", "minidl compiled", "minidl", MINIDL, "gpu_minidl"),
    "gpu_minidl_eager": Peer("minidl eager", "minidl", MINIDL, "gpu", "gpu_minidl", {"compiled": False}),
    "gpu_torch_graph": Peer(
        "PyTorch, CUDA graph by hand", "torch", TORCH, "gpu", "gpu_torch", {"way": "graph"}
    ),
    "gpu_torch_graph_tf32": _rounding(
        "tf32", "PyTorch, CUDA graph by hand", "torch", TORCH, "gpu_torch", way="graph"
    ),
    "gpu_torch_graph_bfloat16": _rounding(
        "bfloat16", "PyTorch, CUDA graph by hand", "torch", TORCH, "gpu_torch", way="graph"
    ),
    "gpu_torch_compile": Peer("torch.compile", "torch", TORCH, "gpu", "gpu_torch", {"way": "compile"}),
    "gpu_torch_compile_tf32": _rounding("tf32", "torch.compile", "torch", TORCH, "gpu_torch", way="compile"),
    "gpu_torch_compile_bfloat16": _rounding(
        "bfloat16", "torch.compile", "torch", TORCH, "gpu_torch", way="compile"
    ),
    "gpu_torch_fused": Peer("PyTorch eager, fused Adam", "torch", TORCH, "gpu", "gpu_torch"),
    "gpu_jax": Peer("JAX jit + optax", "jax", JAX, "gpu", "gpu_jax"),
    "gpu_jax_tf32": _rounding("tf32", "JAX jit + optax", "jax", JAX, "gpu_jax"),
    "gpu_jax_bfloat16": _rounding("bfloat16", "JAX jit + optax", "jax", JAX, "gpu_jax"),
}


def load(peer: str) -> Callable[[dict[str, np.ndarray], int], Job]:
    """Return the peer's `build`. ModuleNotFoundError if a package is absent."""
    entry = PEERS[peer]
    build = import_module(f"benchmarks.peers.{entry.module or peer}").build
    return partial(build, **entry.options) if entry.options else build
