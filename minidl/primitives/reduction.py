"""Sums and other reductions over any axes.

``axis`` is None (all axes), an integer or a tuple of integers; ``keepdims`` keeps reduced axes with
length 1: NumPy's keywords and meaning. float16 is reduced in float32, because sums leave its range, and
small summands are lost in it, long before the result does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy

from minidl.primitives.axes import Axes, normalize_axes, normalize_axis
from minidl.primitives.elementwise import exp, not_equal, sqrt, where
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import broadcast_to, reshape
from minidl.tensor import Tensor

Reduction = TypeVar("Reduction", bound=Callable[..., Tensor])


def _spread(reduced: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Broadcast the result of a reduction over ``axis`` back to the shape of x."""
    kept = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
    return broadcast_to(reshape(reduced, kept), x.shape)


def _shift(xp: Any, x: Any, axis: tuple[int, ...]) -> Any:
    """Subtract the maximum over ``axis`` (0 where it is not finite), so that exp cannot overflow."""
    kept = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
    if x.size == 0:
        return xp.empty(x.shape, x.dtype), xp.zeros(kept, x.dtype)
    largest = xp.max(x, axis=axis, keepdims=True)
    largest = xp.where(xp.isfinite(largest), largest, xp.zeros_like(largest))
    return xp.subtract(x, largest, out=xp.empty(x.shape, x.dtype)), largest


def _logsumexp(xp: Any, x: Any, axis: tuple[int, ...], keepdims: bool, out: Any = None) -> Any:
    shifted, largest = _shift(xp, x, axis)
    total = xp.sum(xp.exp(shifted, out=shifted), axis=axis, keepdims=True)
    with numpy.errstate(divide="ignore"):  # the sum of no powers is 0, its logarithm -infinity
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
    if x.size == 0:
        return out
    out = xp.subtract(x, xp.max(x, axis=axis, keepdims=True), out=out)
    out = xp.exp(out, out=out)
    return xp.divide(out, xp.sum(out, axis=axis, keepdims=True), out=out)


def _log_softmax(xp: Any, x: Any, axis: tuple[int, ...], out: Any = None) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)
    if x.size == 0:
        return out
    out = xp.subtract(x, xp.max(x, axis=axis, keepdims=True), out=out)
    return xp.subtract(out, xp.log(xp.sum(xp.exp(out), axis=axis, keepdims=True)), out=out)


