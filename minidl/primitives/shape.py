"""Operations that move elements and compute nothing: reshape, transpose, concatenate, pad, ...

Views share the memory of their input wherever NumPy's do. That is safe, because only assignment
writes arrays, and it is noticed when something that backward still needs has been assigned.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from minidl.primitives.axes import normalize_axes, normalize_axis, ordered_axes
from minidl.primitives.primitive import Primitive
from minidl.tensor import Tensor, as_tensors


def _view(forward: Any) -> Any:
    """Let a view be written to ``out`` as well, for programs that need it in a place of its own."""

    def forward_or_copy(xp: Any, x: Any, out: Any = None, **attributes: Any) -> Any:
        result = forward(xp, x, **attributes)
        if out is None:
            return result
        xp.copyto(out, result)
        return out

    return forward_or_copy


def _concatenate(xp: Any, *arrays: Any, axis: int, out: Any = None) -> Any:
    return xp.concatenate(arrays, axis=axis, out=out)


def _concatenate_gradient(index: int, g: Any, out: Any, *inputs: Any, axis: int) -> Any:
    start = sum(x.shape[axis] for x in inputs[:index])
    part = slice(start, start + inputs[index].shape[axis])
    return g[(slice(None),) * axis + (part,)]


def _pad(xp: Any, x: Any, widths: tuple[Any, ...], value: float, out: Any = None) -> Any:
    shape = tuple(before + length + after for length, (before, after) in zip(x.shape, widths, strict=True))
    if out is None:
        out = xp.empty(shape, x.dtype)
    out.fill(value)
    out[_inside(x.shape, widths)] = x
    return out


def _inside(shape: tuple[int, ...], widths: tuple[Any, ...]) -> tuple[slice, ...]:
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, widths, strict=True))


reshape_: Primitive = Primitive(
    "reshape",
    _view(lambda xp, x, shape: x.reshape(shape)),
    gradients=(lambda g, out, x, shape: reshape(g, x.shape),),
    kind="view",
    keeps_inputs=True,
)
transpose_: Primitive = Primitive(
    "transpose",
    _view(lambda xp, x, axes: x.transpose(axes)),
    gradients=(lambda g, out, x, axes: transpose(g, [axes.index(i) for i in range(len(axes))]),),
    kind="view",
    keeps_inputs=True,
)
broadcast_to_: Primitive = Primitive(
    "broadcast_to",
    _view(lambda xp, x, shape: xp.broadcast_to(x, shape)),
    gradients=(lambda g, out, x, shape: g,),  # summed back to the shape of x by autodiff
    kind="view",
)
detach: Primitive = Primitive(
    "detach",
    _view(lambda xp, x: x),
    gradients=(None,),
    kind="view",
    doc="Return x as a Tensor that gradients do not flow through; it shares the array of x.",
)
concatenate_: Primitive = Primitive(
    "concatenate", _concatenate, gradients=_concatenate_gradient, promotes=True
)
pad_: Primitive = Primitive(
    "pad",
    _pad,
    gradients=(lambda g, out, x, widths, value: g[_inside(x.shape, widths)],),
)


def reshape(x: Any, *shape: Any) -> Tensor:
    """Return x with another shape (one length may be -1), as a view where possible."""
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    lengths = tuple(operator.index(length) for length in wanted)
    if lengths.count(-1) == 1:
        known = math.prod(length for length in lengths if length != -1)
        missing = x.size // known if known else 0
        lengths = tuple(missing if length == -1 else length for length in lengths)
    if any(length < 0 for length in lengths) or math.prod(lengths) != x.size:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit shape {tuple(wanted)}")
    return x if lengths == x.shape else reshape_(x, shape=lengths)


def transpose(x: Any, *axes: Any) -> Tensor:
    """Return x with its axes in another order (reversed if none are given), as a view."""
    wanted = axes[0] if len(axes) == 1 and isinstance(axes[0], Sequence) else axes
    if not wanted or wanted == (None,):
        wanted = range(x.ndim)[::-1]
    if len(wanted) != x.ndim:
        raise ValueError(f"transpose: axes {tuple(wanted)} are not an order of the {x.ndim} axes")
    return transpose_(x, axes=ordered_axes(wanted, x.ndim, "transpose"))


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged, as a view."""
    first, second = (normalize_axis(axis, x.ndim, "swapaxes") for axis in (axis1, axis2))
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    return transpose(x, order)


def broadcast_to(x: Any, shape: Sequence[int]) -> Tensor:
    """Return x repeated to the shape by NumPy's broadcasting rules, as a view."""
    shape = tuple(shape)
    return x if x.shape == shape else broadcast_to_(x, shape=shape)


def expand_dims(x: Any, axis: int | Sequence[int]) -> Tensor:
    """Return x with new axes of length 1 at these positions of the result."""
    axes = axis if isinstance(axis, Sequence) else (axis,)
    ndim = x.ndim + len(axes)
    positions = ordered_axes(axes, ndim, "expand_dims")
    lengths = iter(x.shape)
    return reshape(x, tuple(1 if i in positions else next(lengths) for i in range(ndim)))


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Return x without its axes of length 1, or without those given."""
    if axis is None:
        return reshape(x, tuple(length for length in x.shape if length != 1))
    positions = normalize_axes(axis, x.ndim, "squeeze")
    for position in positions:
        if x.shape[position] != 1:
            raise ValueError(
                f"squeeze: axis {position} of shape {x.shape} has length {x.shape[position]}, not 1"
            )
    return reshape(x, tuple(length for i, length in enumerate(x.shape) if i not in positions))


def concatenate(tensors: Sequence[Any], axis: int | None = 0) -> Tensor:
    """Return the Tensors joined along an existing axis; with None, their elements in one axis."""
    parts = as_tensors(tensors)
    if not parts:
        raise ValueError("concatenate needs at least one Tensor")
    if axis is None:
        parts, axis = tuple(reshape(x, (-1,)) for x in parts), 0
    if any(x.ndim == 0 for x in parts):
        raise ValueError("concatenate: zero-dimensional Tensors cannot be joined; stack() can join them")
    return concatenate_(*parts, axis=normalize_axis(axis, parts[0].ndim, "concatenate"))


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Return Tensors of one shape joined along a new axis."""
    parts = as_tensors(tensors)
    if not parts:
        raise ValueError("stack needs at least one Tensor")
    position = normalize_axis(axis, parts[0].ndim + 1, "stack")
    return concatenate([expand_dims(x, position) for x in parts], position)


def pad(x: Any, widths: Any, value: float = 0.0) -> Tensor:
    """Return x with a border of one value.

    ``widths`` is one number for every side, or one pair (before, after) for each axis.
    """
    pairs = ((widths, widths),) * x.ndim if isinstance(widths, int) else tuple(map(tuple, widths))
    if len(pairs) != x.ndim or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ValueError(f"pad: needs a pair of widths >= 0 for each of {x.ndim} axes, got {widths}")
    return pad_(x, widths=pairs, value=value)
