"""Sums and other reductions over any axes.

``axis`` is None (all axes), an integer or a tuple of integers; ``keepdims`` keeps reduced axes with
length 1: NumPy's keywords and meaning. float16 is reduced in float32, because sums leave its range, and
small summands are lost in it, long before the result does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import numpy

from minidl.primitives.axes import Axes, normalize_axes, normalize_axis
from minidl.primitives.elementwise import absolute, exp, not_equal, sqrt, where
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import broadcast_to, concatenate, moveaxis, reshape, squeeze
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors, promote_dtypes

Options = ParamSpec("Options")


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
argmin_: Primitive = Primitive(
    "argmin",
    lambda xp, x, axis, out=None: xp.argmin(x, axis=axis, out=out),
    gradients=(None,),
)


def _of_array(
    reduction: Callable[Concatenate[Any, Options], Tensor],
) -> Callable[Concatenate[Any, Options], Tensor]:
    """Let a reduction take arrays and lists, and compute that of float16 in float32."""

    @functools.wraps(reduction)
    def reduce(x: Any, /, *options: Options.args, **keywords: Options.kwargs) -> Tensor:
        x = as_tensor(x)
        if x.dtype != numpy.float16:
            return reduction(x, *options, **keywords)
        return reduction(x.astype(numpy.float32), *options, **keywords).astype(numpy.float16)

    return reduce


def sum(x: TensorLike, axis: Axes = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """Return the sum of x over the axes, in another dtype if one is given: it adds up in that."""
    x = as_tensor(x)
    return _sum(x, axis, keepdims) if dtype is None else _sum(x.astype(dtype), axis, keepdims).astype(dtype)


@_of_array
def _sum(x: Any, axis: Axes, keepdims: bool) -> Tensor:
    return sum_(x, axis=normalize_axes(axis, x.ndim, "sum"), keepdims=keepdims)


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
    """Return the mean of x over the axes; of no elements it is NaN, as in NumPy.

    With a dtype, it is computed in that.
    """
    x = as_tensor(x)
    return _mean(x, axis, keepdims) if dtype is None else _mean(x.astype(dtype), axis, keepdims).astype(dtype)


@_of_array
def _mean(x: Any, axis: Axes, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, x.ndim, "mean")
    count = math.prod(x.shape[a] for a in axes)
    return _sum(x, axes, keepdims) * (1 / count if count else math.nan)


def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the largest element over the axes; equal maxima share the gradient evenly."""
    x = as_tensor(x)
    return max_(x, axis=_axes_with_elements(x, axis, "max"), keepdims=keepdims)


def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the smallest element over the axes; equal minima share the gradient evenly."""
    x = as_tensor(x)
    return min_(x, axis=_axes_with_elements(x, axis, "min"), keepdims=keepdims)


def _axes_with_elements(x: Any, axis: Axes, operation: str) -> tuple[int, ...]:
    axes = normalize_axes(axis, x.ndim, operation)
    if 0 in [x.shape[a] for a in axes]:
        raise ValueError(f"{operation} of no elements: shape {x.shape}, axis {axis}")
    return axes


@_of_array
def var(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the variance over the axes: squared deviations from the mean over (count - ddof).

    As in NumPy, it is infinite if ddof takes all degrees of freedom (NaN where all deviations are 0).
    """
    axes = normalize_axes(axis, x.ndim, "var")
    freedom = math.prod(x.shape[a] for a in axes) - ddof
    deviation = x - mean(x, axes, keepdims=True)
    return sum(deviation * deviation, axes, keepdims) * (1 / freedom if freedom > 0 else math.inf)


