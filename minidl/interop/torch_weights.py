"""Weights from PyTorch and for it: the names and the order of axes of every layer, in one table.

What PyTorch calls ``encoder.0.weight`` is ours of that name if both are built alike: a Network is PyTorch's
``Sequential``, attributes have their names. ``rename=`` translates what is named otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl import files, weight_names, weights
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
from minidl.tensor import Tensor
from minidl.weight_names import LoadReport, Renaming

Array = numpy.ndarray
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Entry:
    """How some arrays of a layer look in PyTorch.

    Attributes
    ----------
    theirs, ours : their names in PyTorch's module and in our Layer
    read : the function from their arrays to ours
    write : the function from our arrays to theirs
    optional : names among theirs that a module may lack; read() is given None for them
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[..., tuple[Array, ...]]
    write: Callable[..., tuple[Array, ...]]
    optional: tuple[str, ...] = ()


def _same(theirs: str, ours: str) -> Entry:
    return Entry((theirs,), (ours,), lambda x: (x,), lambda x: (x,))


def _transposed(theirs: str, ours: str) -> Entry:
    """PyTorch's (out, in) is our (in, out)."""
    return Entry((theirs,), (ours,), lambda x: (x.T,), lambda x: (x.T,))


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


_BIAS = _same("bias", "bias")

#: The entries of each kind of layer; a subclass has those of its base.
LAYERS: dict[type[Layer], tuple[Entry, ...]] = {
    Dense: (_transposed("weight", "weight"), _BIAS),
    Conv1D: (_convolution(), _BIAS),
    Conv2D: (_convolution(), _BIAS),
    ConvTranspose2D: (_convolution(), _BIAS),
    BatchNorm: (
        _same("weight", "gain"),
        _BIAS,
        _same("running_mean", "running_mean"),
        _same("running_var", "running_variance"),
        # How many mini-batches there were, which nothing needs.
        Entry(("num_batches_tracked",), (), lambda x: (), lambda: (numpy.array(0),)),
    ),
    LayerNorm: (_same("weight", "gain"), _BIAS),
    GroupNorm: (_same("weight", "gain"), _BIAS),
    RMSNorm: (_same("weight", "gain"),),
    PReLU: (_same("weight", "slope"),),
    Embedding: (_same("weight", "weight"),),
    RNN: (_recurrent(),),
    LSTM: (_recurrent(),),
    GRU: (_gru(),),
    MultiHeadAttention: (
        _packed("in_proj_weight", "weight"),
        _packed("in_proj_bias", "bias"),
        _transposed("out_proj.weight", "output.weight"),
        _same("out_proj.bias", "output.bias"),
    ),
}


