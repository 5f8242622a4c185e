"""How a step is shared among threads: each computes a block of it, along one axis.

``PARTITIONS`` has the steps that can be shared. A new operation joins it with one function, which says along
which axis of the output there are blocks, and which block of each input a thread needs for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.primitives.reduction import sum_
from minidl.program.plan.layout import major_axis
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import (
    Gemm,
    Group,
    Instruction,
    Operation,
    PartialSum,
    Program,
    Step,
    Value,
)

#: Steps of less work than this (see costs.work) are not worth being shared.
MIN_SHARED_WORK = 16_384

Arrays = Mapping[Value, numpy.ndarray]


@dataclass(frozen=True)
class Partition:
    """How a step is shared among threads: blocks along an axis of its outputs.

    Attributes
    ----------
    length : how many rows, or whatever lies along that axis, are shared
    output_axis : the axis along which there are blocks of everything that the step writes
    input_axes : for each input the axis along which it has blocks too; None if every thread reads all of it
    """

    length: int
    output_axis: int
    input_axes: tuple[int | None, ...]


def partition_of(task: Task, arrays: Arrays) -> Partition | None:
    """Return how a step is shared among threads, or None if one thread must do it.

    ``arrays`` has arrays in the layout that the values will have; only shapes and strides matter.
    """
    rule = PARTITIONS.get(task.operation)
    return rule(task, arrays) if rule is not None else None


def block(array: numpy.ndarray, axis: int | None, part: slice) -> numpy.ndarray:
    """Return a part of an array along an axis; all of it for None."""
    return array if axis is None else array[(slice(None),) * axis + (part,)]


def broadcast_partition(shape: tuple[int, ...], axis: int, inputs: list[Value]) -> Partition:
    """Return the partition of a step whose inputs are broadcast to the shape of its outputs."""
    axes: list[int | None] = []
    for value in inputs:
        own = axis - (len(shape) - len(value.shape))
        axes.append(own if own >= 0 and value.shape[own] == shape[axis] else None)
    return Partition(shape[axis], axis, tuple(axes))


def _of_gemm(gemm: Gemm, arrays: Arrays) -> Partition:
    axis = major_axis(arrays[gemm.output])
    of_term = (0, None) if axis == 0 else (None, 1)
    return Partition(gemm.output.shape[axis], axis, of_term * len(gemm.terms))


def _of_group(group: Group, arrays: Arrays) -> Partition | None:
    if not group.shape:
        return None
    written = next((value for value in group.outputs if value.shape == group.shape), None)
    axis = major_axis(arrays[written]) if written is not None else 0
    return broadcast_partition(group.shape, axis, group.inputs)


def _of_copy(copy: Copy, arrays: Arrays) -> Partition | None:
    return broadcast_partition(copy.state.shape, 0, copy.inputs) if copy.state.shape else None


def _of_partial_sum(partial: PartialSum, arrays: Arrays) -> Partition:
    return Partition(partial.value.shape[partial.split], 0, (partial.split,))


def _of_sum(step: Instruction, arrays: Arrays) -> Partition | None:
    (x,) = step.inputs  # over the rows of a matrix stored by columns: each thread has its columns
    if step.attributes["axis"] != (0,) or major_axis(arrays[x]) != 1:
        return None
    return Partition(x.shape[1], len(step.output.shape) - 1, (1,))


#: The steps that can be shared among threads, and how; all others one thread computes.
PARTITIONS: dict[Operation, Callable[[Any, Arrays], Partition | None]] = {
    Gemm: _of_gemm,
    Group: _of_group,
    Copy: _of_copy,
    PartialSum: _of_partial_sum,
    sum_: _of_sum,
}


def split_sums(program: Program, threads: int, by_columns: set[Value]) -> Program:
    """Let each thread sum its own block of large values, while it is in its cache."""
    if threads == 1:
        return program
    steps: list[Step] = []
    for step in program.steps:
        steps += SPLITS[step.operation](step, threads, by_columns) if step.operation in SPLITS else [step]
    return Program(program.inputs, steps, program.outputs, program.updates)


def _split_sum(step: Instruction, threads: int, by_columns: set[Value]) -> list[Step]:
    (x,), axis = step.inputs, step.attributes["axis"]
    split = 1 if x in by_columns else 0
    if split not in axis or x.size < MIN_SHARED_WORK or x.shape[split] < 2 * threads:
        return [step]
    shape = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
    partial = Value((threads, *shape), step.output.dtype)
    attributes = {"axis": (0, *(i + 1 for i in axis)), "keepdims": False}
    if step.attributes["keepdims"]:
        attributes = {"axis": (0,), "keepdims": False}
    return [
        PartialSum(x, axis, split, partial, step.phase),
        Instruction(sum_, [partial], attributes, step.output, step.phase),
    ]


#: The reductions of which each thread does its block first, and one thread adds up the blocks.
SPLITS: dict[Operation, Callable[[Any, int, set[Value]], list[Step]]] = {sum_: _split_sum}
