"""Which values of a program are views of which memory."""

from __future__ import annotations

import mmap

import numpy

from minidl.devices import Array
from minidl.program.plan.layout import empty, major_axis
from minidl.program.program import Program, Step, Value


class Aliases:
    """Which values are views of which memory, and whether a block of their rows is the same block there."""

    def __init__(self, program: Program, by_columns: set[Value]):
        self.root: dict[Value, Value] = {}
        self.array: dict[Value, numpy.ndarray] = {}  # of the right layout; results are never touched
        self.is_view: dict[int, bool] = {}
        for value in program.values():
            if value.array is not None:
                self._own(value, addresses_of(value.array))
        for step in program.steps:
            self.is_view[id(step)] = step.is_view and self._view(step)
            if not self.is_view[id(step)]:
                for output in step.outputs:
                    if output.array is None:
                        self._own(output, empty(output, _addresses(output.nbytes), output in by_columns))

    def _own(self, value: Value, array: numpy.ndarray) -> None:
        self.root[value], self.array[value] = value, array

    def _view(self, step: Step) -> bool:
        (source,) = step.inputs
        ((output, array),) = step.evaluate(numpy, self.array).items()
        if not numpy.may_share_memory(array, self.array[source]):
            return False
        self.root[output], self.array[output] = self.root[source], array
        return True

    def same_block(self, value: Value, axis: int) -> bool:
        """Return whether a block along an axis of the value lies within that thread's block of its memory."""
        view, whole = self.array[value], self.array[self.root[value]]
        major = major_axis(whole)
        if not whole.ndim or view.shape[axis] != whole.shape[major]:
            return False
        if view is whole:
            return axis == major
        start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        others = [i for i in range(view.ndim) if i != axis]
        length = sum((view.shape[i] - 1) * view.strides[i] for i in others)
        row = whole.strides[major]
        return bool(view.strides[axis] == row and start >= 0 and start + length + view.itemsize <= abs(row))


def _addresses(count: int) -> numpy.ndarray:
    """Return bytes that are never touched, from outside the heap, where the buffers will lie."""
    return numpy.frombuffer(mmap.mmap(-1, max(count, 1)), numpy.uint8)


def addresses_of(array: Array) -> numpy.ndarray:
    """Return a NumPy array that stands for an array on a device while planning: never read or written."""
    if isinstance(array, numpy.ndarray):
        return array
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    count = sum(map(abs, reaches)) + array.dtype.itemsize if array.size else 0
    start = -sum(reach for reach in reaches if reach < 0) if array.size else 0
    return numpy.ndarray(array.shape, array.dtype, _addresses(count).data, start, array.strides)
