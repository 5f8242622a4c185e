"""Steps that only move elements, as what is put where: concatenate, pad, and the gradients of slices.

Each thread puts what belongs in its block of the result, and no element is written twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.primitives.indexing import scatter_add_
from minidl.primitives.shape import concatenate_, pad_
from minidl.program.lowered.add_at import add_at_
from minidl.program.lowered.selection import Selection
from minidl.program.program import Instruction, Operation


@dataclass(frozen=True)
class Box:
    """Where an input goes: the positions on each axis of the result that it takes.

    ``axes`` has, for each axis of the result, the axis of the input that lies along it, or None.
    """

    ranges: tuple[range, ...]
    axes: tuple[int | None, ...]

    def fills(self, axis: int, shape: Sequence[int]) -> bool:
        """Return whether the input takes the whole of an axis of the result, which has this shape."""
        return self.ranges[axis] == range(shape[axis]) and self.axes[axis] is not None


def boxes_of(step: Instruction) -> list[Box]:
    """Return the box of each input; they do not overlap."""
    return BOXES[step.primitive](step)


def filled_with(step: Instruction) -> float | None:
    """Return the number that stands outside of the boxes; None if there is no outside."""
    return None if step.primitive is concatenate_ else step.attributes.get("value", 0)


def placements(
    step: Instruction, inputs: Sequence[numpy.ndarray], out: numpy.ndarray, axis: int | None, start: int
) -> Iterator[tuple[numpy.ndarray, Any]]:
    """Yield the parts of a block of the result, each with the array or the number that is put there.

    The block begins at ``start`` on an axis of the result. Inputs that fill that axis are blocks too.
    """
    ranges: list[range] = []
    for box, array in zip(boxes_of(step), inputs, strict=True):
        order = [own for own in box.axes if own is not None]
        array = array.transpose([*order, *(i for i in range(array.ndim) if i not in order)])
        array = array.reshape([1 if own is None else array.shape[i] for own, i in _counted(box.axes)])
        ranges = [*box.ranges]
        if axis is not None and box.fills(axis, step.output.shape):
            ranges[axis] = range(out.shape[axis])
        elif axis is not None:
            kept = _within(ranges[axis], start, out.shape[axis])
            inside = ranges[axis][kept.start : kept.stop]
            ranges[axis] = range(inside.start - start, inside.stop - start, inside.step)
            if box.axes[axis] is not None:
                array = array[(slice(None),) * axis + (slice(kept.start, kept.stop),)]
        if all(map(len, ranges)):
            key: tuple[Any, ...] = (*map(_slice, ranges), ...)  # a view of 0-d arrays, too
            yield out[key], array
    value = filled_with(step)
    if value is not None:
        for outside in _outside(ranges, out.shape):
            key = (*outside, ...)
            yield out[key], value


def _counted(axes: Sequence[int | None]) -> Iterator[tuple[int | None, int]]:
    numbers = itertools.count()
    return ((own, -1 if own is None else next(numbers)) for own in axes)


def _within(positions: range, start: int, length: int) -> range:
    """Return which of the positions, by number, lie in a block."""
    inside = [max(0, -(-(start - positions.start) // positions.step))]
    inside.append(min(len(positions), -(-(start + length - positions.start) // positions.step)))
    return range(inside[0], max(inside))


def _slice(positions: range) -> slice:
    return slice(positions.start, positions.start + (len(positions) - 1) * positions.step + 1, positions.step)


def _outside(ranges: Sequence[range], shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Yield parts of an array of a shape that together are all of it but a box."""
    if not all(map(len, ranges)):
        yield (slice(None),) * len(shape)
        return
    key: list[slice] = []
    for positions, length in zip(ranges, shape, strict=True):
        first, last, step = positions.start, positions[-1], positions.step
        for part in (slice(0, first), slice(last + 1, length)):
            if part.start < part.stop:
                yield (*key, part)
        for offset in range(1, step if len(positions) > 1 else 1):
            yield (*key, slice(first + offset, last + 1, step))
        key.append(_slice(positions))


# --- which input goes where -----------------------------------------------------------------------


def _of_concatenation(step: Instruction) -> list[Box]:
    axis, shape = step.attributes["axis"], step.output.shape
    ends = list(itertools.accumulate(value.shape[axis] for value in step.inputs))
    whole = [range(length) for length in shape]
    return [
        Box((*whole[:axis], range(start, end), *whole[axis + 1 :]), tuple(range(len(shape))))
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def _of_pad(step: Instruction) -> list[Box]:
    (x,), widths = step.inputs, step.attributes["widths"]
    ranges = (range(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))
    return [Box(tuple(ranges), tuple(range(len(x.shape))))]


def _of_slice(step: Instruction) -> list[Box]:
    selection = selection_of(step)
    ranges, axes = [], []
    for axis in range(len(step.output.shape)):
        place = selection.fixed.get(axis)
        ranges.append(selection.slices[axis] if place is None else range(place, place + 1))
        axes.append(selection.basic.index(axis) if place is None else None)
    return [Box(tuple(ranges), tuple(axes))]


def selection_of(step: Instruction) -> Selection:
    """Return what the key of a gather, a scatter_add or an add_at picks."""
    whole = step.output if step.primitive is scatter_add_ else step.inputs[0]
    positions = step.inputs[2 if step.primitive is add_at_ else 1 :]
    return Selection(step.attributes["key"], whole.shape, [value.shape for value in positions])


#: The steps that only move elements. Gradients of gathers, which have positions, are none of them.
BOXES: dict[Operation, Callable[[Instruction], list[Box]]] = {
    concatenate_: _of_concatenation,
    pad_: _of_pad,
    scatter_add_: _of_slice,
}


def is_placement(step: Any) -> bool:
    """Return whether a step only moves elements, each of its inputs to a box of its own."""
    if step.operation not in BOXES or (step.operation is scatter_add_ and len(step.inputs) > 1):
        return False
    return all(positions.step > 0 for box in boxes_of(step) for positions in box.ranges)


def pieces(x: numpy.ndarray, start: int, stop: int) -> Iterator[numpy.ndarray]:
    """Yield views that together are elements ``start`` to ``stop`` of an array, in NumPy's order."""
    if start >= stop:
        return
    if stop - start == x.size:
        yield x
        return
    size = x[0].size
    first, last = -(-start // size), stop // size
    if start < first * size:
        head = first - 1
        yield from pieces(x[head], start - head * size, min(stop - head * size, size))
    if first < last:
        yield x[first:last]
    if first <= last:
        yield from pieces(x[last] if last < len(x) else x[:0], 0, stop - last * size)