@_of_array
def std(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """Return the standard deviation over the axes, the root of var(); at 0 its gradient is 0."""
    return _root(var(x, axis, ddof, keepdims))


@_of_array
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return log(sum(exp(x))) over the axes, without overflow; of no elements it is -infinity."""
    return logsumexp_(x, axis=normalize_axes(axis, x.ndim, "logsumexp"), keepdims=keepdims)


@_of_array
def softmax(x: Any, axis: Axes = -1) -> Tensor:
    """Return exp(x) / sum(exp(x)) over the axes (the last one by default), without overflow."""
    return softmax_(x, axis=normalize_axes(axis, x.ndim, "softmax"))


@_of_array
def log_softmax(x: Any, axis: Axes = -1) -> Tensor:
    """Return log(softmax(x)) over the axes, exact where softmax rounds to 0 or 1."""
    return log_softmax_(x, axis=normalize_axes(axis, x.ndim, "log_softmax"))


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first largest element along one axis, or of all in one axis, as int64.

    It has no gradient.
    """
    return _position(argmax_, as_tensor(x), axis, keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the index of the first smallest element along one axis, or of all in one axis, as int64.

    It has no gradient.
    """
    return _position(argmin_, as_tensor(x), axis, keepdims)


def _position(primitive: Primitive, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    axes = normalize_axes(axis, x.ndim, primitive.name)
    kept = tuple(1 if i in axes else length for i, length in enumerate(x.shape))
    if axis is None or x.ndim == 0:
        index = primitive(reshape(x, (-1,)), axis=0)
    else:
        index = primitive(x, axis=axes[0])
    return reshape(index, kept) if keepdims else index


def all(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return as bool whether all elements over the axes are not 0."""
    return sum(as_tensor(x) == 0, axis, keepdims) == 0


def any(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return as bool whether any element over the axes is not 0."""
    return count_nonzero(x, axis, keepdims) > 0


def count_nonzero(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return how many elements over the axes are not 0, as int64."""
    return sum(as_tensor(x) != 0, axis, keepdims)


@_of_array
def prod(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return the product of x over the axes; its gradient is right where elements are 0, too."""
    axes = normalize_axes(axis, x.ndim, "prod")
    kept = tuple(length for i, length in enumerate(x.shape) if i not in axes)
    shape = tuple(1 if i in axes else length for i, length in enumerate(x.shape)) if keepdims else kept
    if x.dtype.kind in "bi":
        x = x.astype(numpy.int64)
    x = reshape(moveaxis(x, axes, range(len(axes))), (math.prod(x.shape[a] for a in axes), *kept))
    if len(x) == 0:
        x = broadcast_to(as_tensors((1,), like=x)[0], (1, *kept))
    while len(x) > 1:  # multiply halves, so that no element is ever divided out
        half = len(x) // 2
        products = x[:half] * x[half : 2 * half]
        x = concatenate([products, x[2 * half :]]) if len(x) % 2 else products
    return reshape(x, shape)


@_of_array
def norm(x: Any, ord: Any = None, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Return a norm as numpy.linalg.norm does; where it is 0 its gradient is 0.

    Parameters
    ----------
    ord : of vectors (one axis, or all elements of one axis): infinity, -infinity, 0 or another number p, by
        default 2; of matrices (two axes): "fro", 1, -1, infinity or -infinity, by default "fro"
    axis : one axis for vectors, two for matrices; with neither axis nor ord, all elements are one vector

    Raises
    ------
    ValueError
        The order is one of matrices by their singular values (2, -2, "nuc"), or not one at all.
    """
    (x,) = promote_dtypes((x,), floating=True)
    if ord is None:
        return _root(sum(x * x, axis, keepdims))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else normalize_axes(axis, x.ndim, "norm")
    size = absolute(x)
    if len(axes) == 1:
        if ord in (math.inf, -math.inf):
            return (max if ord > 0 else min)(size, axes, keepdims)
        if ord == 0:
            return sum((x != 0).astype(size.dtype), axes, keepdims)
        if isinstance(ord, str):
            raise ValueError(f"norm: {ord!r} is an order of matrices, over two axes")
        if ord == 2:
            return _root(sum(x * x, axes, keepdims))
        present = size != 0  # powers of 0 have no derivative, or an infinite one
        powers = where(present, where(present, size, 1) ** ord, 0.0 if ord > 0 else math.inf)
        total = sum(powers, axes, keepdims)
        ordinary = (total > 0) * (total < math.inf)
        return where(ordinary, where(ordinary, total, 1) ** (1 / ord), total.detach() ** (1 / ord))
    if len(axes) != 2 or ord not in ("fro", 1, -1, math.inf, -math.inf):
        raise ValueError(f"norm: there is no order {ord!r} over {len(axes)} axes here")
    if ord == "fro":
        return _root(sum(x * x, axes, keepdims))
    rows, columns = (normalize_axis(a, x.ndim, "norm") for a in axes)
    added, compared = (rows, columns) if ord in (1, -1) else (columns, rows)
    sums = sum(size, added, keepdims=True)
    result = (max if ord > 0 else min)(sums, compared, keepdims=True)
    return result if keepdims else squeeze(result, (rows, columns))


def _root(x: Tensor) -> Tensor:
    """Return sqrt(x), with the gradient 0 at 0."""
    return where(x == 0, 0, sqrt(where(x == 0, 1, x)))
