"""Weights from PyTorch and for it: the names and the order of axes of every layer, in one table.

What PyTorch calls ``encoder.0.weight`` is ours of that name if both are built alike: a Network is PyTorch's
``Sequential``, attributes have their names. ``rename=`` translates what is named otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl import files, weights
from minidl.interop import layouts
from minidl.interop.layouts import Array, Arrays, Entry, Images, Layouts, same, transposed
from minidl.layers import (
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    Embedding,
    GroupNorm,
    Layer,
    LayerNorm,
    MultiHeadAttention,
    PReLU,
    RMSNorm,
)
from minidl.weight_names import LoadReport, Renaming


def _convolution() -> Entry:
    """PyTorch's (out, in, height, width) is our (height, width, in, out), for any number of middle axes."""
    return Entry(
        ("weight",),
        ("weight",),
        lambda x: (x.transpose(*range(2, x.ndim), 1, 0),),
        lambda x: (x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)),),
    )


#: The arrays of a recurrent layer; a module without biases has the weights alone.
_RECURRENT = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def _recurrent() -> Entry:
    """PyTorch adds two biases where one does the same; the order of the gates is ours."""

    def read(w: Array, u: Array, a: Array | None, b: Array | None) -> tuple[Array, ...]:
        none = numpy.zeros(len(w), w.dtype)
        return w.T, u.T, (none if a is None else a) + (none if b is None else b)

    def write(w: Array, u: Array, bias: Array) -> tuple[Array, ...]:
        return w.T, u.T, bias, numpy.zeros_like(bias)

    return Entry(_RECURRENT, ("input_weight", "recurrent_weight", "bias"), read, write, _RECURRENT[2:])


def _gru() -> Entry:
    """Of PyTorch's second bias, only the part of the new state, n, stands inside of a gate."""

    def read(w: Array, u: Array, a: Array | None, b: Array | None) -> tuple[Array, ...]:
        none = numpy.zeros(len(w), w.dtype)
        a, b, n = (none if a is None else a), (none if b is None else b), 2 * (len(w) // 3)
        return w.T, u.T, numpy.concatenate([(a + b)[:n], a[n:]]), b[n:]

    def write(w: Array, u: Array, bias: Array, inner: Array) -> tuple[Array, ...]:
        return w.T, u.T, bias, numpy.concatenate([numpy.zeros(2 * len(inner), inner.dtype), inner])

    ours = ("input_weight", "recurrent_weight", "bias", "recurrent_bias")
    return Entry(_RECURRENT, ours, read, write, _RECURRENT[2:])


def _packed(theirs: str, kind: str) -> Entry:
    """The projections of queries, keys and values are one array in PyTorch."""
    return Entry(
        (theirs,),
        tuple(f"{name}.{kind}" for name in ("query", "key", "value")),
        lambda x: tuple(part.T for part in numpy.split(x, 3)),
        lambda *parts: (numpy.concatenate([part.T for part in parts]),),
    )


_BIAS = same("bias", "bias")

#: The entries of each kind of layer; a subclass has those of its base.
LAYERS: dict[type[Layer], tuple[Entry, ...]] = {
    Dense: (transposed("weight", "weight"), _BIAS),
    Conv1D: (_convolution(), _BIAS),
    Conv2D: (_convolution(), _BIAS),
    ConvTranspose2D: (_convolution(), _BIAS),
    BatchNorm: (
        same("weight", "gain"),
        _BIAS,
        same("running_mean", "running_mean"),
        same("running_var", "running_variance"),
        # How many mini-batches there were, which nothing needs.
        Entry(("num_batches_tracked",), (), lambda x: (), lambda: (numpy.array(0),)),
    ),
    LayerNorm: (same("weight", "gain"), _BIAS),
    GroupNorm: (same("weight", "gain"), _BIAS),
    RMSNorm: (same("weight", "gain"),),
    PReLU: (same("weight", "slope"),),
    Embedding: (same("weight", "weight"),),
    RNN: (_recurrent(),),
    LSTM: (_recurrent(),),
    GRU: (_gru(),),
    MultiHeadAttention: (
        _packed("in_proj_weight", "weight"),
        _packed("in_proj_bias", "bias"),
        transposed("out_proj.weight", "output.weight"),
        same("out_proj.bias", "output.bias"),
    ),
}


def _flattened(height: int, width: int, channels: int) -> Entry:
    """PyTorch flattens images as (channels, height, width)."""
    return Entry(
        ("weight",),
        ("weight",),
        lambda x: (x.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, len(x)),),
        lambda x: (x.reshape(height, width, channels, -1).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),),
    )


PYTORCH = Layouts(LAYERS, _flattened)


