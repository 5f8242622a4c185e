"""In which order memory is walked: strides in elements, and axes that can be walked as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minidl.devices import Array
from minidl.program.expressions import Unsupported


@dataclass(frozen=True)
class Axis:
    """One loop over arrays that are walked together: its length, and how far each array goes in a step."""

    length: int
    strides: tuple[int, ...]


def element_strides(array: Array) -> list[int]:
    """Return the strides of an array in elements; of an axis of one element it is 0.

    Raises
    ------
    Unsupported
        The elements do not lie a whole number of elements apart, as in a field of a structured array.
    """
    size = array.dtype.itemsize
    if any(stride % size for stride in array.strides):
        raise Unsupported("strides that are no multiples of the element")
    return [stride // size if n > 1 else 0 for n, stride in zip(array.shape, array.strides, strict=True)]


def broadcast_strides(array: Array, shape: Sequence[int]) -> list[int]:
    """Return the strides of an array broadcast to a shape, in elements."""
    return [0] * (len(shape) - array.ndim) + element_strides(array)


def merged_axes(axes: Sequence[Axis]) -> list[Axis]:
    """Leave out axes of length 1, and make one of neighbours that every array walks in equal steps."""
    result: list[Axis] = []
    for axis in axes:
        if axis.length == 1:
            continue
        outer = result[-1] if result else None
        if outer and all(o == i * axis.length for o, i in zip(outer.strides, axis.strides, strict=True)):
            result[-1] = Axis(outer.length * axis.length, axis.strides)
        else:
            result.append(axis)
    return result


def merged(shape: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return shape and strides of one array with axes of length 1 left out, and those that merge as one."""
    axes = merged_axes([Axis(length, (stride,)) for length, stride in zip(shape, strides, strict=True)])
    return [axis.length for axis in axes], [axis.strides[0] for axis in axes]


def walk(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Axis]:
    """Return the loops over arrays of a shape, outermost first; the order of elements does not matter.

    The innermost loop runs along the axis in which most arrays are contiguous, the others from large strides
    to small ones. ``strides`` are those of each array, broadcast to the shape, in elements.
    """
    axes = [Axis(length, steps) for length, *steps in zip(shape, *strides, strict=True)]  # type: ignore[arg-type]
    axes = [Axis(axis.length, tuple(axis.strides)) for axis in axes if axis.length != 1]
    axes.sort(key=lambda axis: -sum(map(abs, axis.strides)))  # equal ones stay in NumPy's order
    axes = merged_axes(axes)
    if axes:
        contiguous = [sum(stride == 1 for stride in axis.strides) for axis in axes]
        inner = max(range(len(axes)), key=lambda i: (contiguous[i], i))
        axes.append(axes.pop(inner))
        axes = merged_axes(axes)
    return axes
