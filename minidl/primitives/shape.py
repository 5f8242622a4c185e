"""Operations that move elements and compute nothing: reshape, transpose, concatenate, pad, ...

Views share the memory of their input wherever NumPy's do. That is safe, because only assignment
writes arrays, and it is noticed when something that backward still needs has been assigned.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.primitives.axes import normalize_axes, normalize_axis, ordered_axes
from minidl.primitives.primitive import Kind, Primitive
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors


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
    kind=Kind.VIEW,
    keeps_inputs=True,
)
transpose_: Primitive = Primitive(
    "transpose",
    _view(lambda xp, x, axes: x.transpose(axes)),
    gradients=(lambda g, out, x, axes: transpose(g, [axes.index(i) for i in range(len(axes))]),),
    kind=Kind.VIEW,
    keeps_inputs=True,
)
broadcast_to_: Primitive = Primitive(
    "broadcast_to",
    _view(lambda xp, x, shape: xp.broadcast_to(x, shape)),
    gradients=(lambda g, out, x, shape: g,),  # summed back to the shape of x by autodiff
    kind=Kind.VIEW,
)
detach: Primitive = Primitive(
    "detach",
    _view(lambda xp, x: x),
    gradients=(None,),
    kind=Kind.VIEW,
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


def reshape(x: TensorLike, *shape: Any) -> Tensor:
    """Return x with another shape (one length may be -1), as a view where possible."""
    x = as_tensor(x)
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    lengths = tuple(operator.index(length) for length in wanted)
    if lengths.count(-1) == 1:
        known = math.prod(length for length in lengths if length != -1)
        missing = x.size // known if known else 0
        lengths = tuple(missing if length == -1 else length for length in lengths)
    if any(length < 0 for length in lengths) or math.prod(lengths) != x.size:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit shape {tuple(wanted)}")
    return x if lengths == x.shape else reshape_(x, shape=lengths)


def ravel(x: Any) -> Tensor:
    """Return the elements of x in one axis."""
    return reshape(x, (-1,))


def transpose(x: TensorLike, *axes: Any) -> Tensor:
    """Return x with its axes in another order (reversed if none are given), as a view."""
    x = as_tensor(x)
    wanted = axes[0] if len(axes) == 1 and isinstance(axes[0], Sequence) else axes
    if not wanted or wanted == (None,):
        wanted = range(x.ndim)[::-1]
    if len(wanted) != x.ndim:
        raise ValueError(f"transpose: axes {tuple(wanted)} are not an order of the {x.ndim} axes")
    return transpose_(x, axes=ordered_axes(wanted, x.ndim, "transpose"))


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Return x with two axes exchanged, as a view."""
    x = as_tensor(x)
    first, second = (normalize_axis(axis, x.ndim, "swapaxes") for axis in (axis1, axis2))
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    return transpose(x, order)


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Return x with axes moved to other positions, the rest in their order, as a view."""
    x = as_tensor(x)
    sources, places = (
        ordered_axes(axes if isinstance(axes, Sequence) else (axes,), x.ndim, "moveaxis")
        for axes in (source, destination)
    )
    if len(sources) != len(places):
        raise ValueError(f"moveaxis: {len(sources)} axes cannot go to {len(places)} positions")
    moved = dict(zip(places, sources, strict=True))
    rest = iter([axis for axis in range(x.ndim) if axis not in sources])
    return transpose(x, [moved[i] if i in moved else next(rest) for i in range(x.ndim)])


def broadcast_to(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """Return x repeated to the shape by NumPy's broadcasting rules, as a view."""
    x = as_tensor(x)
    shape = tuple(map(operator.index, shape)) if isinstance(shape, Sequence) else (operator.index(shape),)
    return x if x.shape == shape else broadcast_to_(x, shape=shape)


