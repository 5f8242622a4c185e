"""Running sums, products and extrema along an axis.

A running product is made by doubling: after step k each element is the product of the last 2^k. It takes
log2(n) steps, and no division, so that its gradient of any order is right where elements are 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.primitives.axes import normalize_axis
from minidl.primitives.elementwise import maximum, minimum, multiply
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import concatenate, flip, ravel
from minidl.tensor import Tensor, TensorLike, as_tensor

cumsum_: Primitive = Primitive(
    "cumsum",
    lambda xp, x, axis, out=None: xp.cumsum(x, axis=axis, out=out),
    gradients=(lambda g, out, x, axis: flip(cumsum_(flip(g, axis), axis=axis), axis),),
)


def _along(x: TensorLike, axis: int | None, operation: str) -> tuple[Tensor, int]:
    """Return x and one of its axes; without an axis, the elements in one."""
    x = as_tensor(x)
    if axis is None or x.ndim == 0:
        x, axis = ravel(x), 0
    return x, normalize_axis(axis, x.ndim, operation)


def cumsum(x: Any, axis: int | None = None) -> Tensor:
    """Return the sums of the elements up to each along an axis, or of all in one axis."""
    x, position = _along(x, axis, "cumsum")
    if x.dtype == numpy.float16:
        return cumsum_(x.astype(numpy.float32), axis=position).astype(x.dtype)
    return cumsum_(x, axis=position)


def cumprod(x: Any, axis: int | None = None) -> Tensor:
    """Return the products of the elements up to each along an axis, or of all in one axis."""
    x, position = _along(x, axis, "cumprod")
    return _doubled(multiply, x.astype(numpy.int64) if x.dtype.kind in "bi" else x, position)


def cummax(x: Any, axis: int | None = None) -> Tensor:
    """Return the largest of the elements up to each along an axis, or of all in one axis."""
    return _doubled(maximum, *_along(x, axis, "cummax"))


def cummin(x: Any, axis: int | None = None) -> Tensor:
    """Return the smallest of the elements up to each along an axis, or of all in one axis."""
    return _doubled(minimum, *_along(x, axis, "cummin"))


def _doubled(combine: Callable[[Tensor, Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    before, distance = (slice(None),) * axis, 1
    while distance < x.shape[axis]:
        head = x[(*before, slice(None, distance))]
        combined = combine(x[(*before, slice(distance, None))], x[(*before, slice(None, -distance))])
        x = concatenate([head, combined], axis)
        distance *= 2
    return x