def _extremum_gradient(g: Any, out: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Share the gradient among equal extrema; where the result is NaN, these are the elements that are."""
    winners = (x == _spread(out, x, axis)) + not_equal(x, x)
    count = winners.astype(g.dtype).sum(axis=axis, keepdims=True)
    return where(winners, _spread(g, x, axis) / count, 0)


sum_: Primitive = Primitive(
    "sum",
    lambda xp, x, axis, keepdims, out=None: xp.sum(x, axis=axis, keepdims=keepdims, out=out),
    gradients=(lambda g, out, x, axis, keepdims: _spread(g, x, axis),),
)
max_: Primitive = Primitive(
    "max",
    lambda xp, x, axis, keepdims, out=None: xp.max(x, axis=axis, keepdims=keepdims, out=out),
    gradients=(_extremum_gradient,),
)
min_: Primitive = Primitive(
    "min",
    lambda xp, x, axis, keepdims, out=None: xp.min(x, axis=axis, keepdims=keepdims, out=out),
    gradients=(_extremum_gradient,),
)
logsumexp_: Primitive = Primitive(
    "logsumexp",
    _logsumexp,
    gradients=(lambda g, out, x, axis, keepdims: _spread(g, x, axis) * exp(x - _spread(out, x, axis)),),
    promotes_to_float=True,
)
softmax_: Primitive = Primitive(
    "softmax",
    _softmax,
    gradients=(lambda g, out, x, axis: out * (g - (g * out).sum(axis=axis, keepdims=True)),),
    promotes_to_float=True,
    keeps_inputs=True,
)
log_softmax_: Primitive = Primitive(
    "log_softmax",
    _log_softmax,
    gradients=(lambda g, out, x, axis: g - exp(out) * g.sum(axis=axis, keepdims=True),),
    promotes_to_float=True,
)
argmax_: Primitive = Primitive(
    "argmax",
    lambda xp, x, axis, out=None: xp.argmax(x, axis=axis, out=out),
    gradients=(None,),
)


def _in_float32(reduction: Reduction) -> Reduction:
    """Let a reduction of float16 compute in float32; only its result is float16 again."""

    @functools.wraps(reduction)
    def reduce(x: Any, *arguments: Any, **keywords: Any) -> Tensor:
        if x.dtype != numpy.float16:
            return reduction(x, *arguments, **keywords)
        return reduction(x.astype(numpy.float32), *arguments, **keywords).astype(numpy.float16)

    return cast(Reduction, reduce)


@_in_float32
def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the sum of x over the axes."""
    return sum_(x, axis=normalize_axes(axis, x.ndim, "sum"), keepdims=keepdims)


@_in_float32
def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the mean of x over the axes; of no elements it is NaN, as in NumPy."""
    axes = normalize_axes(axis, x.ndim, "mean")
    count = math.prod(x.shape[a] for a in axes)
    return sum(x, axes, keepdims) * (1 / count if count else math.nan)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over the axes; equal maxima share the gradient evenly."""
    return max_(x, axis=_axes_with_elements(x, axis, "max"), keepdims=keepdims)


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over the axes; equal minima share the gradient evenly."""
    return min_(x, axis=_axes_with_elements(x, axis, "min"), keepdims=keepdims)


def _axes_with_elements(x: Any, axis: Axes, operation: str) -> tuple[int, ...]:
    axes = normalize_axes(axis, x.ndim, operation)
    if 0 in [x.shape[a] for a in axes]:
        raise ValueError(f"{operation} of no elements: shape {x.shape}, axis {axis}")
    return axes


@_in_float32
def var(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over the axes: squared deviations from the mean over (count - ddof).

    As in NumPy, it is infinite if ddof takes all degrees of freedom (NaN where all deviations are 0).
    """
    axes = normalize_axes(axis, x.ndim, "var")
    freedom = math.prod(x.shape[a] for a in axes) - ddof
    deviation = x - mean(x, axes, keepdims=True)
    return sum(deviation * deviation, axes, keepdims) * (1 / freedom if freedom > 0 else math.inf)


@_in_float32
def std(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over the axes, the root of var(); at 0 its gradient is 0."""
    variance = var(x, axis, ddof, keepdims)
    return where(variance == 0, 0, sqrt(where(variance == 0, 1, variance)))


@_in_float32
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over the axes, without overflow; of no elements it is -infinity."""
    return logsumexp_(x, axis=normalize_axes(axis, x.ndim, "logsumexp"), keepdims=keepdims)


@_in_float32
def softmax(x: Any, axis: Axes = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) over the axes (the last one by default), without overflow."""
    return softmax_(x, axis=normalize_axes(axis, x.ndim, "softmax"))


@_in_float32
def log_softmax(x: Any, axis: Axes = -1) -> Tensor:
    """Return log(softmax(x)) over the axes, exact where softmax rounds to 0 or 1."""
    return log_softmax_(x, axis=normalize_axes(axis, x.ndim, "log_softmax"))


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first largest element along one axis, or of all in one axis, as int64.

    It has no gradient.
    """
    if axis is None or x.ndim == 0:
        normalize_axes(axis, x.ndim, "argmax")
        flat = argmax_(reshape(x, (-1,)), axis=0)
        return reshape(flat, (1,) * x.ndim) if keepdims else flat
    position = normalize_axis(axis, x.ndim, "argmax")
    index = argmax_(x, axis=position)
    return reshape(index, (*x.shape[:position], 1, *x.shape[position + 1 :])) if keepdims else index
