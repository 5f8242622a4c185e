"""Tensors from nothing: zeros, ones, full, arange, linspace, eye, and the like of another Tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.primitives.shape import broadcast_to, reshape, swapaxes
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors, tensor_dtype


def full(shape: int | Sequence[int], value: Any, dtype: Any = numpy.float32, device: str = "cpu") -> Tensor:
    """Return a Tensor of one value: a number, or a Tensor of one element, which gets a gradient."""
    if isinstance(value, Tensor):
        return broadcast_to(reshape(value, ()).astype(dtype).to(device), _lengths(shape))
    return _on(device, numpy.full(_lengths(shape), value, devices.native(dtype)))


def zeros(shape: int | Sequence[int], dtype: Any = numpy.float32, device: str = "cpu") -> Tensor:
    """Return a Tensor of zeros."""
    return full(shape, 0, dtype, device)


def ones(shape: int | Sequence[int], dtype: Any = numpy.float32, device: str = "cpu") -> Tensor:
    """Return a Tensor of ones."""
    return full(shape, 1, dtype, device)


def arange(
    start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str = "cpu"
) -> Tensor:
    """Return evenly spaced values from start (0 if only one bound is given) up to, without, stop."""
    bounds = (0, start, step) if stop is None else (start, stop, step)
    for bound in bounds:
        if isinstance(bound, Tensor) and bound.requires_grad:
            raise TypeError("arange has no gradient for its bounds: give it numbers, or .detach()")
    default = tensor_dtype(0.0 if any(isinstance(bound, float) for bound in bounds) else 0)
    return _on(device, numpy.arange(*map(_number, bounds), dtype=devices.native(dtype or default)))


def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    dtype: Any = numpy.float32,
    device: str = "cpu",
) -> Tensor:
    """Return ``num`` evenly spaced values from start to stop, which is the last one with ``endpoint``.

    Numbers or Tensors of one element; these get gradients.
    """
    if isinstance(start, Tensor) or isinstance(stop, Tensor):
        between = dtype if numpy.dtype(dtype).kind == "f" else numpy.float64
        weight = linspace(0, 1, num, endpoint, between, device)
        first, last = (as_tensor(x).astype(between).to(device).reshape(()) for x in (start, stop))
        return (first * (1 - weight) + last * weight).astype(dtype)
    return _on(device, numpy.linspace(start, stop, num, endpoint).astype(devices.native(dtype)))


def eye(
    rows: int, columns: int | None = None, k: int = 0, dtype: Any = numpy.float32, device: str = "cpu"
) -> Tensor:
    """Return a matrix with ones on diagonal number k, else zeros."""
    return _on(device, numpy.eye(rows, columns, k, devices.native(dtype)))


def one_hot(indices: TensorLike, classes: int, dtype: Any = numpy.float32) -> Tensor:
    """Return a new last axis of length ``classes``, with 1 at the position that an integer names, else 0.

    An integer outside 0 .. classes - 1 gives zeros.
    """
    indices = as_tensor(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"one_hot takes integers, got {indices.dtype}")
    return (reshape(indices, (*indices.shape, 1)) == arange(classes, device=indices.device)).astype(dtype)


def meshgrid(*vectors: Any, indexing: str = "xy") -> list[Tensor]:
    """Return the coordinates of a grid of points, one Tensor for each vector.

    With ``"xy"`` the first two axes of the grid are those of the second and the first vector; with ``"ij"``
    the axes are in the order of the vectors.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: unknown indexing {indexing!r}: use 'xy' or 'ij'")
    parts = [reshape(x, (-1,)) for x in as_tensors(vectors)]
    shape = tuple(len(x) for x in parts)
    grids = [
        broadcast_to(reshape(x, tuple(len(x) if i == axis else 1 for i in range(len(parts)))), shape)
        for axis, x in enumerate(parts)
    ]
    return [swapaxes(x, 0, 1) for x in grids] if indexing == "xy" and len(parts) > 1 else grids


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Return zeros of the shape and device of x, by default of its dtype."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Return ones of the shape and device of x, by default of its dtype."""
    return full_like(x, 1, dtype)


def full_like(x: TensorLike, value: Any, dtype: Any = None) -> Tensor:
    """Return a Tensor of one value as full() does, of the shape and device of x, by default of its dtype."""
    x = as_tensor(x)
    if isinstance(value, Tensor):
        return full(x.shape, value, dtype or x.dtype, x.device)
    with devices.current(x.data):
        xp = devices.array_module(x.data)
        return Tensor(xp.full(x.shape, value, devices.native(dtype or x.dtype)))


def _lengths(shape: Any) -> Any:
    """Refuse what is no shape."""
    lengths = tuple(shape) if isinstance(shape, Iterable) and not isinstance(shape, str) else (shape,)
    if not all(hasattr(length, "__index__") and length >= 0 for length in lengths):
        raise TypeError(f"a shape is a length or a tuple of lengths, got {shape!r}")
    return tuple(int(length) for length in lengths)


def _number(value: Any) -> Any:
    """Return a number, which may have been given as a Tensor of one element."""
    return value.item() if isinstance(value, Tensor) else value


def _on(device: str, array: numpy.ndarray) -> Tensor:
    return Tensor(devices.to_device(array, device))
