"""Weights on disk (safetensors: an open format that cannot execute code) and back."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl import devices, files
from minidl.tensor import Tensor


def save(
    state: Mapping[str, numpy.ndarray],
    path: str | PathLike[str],
    metadata: Mapping[str, str] | None = None,
    format: str = "minidl",
) -> None:
    """Write arrays by name, and texts about them, to a safetensors file."""
    from safetensors.numpy import save as serialized

    arrays = {name: numpy.asarray(array, order="C") for name, array in state.items()}
    content = serialized(arrays, metadata={"format": format, **(metadata or {})})
    with files.replacing(path) as temporary:
        temporary.write_bytes(content)


def read(path: str | PathLike[str]) -> dict[str, numpy.ndarray]:
    """Read a safetensors file; the error names a missing or damaged one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{fspath(path)!r} is not a complete safetensors file: {error}") from error
    except (TypeError, AttributeError) as error:  # for example bfloat16
        raise ValueError(f"{fspath(path)!r} holds numbers of a type unknown to NumPy: {error}") from error


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


def load_state(tensors: Mapping[str, Tensor], state: Mapping[str, Any], source: str) -> None:
    """Assign arrays (or Tensors) to Tensors by name: all of them, or, if anything does not fit, none."""
    arrays = {name: on_host(x) for name, x in state.items()}
    no_numbers = [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]
    if no_numbers:
        raise TypeError(f"the state of {source} holds values that are not numbers: {', '.join(no_numbers)}")
    problems = [f"missing: {name} {x.shape}" for name, x in tensors.items() if name not in arrays]
    problems += [f"unexpected: {name} {x.shape}" for name, x in arrays.items() if name not in tensors]
    problems += [
        f"wrong shape: {name} is {arrays[name].shape}, the network takes {x.shape}"
        for name, x in tensors.items()
        if name in arrays and arrays[name].shape != x.shape
    ]
    if problems:
        raise ValueError(f"the state of {source} does not fit this network:\n  " + "\n  ".join(problems))
    for name, x in tensors.items():
        x.assign(Tensor(devices.to_device(arrays[name], x.device)))