def load_torch(
    network: Layer,
    source: str | PathLike[str] | Mapping[str, Any] | Any,
    strict: bool = True,
    prefix: str = "",
    rename: Renaming | None = None,
    flattened: Mapping[str, tuple[int, int, int]] | None = None,
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
    found: Arrays = {}
    origin: dict[str, str] = {}
    for old, array in state.items():
        for other in [old, *(alias for alias, kept in shared.items() if kept == old)]:
            new = weight_names.renamed(other, prefix, rename)
            if new is None:
                continue
            if new in found and not numpy.array_equal(found[new], array, equal_nan=True):
                raise ValueError(f"{name} has two different arrays for {new}: {origin[new]} and {old}")
            found[new], origin[new] = array, origin.get(new, old)
    ours, sources = _translate(_entries(network, within=True, flattened=flattened or {}), found)
    report = weight_names.load(
        dict(network.named_tensors()), ours, network.shared_names(), strict=strict, source=name
    )
    report.loaded = {
        new: " + ".join(origin[part] for part in sources.get(old, (old,)))
        for new, old in report.loaded.items()
    }
    report.unexpected = [origin.get(old, old) for old in report.unexpected]
    return report


def save_torch(
    network: Layer,
    path: str | PathLike[str],
    every_name: bool = False,
    flattened: Mapping[str, tuple[int, int, int]] | None = None,
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


def torch_state(
    network: Layer, flattened: Mapping[str, tuple[int, int, int]] | None = None
) -> tuple[Arrays, dict[str, str]]:
    """Return the arrays of a network for PyTorch, and the further names of shared ones.

    The arguments are those of save_torch().
    """
    state: Arrays = {}
    others: dict[str, str] = {}
    first: dict[tuple[Any, ...], tuple[str, ...]] = {}  # by the Tensors that an entry is made of
    for name, layer, entry in _entries(network, flattened=flattened or {}):
        tensors = dict(_tensors(layer))
        parts = [tensors[part] for part in entry.ours]
        theirs = tuple(f"{name}{part}" for part in entry.theirs)
        made_of: list[Any] = [*parts] or [layer]
        before = first.setdefault((*map(id, made_of), entry.theirs), theirs)
        if before is not theirs:
            others |= dict(zip(theirs, before, strict=True))
            continue
        arrays = entry.write(*(x.numpy() for x in parts))
        state |= {new: numpy.ascontiguousarray(x) for new, x in zip(theirs, arrays, strict=True)}
    return state, others


def _tensors(layer: Layer) -> Iterator[tuple[str, Tensor]]:
    """Yield Parameters and state under all their names."""
    state = {id(x) for _, x in layer.named_tensors()}
    return ((name, x) for name, x in layer.named_occurrences() if isinstance(x, Tensor) and id(x) in state)


def _entries(
    network: Layer, within: bool = False, flattened: Mapping[str, tuple[int, int, int]] | None = None
) -> list[tuple[str, Layer, Entry]]:
    """Return the name of each Layer, with a dot at its end, the Layer, and each of its entries.

    ``within`` looks into layers of the table, too.
    """
    images = dict(flattened or {})
    entries = list(islice(_walk(network, "", within, ()), 10_000))
    for i, (name, layer, entry) in enumerate(entries):
        if name[:-1] in images and isinstance(layer, Dense) and entry.ours == ("weight",):
            entries[i] = (name, layer, _flattened(name, layer, images.pop(name[:-1])))
    if images:
        raise ValueError(f"flattened= names {', '.join(images)}, which is no Dense layer of the network")
    return entries


def _flattened(name: str, layer: Dense, image: tuple[int, int, int]) -> Entry:
    height, width, channels = image
    if height * width * channels != layer.in_features:
        raise ValueError(f"flattened= says that {name[:-1]} takes images {image}; it is {layer!r}")
    return Entry(
        ("weight",),
        ("weight",),
        lambda x: (x.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(-1, len(x)),),
        lambda x: (x.reshape(*image, -1).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),),
    )


def _walk(
    layer: Layer, prefix: str, within: bool, around: tuple[Layer, ...]
) -> Iterator[tuple[str, Layer, Entry]]:
    """Yield what _entries() returns; a Tensor that is in no entry of a layer has one of its own."""
    table = next((LAYERS[kind] for kind in type(layer).__mro__ if kind in LAYERS), ())
    names = [name for name, _ in _tensors(layer)]
    entries = [entry for entry in table if all(part in names for part in entry.ours)]
    children = [] if table and not within else list(layer.named_children())
    covered = {part for entry in entries for part in entry.ours}
    inside = tuple(f"{name}." for name, _ in layer.named_children())
    own = [name for name in names if name not in covered and not (children and name.startswith(inside))]
    for entry in [*entries, *(_same(name, name) for name in own)]:
        yield prefix, layer, entry
    for name, child in children:
        if not any(child is outer for outer in (*around, layer)):
            yield from _walk(child, f"{prefix}{name}.", within, (*around, layer))


def _translate(
    entries: list[tuple[str, Layer, Entry]], found: Arrays
) -> tuple[Arrays, dict[str, tuple[str, ...]]]:
    """Return arrays by our names, the rest under theirs; and from which of theirs each was made."""
    ours: Arrays = {}
    sources: dict[str, tuple[str, ...]] = {}
    consumed: set[str] = set()
    for name, layer, entry in entries:
        theirs = {f"{name}{part}": part in entry.optional for part in entry.theirs}
        if any(part not in found and not may_lack for part, may_lack in theirs.items()):
            continue
        parts = tuple(part for part in theirs if part in found)
        try:
            made = entry.read(*(found.get(part) for part in theirs))
        except ValueError as error:
            shapes = ", ".join(f"{part} {found[part].shape}" for part in parts)
            raise ValueError(f"no {type(layer).__name__} has the arrays {shapes}: {error}") from error
        new = [f"{name}{part}" for part in entry.ours]
        ours |= dict(zip(new, made, strict=True))
        sources |= dict.fromkeys(new, parts)
        consumed.update(parts)
    return ours | {name: array for name, array in found.items() if name not in consumed}, sources


def _read(source: Any) -> tuple[Arrays, dict[str, str], str]:
    """Return the arrays of a file, state dict or module, the names of shared ones, and what to call it."""
    if hasattr(source, "state_dict") and callable(source.state_dict):
        source, name = source.state_dict(), type(source).__name__
    elif isinstance(source, Mapping):
        name = "the state dict"
    else:
        path, name = Path(source), fspath(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {name!r}")
        if path.suffix == ".safetensors":
            arrays = _read_safetensors(path)
            instead = "it has minidl's order of axes; read it with load()"
            return arrays, weights.read_shared_names(path, refuse="minidl", instead=instead), name
        import torch

        source = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(source, Mapping):
            raise TypeError(f"{name!r} holds no state dict, but {type(source).__name__}")
    return {key: _array(key, x) for key, x in source.items()}, {}, name


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
