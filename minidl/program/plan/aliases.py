"""Which values of a program lie in which memory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.primitives.shape import reshape_, transpose_
from minidl.program.plan.layout import empty, major_axis
from minidl.program.plan.partition import block
from minidl.program.program import Instruction, Program, Step, Value, share


@dataclass(frozen=True)
class Place:
    """Where a result lies in the memory of another one.

    Attributes
    ----------
    whole : the other one
    key : which part of it
    value : what lies in that part, which is the result or a view of it
    way : the views that lead from there back to the result
    """

    whole: Value
    key: tuple[Any, ...]
    value: Value
    way: tuple[Instruction, ...] = ()

    def array(self, arrays: Mapping[Value, Array]) -> Array | None:
        """Return the array of the result, from that of the whole; None if it would be a copy."""
        array = arrays[self.whole][self.key]
        steps = [(reshape_, {"shape": self.value.shape}), *((s.primitive, _backwards(s)) for s in self.way)]
        for primitive, attributes in steps:
            if attributes is None:
                return None
            new = primitive.forward(numpy, array, **attributes)
            if not numpy.may_share_memory(new, array):
                return None
            array = new
        return array


def _backwards(view: Instruction) -> dict[str, Any] | None:
    """Return the attributes with which a view's primitive undoes it; None if it cannot."""
    if view.primitive is reshape_:
        return {"shape": view.inputs[0].shape}
    if view.primitive is transpose_:
        return {"axes": tuple(map(int, numpy.argsort(view.attributes["axes"])))}
    return None


class Aliases:
    """Which values are views of which memory, and whether a block of their rows is the same block there.

    Attributes
    ----------
    root : by a value the one whose memory it lies in
    array : by a value an array of the right layout; results are never touched
    is_view : by the ``id`` of a step, whether nothing is to be done for it
    sources : by a value the results that are computed where it lies, all of which it has to wait for
    places : the results that lie in another one's memory, and where; see places.py
    wholes : the results that are there when all their parts have been computed
    waits : by the ``id`` of a step those that must have read what lies where it writes
    """

    def __init__(self, program: Program, by_columns: set[Value]):
        self.program = program
        self.root: dict[Value, Value] = {}
        self.array: dict[Value, numpy.ndarray] = {}
        self.is_view: dict[int, bool] = {}
        self.places: dict[Value, Place] = {}
        self.wholes: set[Value] = set()
        self.waits: dict[int, list[Step]] = {}
        self.sources: dict[Value, tuple[Value, ...]] = {}
        self._views: dict[Value, list[Step]] = {}  # by their memory
        self._before: dict[Value, numpy.ndarray] = {}  # the arrays of results that were moved
        for value in program.values():
            if value.array is not None:
                self._own(value, addresses_of(value.array))
        for step in program.steps:
            self.is_view[id(step)] = step.is_view and self._view(step)
            if not self.is_view[id(step)]:
                for output in step.outputs:
                    if output.array is None:
                        self._own(output, empty(output, _addresses(output.nbytes), output in by_columns))
        self.find_sources()

    def _own(self, value: Value, array: numpy.ndarray) -> None:
        self.root[value], self.array[value] = value, array

    def _view(self, step: Step) -> bool:
        (source,) = step.inputs
        ((output, array),) = step.evaluate(numpy, self.array).items()
        if not numpy.may_share_memory(array, self.array[source]):
            return False
        self.root[output], self.array[output] = self.root[source], array
        self._views.setdefault(self.root[source], []).append(step)
        return True

    def find_sources(self) -> None:
        """Find out of which results values are views, or put together."""
        self.sources = {value: (value,) for value in self.root}
        for step in self.program.steps:
            if self.is_view[id(step)]:
                found = [self.sources[value] for value in step.inputs]
                together = found[0] if len(found) == 1 else tuple(dict.fromkeys(itertools.chain(*found)))
                self.sources[step.outputs[0]] = together

    def move(self, value: Value, place: Place) -> bool:
        """Let a result lie in another one's memory; return False if a view of it would be a copy."""
        array = place.array(self.array)
        if array is None:
            return False
        self._before[value] = self.array[value]
        self.places[value] = place
        if not self._put(value, self.root[place.whole], array):
            self.move_back(value)
            return False
        return True

    def move_back(self, value: Value) -> None:
        """Let a result have its own memory again."""
        del self.places[value]
        self._put(value, value, self._before.pop(value))

    def _put(self, value: Value, root: Value, array: numpy.ndarray) -> bool:
        self.root[value], self.array[value] = root, array
        for step in self._views.get(value, ()):
            ((output, view),) = step.evaluate(numpy, self.array).items()
            if not numpy.may_share_memory(view, array):
                return False
            self.root[output], self.array[output] = root, view
        return True

    def take_over(self, value: Value, old: Value) -> None:
        """Let a result lie where another one of the same layout lay, which nobody will read any more."""
        self.places[value] = Place(old, (...,), value)
        self._put(value, self.root[old], self.array[old])

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
