"""What primitives give, worked out on shapes and dtypes alone: recording a function computes nothing.

A replay computes everything anew, the first one too, and Python may read no values while a function is
recorded. So a result then is an array that has a shape and a dtype, but whose elements are all one piece of
memory that nobody wrote. Recording takes neither the time nor the memory of the operations.

A primitive joins ``RESULTS`` with one function. One that is not there, as users' own may be, is computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy

from minidl.devices import Array
from minidl.distributed.sums import allreduce_
from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.cumulative import cumsum_
from minidl.primitives.indexing import gather_, scatter_add_, set_items_
from minidl.primitives.linear_algebra import (
    cholesky_,
    inv_,
    log_abs_det_,
    matmul_,
    sign_of_det_,
    solve_,
)
from minidl.primitives.primitive import Kind, Primitive
from minidl.primitives.reduction import (
    argmax_,
    argmin_,
    log_softmax_,
    logsumexp_,
    max_,
    min_,
    softmax_,
    sum_,
)
from minidl.primitives.shape import concatenate_, pad_
from minidl.primitives.sorting import argsort_
from minidl.primitives.windows import (
    overlap_add_,
    scatter_to_maxima_,
    select_maxima_,
    window_count,
    windows_,
)
from minidl.program.lowered.selection import Selection
from minidl.tracking import TracedNumber

Shape = tuple[int, ...]
#: A shape, and a dtype or an array that has it.
Result = tuple[Shape, Any]


class NeedsValues(BaseException):
    """A primitive can only be computed; no ``except Exception`` of the user's is to catch this."""


def result_without_values(
    primitive: Primitive, arrays: list[Array], attributes: dict[str, Any]
) -> Array | None:
    """Return an array of the shape and dtype of a result; None if the primitive is to be computed.

    Computed are views, which cost nothing, and what is on a GPU. The primitive computes too where shapes do
    not fit each other, numbers are drawn, or an attribute is an argument of the function: it knows what is
    wrong, how the Generator changes, and that the argument is read.

    Raises
    ------
    NeedsValues
        Nothing is known of the primitive.
    """
    if primitive.kind is Kind.VIEW or not all(map(has_inference, arrays)):
        return None
    if primitive.kind is Kind.ASSIGN:
        return arrays[0]
    if primitive.kind is Kind.RANDOM or any(type(value) is TracedNumber for value in attributes.values()):
        return _without_values(*_computed(primitive, arrays, attributes))
    rule = RESULTS.get(primitive)
    if rule is None and primitive.kind is not Kind.ELEMENTWISE:
        raise NeedsValues(primitive.name)
    try:
        if rule is not None:
            return _without_values(*rule(*arrays, **attributes))
        return _without_values(*_of_elements(primitive, arrays, attributes))
    except (ValueError, IndexError):
        return _without_values(*_computed(primitive, arrays, attributes))


def _computed(primitive: Primitive, arrays: list[Array], attributes: dict[str, Any]) -> Result:
    result = primitive.forward(numpy, *arrays, **attributes)
    return result.shape, result.dtype


def _without_values(shape: Shape, dtype: Any) -> Array:
    """Return an array of which all elements are one piece of memory, which no other array has."""
    return numpy.ndarray(shape, dtype, numpy.zeros(1, dtype), 0, (0,) * len(shape))


def has_inference(array: Array) -> bool:
    """Return whether results of an array may be without values: NumPy's, not those on a GPU."""
    return type(array) is numpy.ndarray


def _of_elements(primitive: Primitive, arrays: list[Array], attributes: dict[str, Any]) -> Result:
    """Return the shape that inputs are broadcast to, and the dtype of a result of one element."""
    shape = arrays[0].shape
    for array in arrays:
        if array.shape != shape:
            shape = numpy.broadcast(*arrays).shape
            break
    dtypes = tuple(array.dtype for array in arrays)
    return shape, _dtype_alone(primitive, dtypes) if not attributes else _dtype(primitive, dtypes, attributes)


def _dtype(primitive: Primitive, dtypes: tuple[numpy.dtype, ...], attributes: dict[str, Any]) -> numpy.dtype:
    with numpy.errstate(all="ignore"):
        dtype: numpy.dtype = primitive.forward(numpy, *map(_ones, dtypes), **attributes).dtype
    return dtype


@functools.lru_cache(4096)
def _dtype_alone(primitive: Primitive, dtypes: tuple[numpy.dtype, ...]) -> numpy.dtype:
    return _dtype(primitive, dtypes, {})


@functools.cache
def _ones(dtype: numpy.dtype) -> numpy.ndarray:
    return numpy.ones(1, dtype)


@functools.cache
def _sum_dtype(dtype: numpy.dtype) -> numpy.dtype:
    """Return the dtype of a sum: NumPy adds up short integers and bools in longer ones."""
    result: numpy.dtype = _ones(dtype).sum().dtype
    return result


def _like_first(x: Array, *others: Array, **attributes: Any) -> Result:
    return x.shape, x.dtype


def _kept(shape: Shape, axis: Shape, keepdims: bool) -> Shape:
    """Return the shape that is left of one whose axes are reduced."""
    if keepdims:
        return tuple(1 if i in axis else length for i, length in enumerate(shape))
    return tuple(length for i, length in enumerate(shape) if i not in axis)