def expand_dims(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """Return x with new axes of length 1 at these positions of the result."""
    x = as_tensor(x)
    axes = axis if isinstance(axis, Sequence) else (axis,)
    ndim = x.ndim + len(axes)
    positions = ordered_axes(axes, ndim, "expand_dims")
    lengths = iter(x.shape)
    return reshape(x, tuple(1 if i in positions else next(lengths) for i in range(ndim)))


def squeeze(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """Return x without its axes of length 1, or without those given."""
    x = as_tensor(x)
    if axis is None:
        return reshape(x, tuple(length for length in x.shape if length != 1))
    positions = normalize_axes(axis, x.ndim, "squeeze")
    for position in positions:
        if x.shape[position] != 1:
            raise ValueError(
                f"squeeze: axis {position} of shape {x.shape} has length {x.shape[position]}, not 1"
            )
    return reshape(x, tuple(length for i, length in enumerate(x.shape) if i not in positions))


def atleast_1d(*tensors: Any) -> Any:
    """Return a Tensor, or each of several in a tuple, with at least one axis."""
    results = tuple(x if x.ndim else reshape(x, (1,)) for x in map(as_tensor, tensors))
    return results[0] if len(results) == 1 else results


def atleast_2d(*tensors: Any) -> Any:
    """Return a Tensor, or each of several in a tuple, with at least two axes; new ones stand in front."""
    results = tuple(x if x.ndim > 1 else reshape(x, (1, -1)) for x in map(as_tensor, tensors))
    return results[0] if len(results) == 1 else results


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


def vstack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the first axis; single rows become matrices first."""
    return concatenate([atleast_2d(x) for x in tensors], 0)


def hstack(tensors: Sequence[Any]) -> Tensor:
    """Return Tensors joined along the second axis, vectors along their only one."""
    parts = [atleast_1d(x) for x in tensors]
    return concatenate(parts, 0 if parts and parts[0].ndim == 1 else 1)


def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Return parts of x along an axis, as views: a number of equal ones, or those between positions."""
    x = as_tensor(x)
    position = normalize_axis(axis, x.ndim, "split")
    length = x.shape[position]
    if isinstance(indices_or_sections, Sequence):
        ends = [*map(operator.index, indices_or_sections)]
    else:
        sections = operator.index(indices_or_sections)
        if sections < 1 or length % sections:
            raise ValueError(f"split: an axis of length {length} has no {sections} equal parts")
        ends = [length // sections * i for i in range(1, sections)]
    before = (slice(None),) * position
    return [x[(*before, slice(a, b))] for a, b in zip([0, *ends], [*ends, length], strict=True)]


def flip(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """Return x with the elements along the axes (all of them by default) in reverse order, as a view."""
    x = as_tensor(x)
    axes = normalize_axes(axis, x.ndim, "flip")
    return x[tuple(slice(None, None, -1 if i in axes else 1) for i in range(x.ndim))]


def roll(x: TensorLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Return x with elements shifted along an axis (or as if all were in one), the last ones to the front."""
    x = as_tensor(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = axis if isinstance(axis, Sequence) else (axis,)
    shifts = shift if isinstance(shift, Sequence) else (shift,) * len(axes)
    for a, distance in zip(axes, shifts, strict=True):
        position = normalize_axis(a, x.ndim, "roll")
        length = x.shape[position]
        cut = -operator.index(distance) % length if length else 0
        if cut:
            head, tail = split(x, [cut], position)
            x = concatenate([tail, head], position)
    return x


def tile(x: TensorLike, reps: int | Sequence[int]) -> Tensor:
    """Return x laid out side by side, as often along each axis as ``reps`` says."""
    x = as_tensor(x)
    counts = tuple(reps) if isinstance(reps, Sequence) else (reps,)
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    lengths = (1,) * (ndim - x.ndim) + x.shape
    apart = reshape(x, tuple(n for length in lengths for n in (1, length)))
    repeated = tuple(n for pair in zip(counts, lengths, strict=True) for n in pair)
    whole = tuple(count * length for count, length in zip(counts, lengths, strict=True))
    return reshape(broadcast_to(apart, repeated), whole)


def repeat(x: TensorLike, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Return x with each element along an axis (or in one axis) repeated, all alike or by its own count."""
    x = as_tensor(x)
    if axis is None:
        x, axis = ravel(x), 0
    position = normalize_axis(axis, x.ndim, "repeat")
    if isinstance(repeats, Sequence) or getattr(repeats, "ndim", False):
        places = numpy.repeat(numpy.arange(x.shape[position]), numpy.asarray(repeats))
        return x[(slice(None),) * position + (devices.to_device(places, x.device),)]
    front, back = x.shape[: position + 1], x.shape[position + 1 :]
    apart = broadcast_to(reshape(x, (*front, 1, *back)), (*front, operator.index(repeats), *back))
    return reshape(apart, (*front[:-1], front[-1] * operator.index(repeats), *back))


#: The modes of pad() that repeat elements of x.
PAD_MODES = ("edge", "reflect", "symmetric", "wrap")


def pad(x: TensorLike, pad_width: Any, mode: str = "constant", constant_values: float = 0.0) -> Tensor:
    """Return x with a border.

    Parameters
    ----------
    pad_width : one number for every side, a pair (before, after) for every axis, or a pair for each
    mode : ``"constant"``, or what the border repeats, as in NumPy: ``"edge"``, ``"reflect"``, ``"symmetric"``
        or ``"wrap"``
    constant_values : the number in a constant border
    """
    x = as_tensor(x)
    try:
        pairs = tuple((int(a), int(b)) for a, b in numpy.broadcast_to(pad_width, (x.ndim, 2)))
    except ValueError:
        pairs = ((-1, -1),)
    if any(min(pair) < 0 for pair in pairs):
        raise ValueError(f"pad: needs a pair of widths >= 0 for each of {x.ndim} axes, got {pad_width}")
    if mode == "constant":
        return pad_(x, widths=pairs, value=constant_values)
    if mode not in PAD_MODES:
        raise ValueError(f"pad: unknown mode {mode!r}: use 'constant' or one of {', '.join(PAD_MODES)}")
    for axis, pair in enumerate(pairs):
        if any(pair):
            places = numpy.pad(numpy.arange(x.shape[axis]), pair, mode)  # type: ignore[call-overload]
            x = x[(slice(None),) * axis + (devices.to_device(places, x.device),)]
    return x
