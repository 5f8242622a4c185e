"""The peers, one file each, and what each must provide.

The autoencoder's peers are `<name>.py`, those of another job `<framework>_<job>.py`; what these share is in
`<framework>_job.py`. A peer's file defines `build(weights, batch_size) -> Job`. Its imports are at the top,
so that importing it shows whether its packages are installed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.jobs import JOBS
from benchmarks.jobs import load as load_job
from benchmarks.jobs.autoencoder import TOLERANCE, TOLERANCES


class Job(NamedTuple):
    """One peer's training, from the given weights on."""

    prepare: Callable[[Any], Any]
    """One of the job's batches -> the batch as the peer takes it. Not timed in the step benchmark."""
    step: Callable[[Any], float]
    """One training step on a prepared batch of `batch_size`: the loss, once the weights are updated."""
    evaluate: Callable[[Any], float] | None = None
    """The loss of a prepared batch of any size; trains nothing. The autoencoder's whole job needs it."""
    save: Callable[[Path], Any] | None = None
    """Write the weights to a file (the peer may append its own suffix). For the whole job, too."""
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
    job: str = "autoencoder"


def _rounding(
    precision: str, title: str, imports: str, packages: tuple[str, ...], module: str, **options: Any
) -> Peer:
    """A peer on a GPU whose matrix products round their factors: ``"tf32"`` or ``"bfloat16"``."""
    options |= {"precision": precision}
    title = f"{title}, {'TF32' if precision == 'tf32' else precision}"
    return Peer(title, imports, packages, "gpu", module, options, TOLERANCES[precision])


MINIDL, TORCH, JAX = ("minidl", "cupy-cuda12x", "cupy-cuda13x"), ("torch",), ("jax", "jaxlib", "optax")

PEERS = {
    "minidl_mkl": Peer("minidl compiled, MKL", "minidl", ("minidl", "numpy", "mkl")),
    "minidl_compiled": Peer("minidl compiled", "minidl", ("minidl", "numpy")),
    "minidl_numpy": Peer("minidl compiled, NumPy kernels", "minidl", ("minidl", "numpy")),
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


def _of_job(job: str, tolerance: float) -> dict[str, Peer]:
    """The peers of a job that runs on a CPU alone: the frameworks that people would take for it."""

    def peer(title: str, framework: str, packages: tuple[str, ...], **options: Any) -> Peer:
        imports = {"minidl": "minidl", "torch": "torch", "jax": "jax, jax.numpy, optax", "keras": "keras"}
        module = f"{framework}_{job}"
        return Peer(title, imports[framework], packages, "cpu", module, options, tolerance, job)

    ours = ("minidl", "numpy")
    peers = {
        "minidl_compiled": peer("minidl compiled", "minidl", ours),
        "minidl_numpy": peer("minidl compiled, NumPy kernels", "minidl", ours, kernels="numpy"),
        "minidl_eager": peer("minidl eager", "minidl", ours, kernels=None),
        "torch_eager": peer("PyTorch eager", "torch", TORCH),
        "torch_compile": peer("torch.compile", "torch", TORCH, compiled=True),
        "jax_jit": peer("JAX jit + optax", "jax", JAX),
        "keras_jax": peer("Keras on JAX", "keras", ("keras", "jax", "jaxlib")),
    }
    if job == "cnn":
        peers["torch_channels_last"] = peer("PyTorch, channels last", "torch", TORCH, channels_last=True)
        both = {"channels_last": True, "compiled": True}
        peers["torch_compile_channels_last"] = peer("torch.compile, channels last", "torch", TORCH, **both)
    return {f"{job}_{name}": entry for name, entry in peers.items()}


for _job in JOBS[1:]:
    PEERS |= _of_job(_job, load_job(_job).TOLERANCE)


def peers_of(job: str, device: str) -> list[str]:
    """The names of all peers of a job on a device."""
    return [name for name, peer in PEERS.items() if (peer.job, peer.device) == (job, device)]


def load(peer: str) -> Callable[[dict[str, np.ndarray], int], Job]:
    """Return the peer's `build`. ModuleNotFoundError if a package is absent."""
    entry = PEERS[peer]
    build = import_module(f"benchmarks.peers.{entry.module or peer}").build
    return partial(build, **entry.options) if entry.options else build