def _of_sum(x: Array, axis: Shape, keepdims: bool) -> Result:
    return _kept(x.shape, axis, keepdims), _sum_dtype(x.dtype)


def _of_extremum(x: Array, axis: Shape, keepdims: bool) -> Result:
    return _kept(x.shape, axis, keepdims), x.dtype


def _of_place(x: Array, axis: int) -> Result:
    return _kept(x.shape, (axis,), False), numpy.intp


def _of_order(x: Array, axis: int) -> Result:
    return x.shape, numpy.intp


def _of_running_sum(x: Array, axis: int) -> Result:
    return x.shape, _sum_dtype(x.dtype)


def _of_matmul(a: Array, b: Array) -> Result:
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError
    stack = numpy.broadcast_shapes(a.shape[:-2], b.shape[:-2]) if max(a.ndim, b.ndim) > 2 else ()
    return (*stack, a.shape[-2], b.shape[-1]), numpy.result_type(a, b)


def _of_solve(a: Array, b: Array) -> Result:
    if min(a.ndim, b.ndim) < 2 or not a.shape[-1] == a.shape[-2] == b.shape[-2]:
        raise ValueError
    return _of_matmul(a, b)


def _of_determinant(x: Array) -> Result:
    return x.shape[:-2], x.dtype


def _of_concatenate(*arrays: Array, axis: int) -> Result:
    first = arrays[0].shape
    for array in arrays:
        if array.shape[:axis] != first[:axis] or array.shape[axis + 1 :] != first[axis + 1 :]:
            raise ValueError
    length = sum(array.shape[axis] for array in arrays)
    return (*first[:axis], length, *first[axis + 1 :]), numpy.result_type(*arrays)


def _of_pad(x: Array, widths: Any, value: float) -> Result:
    return tuple(b + length + a for length, (b, a) in zip(x.shape, widths, strict=True)), x.dtype


def _of_gather(x: Array, *positions: Array, key: Any) -> Result:
    return Selection(key, x.shape, [array.shape for array in positions]).shape, x.dtype


def _of_scatter_add(g: Array, *positions: Array, key: Any, shape: Shape) -> Result:
    return shape, g.dtype


def _of_conv(x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int) -> Result:
    bordered = [length + sum(pair) for length, pair in zip(x.shape[1:-1], padding, strict=True)]
    counts = tuple(map(window_count, bordered, w.shape[:-2], stride, dilation))
    return (len(x), *counts, w.shape[-1]), numpy.result_type(x, w)


def _of_conv_input(g: Array, w: Array, lengths: Shape, groups: int, **where: Any) -> Result:
    return (len(g), *lengths, w.shape[-2] * groups), numpy.result_type(g, w)


def _of_conv_weight(x: Array, g: Array, window: Shape, groups: int, **where: Any) -> Result:
    return (*window, x.shape[-1] // groups, g.shape[-1]), numpy.result_type(x, g)


def _of_windows(x: Array, window: Shape, stride: Shape, dilation: Shape) -> Result:
    counts = tuple(map(window_count, x.shape[1:-1], window, stride, dilation))
    return (len(x), *counts, *window, x.shape[-1]), x.dtype


def _of_overlap_add(parts: Array, lengths: Shape, **where: Any) -> Result:
    return (len(parts), *lengths, parts.shape[-1]), parts.dtype


def _of_select_maxima(values: Array, x: Array, window: Shape, stride: Shape) -> Result:
    counts = tuple(map(window_count, x.shape[1:-1], window, stride, (1,) * len(window)))
    return (len(x), *counts, x.shape[-1]), values.dtype


def _of_scatter_to_maxima(g: Array, x: Array, **where: Any) -> Result:
    return x.shape, g.dtype


#: What a primitive gives: from its arrays, of which only shapes and dtypes are looked at, and attributes. A
#: ValueError or IndexError says that these do not fit each other; then the forward is asked what is wrong.
RESULTS: dict[Primitive, Callable[..., Result]] = {
    matmul_: _of_matmul,
    sum_: _of_sum,
    max_: _of_extremum,
    min_: _of_extremum,
    logsumexp_: _of_extremum,
    softmax_: _like_first,
    log_softmax_: _like_first,
    argmax_: _of_place,
    argmin_: _of_place,
    argsort_: _of_order,
    cumsum_: _of_running_sum,
    concatenate_: _of_concatenate,
    pad_: _of_pad,
    gather_: _of_gather,
    scatter_add_: _of_scatter_add,
    set_items_: _like_first,
    conv_: _of_conv,
    conv_input_: _of_conv_input,
    conv_weight_: _of_conv_weight,
    windows_: _of_windows,
    overlap_add_: _of_overlap_add,
    select_maxima_: _of_select_maxima,
    scatter_to_maxima_: _of_scatter_to_maxima,
    inv_: _like_first,
    cholesky_: _like_first,
    solve_: _of_solve,
    log_abs_det_: _of_determinant,
    sign_of_det_: _of_determinant,
    allreduce_: _like_first,
}
