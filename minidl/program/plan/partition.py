"""How a step is shared among threads: blocks along one axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from minidl.primitives.reduction import sum_
from minidl.program.plan.layout import major_axis
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import Gemm, Group, Instruction, PartialSum, Program, Step, Value, share

#: Work below this many elements (or multiply-adds / 16) is not worth being split.
SMALL = 16_384


@dataclass(frozen=True)
class Partition:
    """How a step can be shared among threads: blocks along an axis of its shape."""

    shape: tuple[int, ...]
    axis: int

    @property
    def length(self) -> int:
        """How much there is to be shared."""
        return self.shape[self.axis]


def partition_of(task: Task, arrays: Mapping[Value, numpy.ndarray]) -> Partition | None:
    """Return how a step can be shared among threads, or None if one must do it."""
    if isinstance(task, PartialSum):
        return Partition(task.value.shape, task.cut)
    if isinstance(task, Copy):
        return Partition(task.state.shape, 0) if task.state.shape else None
    if isinstance(task, Gemm):
        return Partition(task.output.shape, major_axis(arrays[task.output]))
    if isinstance(task, Group):
        shape = task.members[0].output.shape
        like = next((v for v in task.outputs if v.shape == shape), None)
        return Partition(shape, major_axis(arrays[like]) if like is not None else 0) if shape else None
    if isinstance(task, Instruction) and task.primitive is sum_:
        (x,) = task.inputs  # a sum over rows, of a matrix stored by columns
        if task.attributes["axis"] == (0,) and major_axis(arrays[x]) == 1:
            return Partition(x.shape, 1)
    return None


def part_of(array: numpy.ndarray, cut: Partition, index: int, parts: int) -> numpy.ndarray:
    """Return the block of an input or output that belongs to one thread; all of it where it is broadcast."""
    return block_of(array, cut, share(cut.length, index, parts))


def block_of(array: numpy.ndarray, cut: Partition, block: slice) -> numpy.ndarray:
    """Return a block along the cut's axis of an array that broadcasts to the cut's shape."""
    axis = cut.axis - (len(cut.shape) - array.ndim)
    if axis < 0 or array.shape[axis] != cut.length:
        return array
    return array[(slice(None),) * axis + (block,)]


def split_sums(program: Program, threads: int, by_columns: set[Value]) -> Program:
    """Let each thread sum its own block of large values, while it is in its cache."""
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Instruction) and step.primitive is sum_ and threads > 1:
            (x,), axis = step.inputs, step.attributes["axis"]
            cut = 1 if x in by_columns else 0
            if cut in axis and x.size >= SMALL and x.shape[cut] >= 2 * threads:
                shape = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
                partial = Value((threads, *shape), step.output.dtype)
                steps.append(PartialSum(x, axis, cut, partial, step.phase))
                attributes = {"axis": (0, *(i + 1 for i in axis)), "keepdims": step.attributes["keepdims"]}
                if attributes["keepdims"]:
                    attributes = {"axis": (0,), "keepdims": False}
                step = Instruction(sum_, [partial], attributes, step.output, step.phase)
        steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)
