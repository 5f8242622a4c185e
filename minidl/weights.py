"""Weights on disk (safetensors: an open format that cannot execute code) and back."""

from __future__ import annotations

import os.path
import zlib
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, BinaryIO

import numpy

from minidl import devices, files
from minidl.tensor import Parameter, Tensor


def save(
    state: Mapping[str, numpy.ndarray],
    path: str | PathLike[str],
    metadata: Mapping[str, str] | None = None,
    format: str = "minidl",
) -> None:
    """Write arrays by name, and texts about them, to a safetensors file.

    Raises
    ------
    TypeError
        A text is none, or an array holds something else than numbers.
    """
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        _write(file, state, {"format": format, **(metadata or {})})


#: What safetensors calls the dtypes of NumPy.
_DTYPES = {
    "bool": "BOOL",
    **{
        f"{sign}int{bits}": f"{letter}{bits}"
        for sign, letter in (("", "I"), ("u", "U"))
        for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "complex64": "C64",
}


def _write(file: BinaryIO, state: Mapping[str, numpy.ndarray], texts: Mapping[str, str]) -> None:
    """Write one array after another: the library would need them all in memory a second time.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """
    import json  # not needed where nothing is written

    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"the text {name!r} beside weights is a {type(text).__name__}")
    arrays = {name: numpy.asarray(x) for name, x in state.items()}
    largest_first = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # so all are aligned
    header: dict[str, Any] = {}
    end = 0
    for name in largest_first:
        array = arrays[name]
        if array.dtype.name not in _DTYPES:
            raise TypeError(f"{name!r} holds {array.dtype} values, which safetensors files cannot hold")
        start, end = end, end + array.nbytes
        dtype, shape = _DTYPES[array.dtype.name], list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header["__metadata__"] = {**texts, CHECKSUM: _checksum(arrays, texts)}
    head = json.dumps(header, ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    file.write(len(head).to_bytes(8, "little") + head)
    for name in largest_first:
        file.write(_bytes_of(arrays[name]))


def read(path: str | PathLike[str]) -> dict[str, numpy.ndarray]:
    """Read a safetensors file; the error names a missing or damaged one."""
    return read_with_texts(path)[0]


def read_with_texts(path: str | PathLike[str]) -> tuple[dict[str, numpy.ndarray], dict[str, str]]:
    """Read a safetensors file: arrays by name, and the texts beside them.

    A file that save() wrote has the text CHECKSUM, which finds contents that have changed.
    """
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{fspath(path)!r} is not a complete safetensors file: {error}") from error
    except (TypeError, AttributeError) as error:  # for example bfloat16
        raise ValueError(f"{fspath(path)!r} holds numbers of a type unknown to NumPy: {error}") from error
    expected = _checksum(arrays, texts)
    unknown = {x.dtype.name for x in arrays.values() if x.dtype.kind not in "biufc"}
    if unknown:  # which NumPy knows only where another library has been imported
        raise ValueError(f"{fspath(path)!r} holds numbers of a type unknown to NumPy: {', '.join(unknown)}")
    if texts.get(CHECKSUM, expected) != expected:
        raise ValueError(f"{fspath(path)!r} is damaged: its contents do not match their checksum")
    return arrays, texts


#: The name of the checksum among the texts of a file.
CHECKSUM = "checksum"


def _checksum(arrays: Mapping[str, numpy.ndarray], texts: Mapping[str, str]) -> str:
    total = 0
    for name, text in sorted(texts.items()):
        if name != CHECKSUM:
            total = zlib.crc32(f"{name} {text}".encode(), total)
    for name, array in sorted(arrays.items()):
        total = zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode(), total)
        total = zlib.crc32(_bytes_of(array), total)
    return str(total)


def _bytes_of(array: numpy.ndarray) -> memoryview:
    little_endian = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little_endian.reshape(-1).view(numpy.uint8).data


def read_shared_names(path: str | PathLike[str], refuse: str, instead: str) -> dict[str, str]:
    """Return the further names of arrays that stand in a file once, each with its name there.

    They stand in the metadata, as the library safetensors writes them for PyTorch.

    Parameters
    ----------
    refuse, instead : the format of a file whose arrays have another order of axes, and what reads it
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        texts, stored = file.metadata() or {}, set(file.keys())
    if texts.get("format") == refuse:
        raise ValueError(f"{fspath(path)!r} is a file of another framework (format {refuse!r}): {instead}")
    return {name: kept for name, kept in texts.items() if kept in stored}


def on_host(x: Any) -> numpy.ndarray:
    """Return a Tensor, an array or numbers as a NumPy array."""
    if isinstance(x, Tensor):
        x = x.numpy()
    return devices.to_numpy(x) if devices.is_array(x) else numpy.asarray(x)


def load_state(
    tensors: Mapping[str, Tensor], state: Mapping[str, Any], source: str, allow_nan: bool = True
) -> None:
    """Assign arrays (or Tensors) to Tensors by name: all of them, or, if anything does not fit, none.

    Numbers must keep their meaning: of the same kind (floating-point, whole, bool), and in the range of the
    Tensor's dtype. Without ``allow_nan``, Parameters that are NaN are refused.
    """
    arrays = {name: on_host(x) for name, x in state.items()}
    no_numbers = [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]
    if no_numbers:
        raise TypeError(f"the state of {source} holds values that are not numbers: {', '.join(no_numbers)}")
    problems = [f"missing: {name} {x.shape}" for name, x in tensors.items() if name not in arrays]
    problems += [f"unexpected: {name} {x.shape}" for name, x in arrays.items() if name not in tensors]
    for name, x in tensors.items():
        problem = _misfit(arrays[name], x, allow_nan) if name in arrays else ""
        problems += [problem.format(name=name)] if problem else []
    if problems:
        raise ValueError(f"the state of {source} does not fit this network:\n  " + "\n  ".join(problems))
    for name, x in tensors.items():
        x.assign(Tensor(devices.to_device(arrays[name], x.device)))


def _misfit(array: numpy.ndarray, x: Tensor, allow_nan: bool) -> str:
    """Return why an array cannot be the value of a Tensor, with a place for its name; or an empty text."""
    if array.shape != x.shape:
        return f"wrong shape: {{name}} is {array.shape}, the network takes {x.shape}"
    if _kind(array.dtype) != _kind(x.dtype):
        return f"wrong type: {{name}} is {array.dtype}, the network takes {x.dtype}"
    if isinstance(x, Parameter) and not allow_nan and numpy.isnan(array).any():
        return "not a number: {name} has elements that are NaN (minidl.weights.read returns them)"
    if array.dtype == x.dtype or array.dtype.kind == "b" or not array.size:
        return ""
    if x.dtype.kind == "f":
        finite = array[numpy.isfinite(array)]
        low, high = numpy.finfo(x.dtype).min, numpy.finfo(x.dtype).max
    else:
        finite, low, high = array, numpy.iinfo(x.dtype).min, numpy.iinfo(x.dtype).max
    if finite.size and not (low <= finite.min() and finite.max() <= high):
        return f"out of range: {{name}} has elements that {x.dtype} cannot hold"
    return ""


def _kind(dtype: numpy.dtype) -> str:
    return {"u": "whole", "i": "whole"}.get(dtype.kind, dtype.kind)
