"""Which values of a program are views of which memory."""

from __future__ import annotations

import numpy

from minidl.devices import Array
from minidl.program.plan.layout import empty, major_axis
from minidl.program.plan.partition import block
from minidl.program.program import Program, Step, Value, share


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

    def same_block(self, value: Value, axis: int, threads: int) -> bool:
        """Return whether each thread's block along an axis of the value is within its block of the memory.

        So are the rows of (batch, time, features) in the rows of (batch * time, features), if the threads
        share the batch evenly.
        """
        view, whole = self.array[value], self.array[self.root[value]]
        if view is whole:
            return whole.ndim > 0 and axis == major_axis(whole)
        if not whole.ndim or not (whole.flags.c_contiguous or whole.flags.f_contiguous) or not whole.size:
            return False
        major = major_axis(whole)
        row, length = whole.strides[major], whole.shape[major]
        for i in range(threads):
            part, own = block(view, axis, share(view.shape[axis], i, threads)), share(length, i, threads)
            if part.size:
                first, last = _bounds(part, whole)
                if first < own.start * row or last > own.stop * row:
                    return False
        return True


def _bounds(part: numpy.ndarray, whole: numpy.ndarray) -> tuple[int, int]:
    """Return where the bytes of a part of an array begin and end in it."""
    ends = [(length - 1) * stride for length, stride in zip(part.shape, part.strides, strict=True)]
    start: int = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    first = start + sum(end for end in ends if end < 0)
    return first, start + sum(end for end in ends if end > 0) + part.itemsize


def _addresses(count: int) -> numpy.ndarray:
    """Return bytes that are never touched, from outside the heap, where the buffers will lie."""
    try:
        import mmap
    except ImportError:  # some systems of WebAssembly: from the heap, then
        return numpy.empty(max(count, 1), numpy.uint8)
    return numpy.frombuffer(mmap.mmap(-1, max(count, 1)), numpy.uint8)


def addresses_of(array: Array) -> numpy.ndarray:
    """Return a NumPy array that stands for an array on a device while planning: never read or written."""
    if isinstance(array, numpy.ndarray):
        return array
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    count = sum(map(abs, reaches)) + array.dtype.itemsize if array.size else 0
    start = -sum(reach for reach in reaches if reach < 0) if array.size else 0
    return numpy.ndarray(array.shape, array.dtype, _addresses(count).data, start, array.strides)
