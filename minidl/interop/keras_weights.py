"""Weights from Keras 3: files that ``model.save_weights("name.weights.h5")`` writes.

In such a file an array is ``layers/dense_1/vars/0``, which is called ``dense_1.0`` here. Keras has minidl's
order of axes nearly everywhere; what differs is in the table.
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl import files
from minidl.interop import layouts
from minidl.interop.layouts import Array, Arrays, Entry, Layouts, same
from minidl.layers import (
    GRU,
    LSTM,
    RNN,
    BatchNorm,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Embedding,
    GroupNorm,
    Layer,
    LayerNorm,
    MultiHeadAttention,
)
from minidl.weight_names import LoadReport, Renaming


def _in_order(*ours: str, inside: str = "") -> tuple[Entry, ...]:
    """The arrays of a layer have numbers; a recurrent one has them in its cell."""
    return tuple(same(f"{inside}{number}", name) for number, name in enumerate(ours))


def _read_only(theirs: str, ours: str, read: Any) -> Entry:
    def write(x: Array) -> tuple[Array]:
        raise NotImplementedError("weights are not written for Keras")

    return Entry((theirs,), (ours,), read, write)


def _depthwise(layer: DepthwiseConv2D) -> tuple[Entry, ...]:
    """Keras's (height, width, channels, multiplier) is (height, width, 1, channels * multiplier)."""
    kernel = _read_only("0", "weight", lambda x: (x.reshape(*x.shape[:2], 1, -1),))
    return kernel, same("1", "bias")


def _gates(x: Array) -> Array:
    """Keras has the gates z, r, n; here they are r, z, n."""
    z, r, n = numpy.split(x, 3, axis=-1)
    return numpy.concatenate([r, z, n], axis=-1)


def _gru() -> Entry:
    """Of two biases (``reset_after=True``), only that of the new state stands inside of a gate."""

    def read(w: Array, u: Array, b: Array) -> tuple[Array, ...]:
        if b.ndim != 2:
            raise ValueError("its reset gate stands before the product (reset_after=False)")
        outer, inner = _gates(b)
        n = 2 * (len(outer) // 3)
        return _gates(w), _gates(u), numpy.concatenate([(outer + inner)[:n], outer[n:]]), inner[n:]

    ours = ("input_weight", "recurrent_weight", "bias", "recurrent_bias")
    return Entry(("cell.0", "cell.1", "cell.2"), ours, read, lambda *x: x)


def _attention(layer: MultiHeadAttention) -> tuple[Entry, ...]:
    """The heads are an axis of their own in Keras."""
    features = layer.features
    matrix, vector = (lambda x: (x.reshape(features, -1),)), (lambda x: (x.reshape(-1),))
    return tuple(
        _read_only(f"{name}_dense.{number}", f"{name}.{part}", read)
        for name in ("query", "key", "value", "output")
        for number, part, read in ((0, "weight", _rows if name == "output" else matrix), (1, "bias", vector))
    )


def _rows(x: Array) -> tuple[Array]:
    return (x.reshape(-1, x.shape[-1]),)


_KERNEL_AND_BIAS = _in_order("weight", "bias")
_RECURRENT = _in_order("input_weight", "recurrent_weight", "bias", inside="cell.")

#: The entries of each kind of layer.
LAYERS: dict[type[Layer], Any] = {
    Dense: _KERNEL_AND_BIAS,
    DepthwiseConv2D: _depthwise,
    Conv1D: _KERNEL_AND_BIAS,
    Conv2D: _KERNEL_AND_BIAS,
    ConvTranspose2D: _KERNEL_AND_BIAS,
    BatchNorm: _in_order("gain", "bias", "running_mean", "running_variance"),
    LayerNorm: _in_order("gain", "bias"),
    GroupNorm: _in_order("gain", "bias"),
    Embedding: _in_order("weight"),
    RNN: _RECURRENT,
    LSTM: _RECURRENT,
    GRU: (_gru(),),
    MultiHeadAttention: _attention,
}


def _flattened(height: int, width: int, channels: int) -> Entry:
    return same("0", "weight")  # Keras flattens images as they are here


KERAS = Layouts(LAYERS, _flattened)


def load_keras(
    network: Layer, path: str | PathLike[str], strict: bool = True, rename: Renaming | None = None
) -> LoadReport:
    """Set a network's Parameters and state from a file of Keras 3, ``.weights.h5``; h5py reads it.

    Parameters
    ----------
    strict, rename : as for Layer.load_state_dict(); Keras names its layers by their kinds and numbers:
        ``rename={"dense": "0", "dense_1": "2"}``

    Returns
    -------
    LoadReport
        What was loaded from which name. Print it.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, is no such file, or does not fit; nothing is changed.
    ImportError
        h5py is not installed.
    """
    return layouts.load(
        network, KERAS, _read(path), {}, fspath(path), strict=strict, prefix="", rename=rename, flattened=None
    )


def _read(path: str | PathLike[str]) -> Arrays:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    h5py = files.import_h5py(path)
    arrays: Arrays = {}

    def visit(name: str, item: Any) -> None:
        parts = [part for part in name.split("/") if part not in ("layers", "vars")]
        if isinstance(item, h5py.Dataset) and parts[0] != "optimizer":
            arrays[".".join(parts)] = numpy.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ValueError(f"{fspath(path)!r} is no complete HDF5 file: {error}") from error
    return arrays
