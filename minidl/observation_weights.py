"""Weights of observations: what losses and metrics take as ``weight``."""

from __future__ import annotations

from typing import Any

import numpy

from minidl.primitives.elementwise import maximum, where
from minidl.primitives.shape import broadcast_to
from minidl.tensor import Tensor, as_tensor
from minidl.value_checks import check_range

#: The largest weight: the sum and the square of more could leave the range of float32.
LARGEST = 1e18


def weights_like(function: str, weight: Any, losses: Tensor) -> Tensor:
    """Return weights of the shape and dtype of losses, from those of their first axes.

    Raises
    ------
    ValueError
        The shape does not fit, or (checked on the CPU) a weight is negative, NaN or infinite.
    """
    weight, shape = as_tensor(weight), losses.shape
    if weight.ndim > len(shape) or weight.shape != shape[: weight.ndim]:
        raise ValueError(
            f"{function}: weight must have the shape {shape} or its first axes, for example {shape[:1]}; "
            f"got {weight.shape}"
        )
    check_range(function, "weights", weight, 0, LARGEST)
    weight = weight.astype(losses.dtype).reshape(*weight.shape, *[1] * (len(shape) - weight.ndim))
    return broadcast_to(weight, shape)


def masked(losses: Tensor, weight: Tensor) -> Tensor:
    """Return losses times weights; 0 where the weight is 0, whatever is there."""
    return where(weight == 0, 0, losses) * weight


def ratio(total: Tensor, weight: Tensor) -> Tensor:
    """Return a total divided by the weight in it; 0 if there is none."""
    if weight.dtype.kind != "f":
        weight = weight.astype(numpy.float32)
    return total / maximum(weight, float(numpy.finfo(weight.dtype).tiny))
