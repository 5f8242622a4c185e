"""Sums and other reductions over any axes.

``axis`` is None (all axes), an integer or a tuple of integers; ``keepdims`` keeps reduced axes with
length 1: NumPy's keywords and meaning.
"""

from __future__ import annotations

import math
from typing import Any

from minidl.primitives.elementwise import exp, sqrt
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import broadcast_to, reshape

Axes = int | tuple[int, ...] | None


def normalize_axes(axis: Axes, ndim: int, operation: str) -> tuple[int, ...]:
    """Return the axes as a sorted tuple of integers in 0 .. ndim - 1."""
    axes = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"{operation}: axis {axis} does not exist in an array of {ndim} dimensions")
    axes = tuple(sorted(a % ndim for a in axes))
    if len(set(axes)) < len(axes):
        raise ValueError(f"{operation}: an axis stands twice in {axis}")
    return axes


def _spread(reduced: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Broadcast the result of a reduction over ``axis`` back to the shape of x."""
    kept = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
    return broadcast_to(reshape(reduced, kept), x.shape)


def _shift(xp: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Subtract the maximum over ``axis`` (0 where it is not finite), so that exp cannot overflow."""
    largest = xp.max(x, axis=axis, keepdims=True)
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))
    return xp.subtract(x, largest, out=xp.empty(x.shape, x.dtype)), largest


def _logsumexp(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool, out: Any = None) -> Any:
    shifted, largest = _shift(xp, x, axis)
    total = xp.sum(xp.exp(shifted, out=shifted), axis=axis, keepdims=True)
    result = xp.add(xp.log(total), largest)
    if not keepdims:
        result = xp.squeeze(result, axis=axis)
    if out is None:
        return result
    xp.copyto(out, result)
    return out


def _softmax(xp: Any, x: Any, axis: tuple[int, ...], out: Any = None) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)  # for 0-d NumPy would return a scalar
    out = xp.subtract(x, xp.max(x, axis=axis, keepdims=True), out=out)
    out = xp.exp(out, out=out)
    return xp.divide(out, xp.sum(out, axis=axis, keepdims=True), out=out)


def _max_gradient(g: Any, out: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    winners = (x == _spread(out, x, axis)).astype(g.dtype)  # equal maxima share the gradient
    return _spread(g, x, axis) * winners / winners.sum(axis=axis, keepdims=True)


sum_ = Primitive(
    "sum",
    lambda xp, x, axis, keepdims, out=None: xp.sum(x, axis=axis, keepdims=keepdims, out=out),
    gradients=(lambda g, out, x, axis, keepdims: _spread(g, x, axis),),
)
max_ = Primitive(
    "max",
    lambda xp, x, axis, keepdims, out=None: xp.max(x, axis=axis, keepdims=keepdims, out=out),
    gradients=(_max_gradient,),
)
logsumexp_ = Primitive(
    "logsumexp",
    _logsumexp,
    gradients=(lambda g, out, x, axis, keepdims: _spread(g, x, axis) * exp(x - _spread(out, x, axis)),),
    promotes_to_float=True,
)
softmax_ = Primitive(
    "softmax",
    _softmax,
    gradients=(lambda g, out, x, axis: out * (g - (g * out).sum(axis=axis, keepdims=True)),),
    promotes_to_float=True,
    keeps_inputs=True,
)
argmax_ = Primitive(
    "argmax",
    lambda xp, x, axis, out=None: xp.argmax(x, axis=axis, out=out),
    gradients=(None,),
)


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Return the sum of x over the axes."""
    return sum_(x, axis=normalize_axes(axis, x.ndim, "sum"), keepdims=keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Return the mean of x over the axes; of no elements it is NaN, as in NumPy."""
    axes = normalize_axes(axis, x.ndim, "mean")
    count = math.prod(x.shape[a] for a in axes)
    return sum(x, axes, keepdims) * (1 / count if count else math.nan)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Return the largest element over the axes; equal maxima share the gradient evenly."""
    axes = normalize_axes(axis, x.ndim, "max")
    if 0 in [x.shape[a] for a in axes]:
        raise ValueError(f"max of no elements: shape {x.shape}, axis {axis}")
    return max_(x, axis=axes, keepdims=keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Return the smallest element over the axes; equal minima share the gradient evenly."""
    return -max(-x, axis, keepdims)


def var(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the variance over the axes: squared deviations from the mean over (count - ddof)."""
    axes = normalize_axes(axis, x.ndim, "var")
    count = math.prod(x.shape[a] for a in axes) - ddof
    deviation = x - mean(x, axes, keepdims=True)
    return sum(deviation * deviation, axes, keepdims) * (1 / count if count > 0 else math.nan)


def std(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Any:
    """Return the standard deviation over the axes, the root of var()."""
    return sqrt(var(x, axis, ddof, keepdims))


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Return log(sum(exp(x))) over the axes, without overflow."""
    return logsumexp_(x, axis=normalize_axes(axis, x.ndim, "logsumexp"), keepdims=keepdims)


def softmax(x: Any, axis: Axes = -1) -> Any:
    """Return exp(x) / sum(exp(x)) over the axes (the last one by default), without overflow."""
    return softmax_(x, axis=normalize_axes(axis, x.ndim, "softmax"))


def argmax(x: Any, axis: int = -1) -> Any:
    """Return the index of the first largest element along one axis, as int64; it has no gradient."""
    (axis,) = normalize_axes(axis, x.ndim, "argmax")
    return argmax_(x, axis=axis)
