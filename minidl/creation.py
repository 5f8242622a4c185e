"""Tensors from nothing: zeros, ones, full, arange, and the like of another Tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.tensor import Tensor, tensor_dtype


def full(shape: int | Sequence[int], value: float, dtype: Any = numpy.float32, device: str = "cpu") -> Tensor:
    """Return a Tensor of one value."""
    return Tensor(devices.to_device(numpy.full(shape, value, dtype), device))


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
    default = tensor_dtype(0.0 if any(isinstance(bound, float) for bound in bounds) else 0)
    return Tensor(devices.to_device(numpy.arange(*bounds, dtype=dtype or default), device))


def zeros_like(x: Tensor) -> Tensor:
    """Return zeros of the shape, dtype and device of x."""
    return x.zeros_like()


def ones_like(x: Tensor) -> Tensor:
    """Return ones of the shape, dtype and device of x."""
    return x.ones_like()
