"""Weights from MATLAB's Deep Learning Toolbox and for it, as MAT files.

A network's tables ``Learnables`` and ``State`` are written as arrays of structs with the fields Layer,
Parameter and Value. In MATLAB, to save them::

    learnables = net.Learnables;
    learnables.Value = cellfun(@extractdata, learnables.Value, UniformOutput=false);
    state = net.State;
    state.Value = cellfun(@extractdata, state.Value, UniformOutput=false);
    learnables = table2struct(convertvars(learnables, ["Layer" "Parameter"], @cellstr));
    state = table2struct(convertvars(state, ["Layer" "Parameter"], @cellstr));
    save("weights.mat", "learnables", "state", "-v7")

and to put those that save_mat() wrote into a ``dlnetwork`` whose layers have the same names::

    load("weights.mat", "learnables")
    for row = learnables(:)'
        here = net.Learnables.Layer == row.Layer & net.Learnables.Parameter == row.Parameter;
        net.Learnables.Value{here} = dlarray(row.Value);
    end
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl import files
from minidl.data.mat import read_variables
from minidl.interop import layouts
from minidl.interop.layouts import Array, Arrays, Entry, Images, Layouts, transposed
from minidl.layers import (
    GRU,
    LSTM,
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
)
from minidl.weight_names import LoadReport, Renaming


def _vector(theirs: str, ours: str, axes: int = 0) -> Entry:
    """A vector is a column in MATLAB, or stands behind axes of length 1."""
    return Entry(
        (theirs,),
        (ours,),
        lambda x: (x.reshape(-1),),
        lambda x: (x.reshape(*(1,) * axes, -1) if axes else x.reshape(-1, 1),),
    )


def _padded(x: Array, ndim: int) -> Array:
    """Return an array with the trailing axes of length 1 that MATLAB drops."""
    return x.reshape(*x.shape, *(1,) * (ndim - x.ndim))


def _convolution(layer: Any) -> tuple[Entry, ...]:
    """MATLAB's weights of groups have the groups as a last axis; a transposed convolution's are ours."""
    window, groups = layer.kernel_size, layer.groups
    axes = len(window)
    if isinstance(layer, ConvTranspose2D):
        inner, outer = layer.out_channels, layer.in_channels
    else:
        inner, outer = layer.in_channels, layer.out_channels

    def read(x: Array) -> tuple[Array]:
        if groups == 1:
            return (_padded(x, axes + 2),)
        return (numpy.swapaxes(_padded(x, axes + 3), -1, -2).reshape(*window, inner // groups, outer),)

    def write(x: Array) -> tuple[Array]:
        if groups == 1:
            return (x,)
        return (numpy.swapaxes(x.reshape(*window, inner // groups, groups, outer // groups), -1, -2),)

    return Entry(("Weights",), ("weight",), read, write), _vector("Bias", "bias", axes)


def _gru() -> Entry:
    """The bias of the new state inside of the reset gate is there in the mode "recurrent-bias-after-..."."""

    def read(w: Array, u: Array, b: Array) -> tuple[Array, ...]:
        b, count = b.reshape(-1), len(w)
        n = 2 * (count // 3)
        inner = b[count:] if len(b) == 2 * count else numpy.zeros(count, b.dtype)
        outer = b[:count]
        return w.T, u.T, numpy.concatenate([(outer + inner)[:n], outer[n:]]), inner[n:]

    def write(w: Array, u: Array, bias: Array, inner: Array) -> tuple[Array, ...]:
        return (
            w.T,
            u.T,
            numpy.concatenate([bias, numpy.zeros(2 * len(inner), bias.dtype), inner]).reshape(-1, 1),
        )

    theirs = ("InputWeights", "RecurrentWeights", "Bias")
    return Entry(theirs, ("input_weight", "recurrent_weight", "bias", "recurrent_bias"), read, write)


def _projections() -> tuple[Entry, ...]:
    names = (("Query", "query"), ("Key", "key"), ("Value", "value"), ("Output", "output"))
    weights = tuple(transposed(f"{theirs}Weights", f"{ours}.weight") for theirs, ours in names)
    return (*weights, *(_vector(f"{theirs}Bias", f"{ours}.bias") for theirs, ours in names))


def _norm(axes: int = 0) -> tuple[Entry, ...]:
    return _vector("Scale", "gain", axes), _vector("Offset", "bias", axes)


#: The entries of each kind of layer. MATLAB has no simple recurrent layer and no RMSNorm.
LAYERS: dict[type[Layer], Any] = {
    Dense: (transposed("Weights", "weight"), _vector("Bias", "bias")),
    Conv1D: _convolution,
    Conv2D: _convolution,
    ConvTranspose2D: _convolution,
    BatchNorm: (
        *_norm(2),
        _vector("TrainedMean", "running_mean", 2),
        _vector("TrainedVariance", "running_variance", 2),
    ),
    LayerNorm: _norm(),
    GroupNorm: _norm(2),
    PReLU: (_vector("Alpha", "slope"),),
    Embedding: (transposed("Weights", "weight"),),
    LSTM: (
        transposed("InputWeights", "input_weight"),
        transposed("RecurrentWeights", "recurrent_weight"),
        _vector("Bias", "bias"),
    ),
    GRU: (_gru(),),
    MultiHeadAttention: _projections(),
}


def _flattened(height: int, width: int, channels: int) -> Entry:
    """MATLAB flattens images column by column: the first axis changes fastest."""

    def read(x: Array) -> tuple[Array]:
        rows = x.T.reshape(height, width, channels, -1, order="F")
        return (rows.reshape(height * width * channels, -1),)

    def write(x: Array) -> tuple[Array]:
        rows = x.reshape(height, width, channels, -1)
        return (rows.reshape(height * width * channels, -1, order="F").T,)

    return Entry(("Weights",), ("weight",), read, write)


def _other(name: str, shape: tuple[int, ...]) -> Entry:
    """In MATLAB every array has at least two axes, and the last of more than two is longer than 1."""

    def read(x: Array) -> tuple[Array]:
        fits = [n for n in x.shape if n != 1] == [n for n in shape if n != 1]
        return (x.reshape(shape) if fits else x,)

    return Entry((name,), (name,), read, lambda x: (x if x.ndim > 1 else x.reshape(-1, 1),))


MATLAB = Layouts(LAYERS, _flattened, _other)


def load_mat(
    network: Layer,
    path: str | PathLike[str],
    strict: bool = True,
    rename: Renaming | None = None,
    flattened: Images | None = None,
) -> LoadReport:
    """Set a network's Parameters and state from a MAT file with the structs ``learnables`` and ``state``.

    Parameters
    ----------
    path : the file, of version 5 to 7, or of version 7.3, which needs h5py
    strict, rename : as for Layer.load_state_dict(); names are "layer.parameter", such as "fc_1.Weights", so
        that ``rename={"fc_1": "0"}`` says which layer is which
    flattened : the names of Dense layers that take flattened images, with the images' (height, width,
        channels)

    Returns
    -------
    LoadReport
        What was loaded from which name. Print it.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, is no such MAT file, or does not fit; nothing is changed.
    ImportError
        The file is of version 7.3, and h5py is not installed.
    """
    return layouts.load(
        network,
        MATLAB,
        _read(path),
        {},
        fspath(path),
        strict=strict,
        prefix="",
        rename=rename,
        flattened=flattened,
    )


def save_mat(network: Layer, path: str | PathLike[str], flattened: Images | None = None) -> None:
    """Write a network's Parameters and state as the structs ``learnables`` and ``state`` of a MAT file.

    What is shared is written once. The arguments are those of load_mat().
    """
    from scipy.io import savemat

    arrays, _ = layouts.state_of(network, MATLAB, flattened)
    rows: dict[str, list[tuple[str, str, Array]]] = {"learnables": [], "state": []}
    for name, array in arrays.items():
        layer, _, parameter = name.rpartition(".")
        is_state = parameter in ("TrainedMean", "TrainedVariance") or array.dtype.kind != "f"
        rows["state" if is_state else "learnables"].append((layer, parameter, array))
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        savemat(file, {name: _structs(table) for name, table in rows.items()}, do_compression=True)


def _structs(rows: list[tuple[str, str, Array]]) -> Array:
    table = numpy.empty((len(rows), 1), [("Layer", object), ("Parameter", object), ("Value", object)])
    for i, row in enumerate(rows):
        table[i, 0] = row
    return table


def _read(path: str | PathLike[str]) -> Arrays:
    """Return the values of both tables by "layer.parameter"."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    found = read_variables(path, ("learnables", "state"))
    if "learnables" not in found:
        raise ValueError(
            f"{fspath(path)!r} has no struct `learnables`: in MATLAB, save the network's table of learnables "
            "by table2struct, its values extracted from dlarrays"
        )
    arrays: Arrays = {}
    for table in ("learnables", "state"):
        rows = found.get(table)
        if rows is None or (isinstance(rows, dict) and not any(rows.values())):
            continue
        if not isinstance(rows, dict) or not {"Layer", "Parameter", "Value"} <= set(rows):
            raise ValueError(f"`{table}` of {fspath(path)!r} is no struct with Layer, Parameter and Value")
        for layer, parameter, value in zip(rows["Layer"], rows["Parameter"], rows["Value"], strict=True):
            layer, parameter = (_text(x, f"`{table}` of {fspath(path)!r}") for x in (layer, parameter))
            if not isinstance(value, numpy.ndarray):
                raise ValueError(
                    f"the value of {layer}.{parameter} is no array of numbers: extract it from its dlarray "
                    "with extractdata() before saving"
                )
            arrays[f"{layer}.{parameter}" if layer else parameter] = value
    return arrays


def _text(x: Any, table: str) -> str:
    if not isinstance(x, str):
        raise ValueError(
            f"{table} has names that are no text, but objects: make them char vectors by cellstr"
        )
    return x