def load_torch(
    network: Layer,
    source: str | PathLike[str] | Mapping[str, Any] | Any,
    strict: bool = True,
    prefix: str = "",
    rename: Renaming | None = None,
    flattened: Images | None = None,
) -> LoadReport:
    """Set a network's Parameters and state from PyTorch's weights.

    Parameters
    ----------
    source : a safetensors file, a file written by ``torch.save(module.state_dict(), ...)`` (read with
        ``weights_only=True``, so that it runs no code), a state dict, or a module
    strict, prefix, rename : as for Layer.load_state_dict(). Names are PyTorch's, translated before anything
        else: ``rename={"fc1": "0"}`` for a module whose ``fc1`` is the first of a Network,
        ``rename={"weight_ih_l1": "1.weight_ih_l0", ...}`` for the second layer of an ``nn.LSTM``
    flattened : the names of Dense layers that take flattened images, with the images' (height, width,
        channels). PyTorch flattens images as (channels, height, width), so the rows of such a weight stand in
        another order

    Returns
    -------
    LoadReport
        What was loaded from which name. Print it.

    Raises
    ------
    ValueError
        Names are missing or unexpected, shapes differ, or two names of one shared Parameter hold different
        arrays; nothing is changed.
    """
    state, shared, name = _read(source)
    return layouts.load(
        network,
        PYTORCH,
        state,
        shared,
        name,
        strict=strict,
        prefix=prefix,
        rename=rename,
        flattened=flattened,
    )


def save_torch(
    network: Layer,
    path: str | PathLike[str],
    every_name: bool = False,
    flattened: Images | None = None,
) -> None:
    """Write a network's Parameters and state under PyTorch's names and in its order of axes.

    Parameters
    ----------
    path : ``.safetensors``, for ``safetensors.torch.load_model(module, path)``; any other ending is a file
        for ``module.load_state_dict(torch.load(path))``, and needs PyTorch
    every_name : store what is shared under each of its names, as ``module.load_state_dict()`` wants it for a
        module that has all of them; by default it is stored once, under its first name, and a safetensors
        file has the others in its metadata
    flattened : as for load_torch()
    """
    state, others = torch_state(network, flattened)
    if every_name:
        state |= {name: state[kept] for name, kept in others.items()}
    if Path(path).suffix == ".safetensors":
        weights.save(state, path, {} if every_name else others, format="pt")
        return
    import torch

    with files.replacing(path) as temporary:
        torch.save({name: torch.tensor(array) for name, array in state.items()}, temporary)


def torch_state(network: Layer, flattened: Images | None = None) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays of a network for PyTorch, and the further names of shared ones.

    The arguments are those of save_torch().
    """
    return layouts.state_of(network, PYTORCH, flattened)


def _read(source: Any) -> tuple[Arrays, dict[str, str], str]:
    """Return the arrays of a file, state dict or module, the names of shared ones, and what to call it."""
    if hasattr(source, "state_dict") and callable(source.state_dict):
        source, name = source.state_dict(), type(source).__name__
    elif isinstance(source, Mapping):
        name = "the state dict"
    elif not isinstance(source, (str, PathLike)):
        raise TypeError(f"load_torch takes a path, a state dict or a module, got {type(source).__name__}")
    else:
        path, name = Path(source), fspath(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {name!r}")
        if path.suffix == ".safetensors":
            arrays = _read_safetensors(path)
            instead = "it has minidl's order of axes; read it with load()"
            return arrays, weights.read_shared_names(path, refuse="minidl", instead=instead), name
        source = _load(path)
        if not isinstance(source, Mapping):
            raise TypeError(f"{name!r} holds no state dict, but {type(source).__name__}")
    return {key: _array(key, x) for key, x in source.items()}, {}, name


def _load(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{fspath(path)!r} is no complete file of tensors alone, as torch.save(module.state_dict()) "
            "writes it; what else is in it would be code to run, and is not read"
        ) from error


def _array(name: str, x: Any) -> Array:
    if hasattr(x, "detach"):  # a tensor of PyTorch's
        x = x.detach().cpu()
        x = (x.float() if str(x.dtype) in ("torch.bfloat16", "torch.float16") else x).numpy()
    if not hasattr(x, "dtype"):
        raise TypeError(f"a state dict holds tensors; {name} is {type(x).__name__}")
    return weights.on_host(x)


def _read_safetensors(path: Path) -> Arrays:
    """Read a file in which numbers may be bfloat16, which NumPy has not: they become float32."""
    from safetensors import SafetensorError, deserialize

    try:
        stored: dict[str, Any] = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(f"{fspath(path)!r} is not a complete safetensors file: {error}") from error
    if all(x["dtype"] != "BF16" for x in stored.values()):
        return weights.read(path)
    arrays: Arrays = {}
    for name, x in stored.items():
        if x["dtype"] == "BF16":
            bits = numpy.frombuffer(x["data"], "<u2").astype("<u4") << 16
            arrays[name] = bits.view("<f4").reshape(x["shape"])
        else:
            arrays[name] = _plain(path, name)
    return arrays


def _plain(path: Path, name: str) -> Array:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        array: Array = file.get_tensor(name)
    return array
