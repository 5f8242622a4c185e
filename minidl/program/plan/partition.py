"""How a step is shared among threads: each computes a block of it, along one axis.

``PARTITIONS`` has the steps that can be shared. A new operation joins it with one function, which says along
which axis of the output there are blocks, and which block of each input a thread needs for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.indexing import gather_, scatter_add_
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.reduction import (
    argmax_,
    argmin_,
    max_,
    min_,
    sum_,
)
from minidl.primitives.shape import concatenate_, pad_, reshape_
from minidl.primitives.windows import overlap_add_, scatter_to_maxima_, select_maxima_, windows_
from minidl.program.costs import work
from minidl.program.lowered.add_at import add_at_
from minidl.program.plan.layout import major_axis
from minidl.program.plan.placement import boxes_of, is_placement, selection_of
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import (
    Gemm,
    Group,
    Instruction,
    OnePass,
    Operation,
    Partial,
    PartialSum,
    Program,
    Rows,
    Step,
    Value,
)

#: Steps of less work than this (see costs.work) are not worth being shared.
MIN_SHARED_WORK = 16_384

#: How many bytes a factor must have, and how many times as long as the other must be the axis of the result
#: along which it lies, so that the threads share it and wait for each other. BLAS packs all of what it reads;
#: smaller factors stay in the second cache meanwhile.
LARGE_FACTOR, WIDE = 4 << 20, 4

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
    """Each thread has rows of the result, of which it reads the whole right factor, or columns of it.

    Rows of other steps are the same threads', who need not wait for each other. But a very large factor, as
    of the logits of many words, each thread should read and pack but a part of.
    """
    axis = major_axis(arrays[gemm.output])
    own, other = gemm.output.shape[axis], gemm.output.shape[1 - axis]
    inner = gemm.terms[0][0].shape[1]
    if other >= WIDE * own and other * inner * gemm.output.dtype.itemsize >= LARGE_FACTOR:
        axis = 1 - axis
    of_term = (0, None) if axis == 0 else (None, 1)
    return Partition(gemm.output.shape[axis], axis, of_term * len(gemm.terms))


def _of_group(group: Group, arrays: Arrays) -> Partition | None:
    if not group.shape:
        return None
    written = next((value for value in group.outputs if value.shape == group.shape), None)
    whole = arrays[written] if written is not None else numpy.broadcast_to(numpy.empty(()), group.shape)
    axis = major_axis(whole)
    return broadcast_partition(group.shape, axis, group.inputs)


def _of_one_pass(step: OnePass, arrays: Arrays) -> Partition | None:
    """Each thread has some of the observations, and with them whole windows."""
    return broadcast_partition(step.shape, 0, step.inputs) if step.shape[0] > 1 else None


def _of_rows(rows: Rows, arrays: Arrays) -> Partition | None:
    """Each thread has some of the rows."""
    axis = next((i for i, length in enumerate(rows.shape[:-1]) if length > 1), None)
    return None if axis is None else broadcast_partition(rows.shape, axis, rows.inputs)


def _of_copy(copy: Copy, arrays: Arrays) -> Partition | None:
    if not copy.state.shape:
        return None
    return broadcast_partition(copy.state.shape, major_axis(arrays[copy.state]), copy.inputs)


def _of_partial_sum(partial: PartialSum, arrays: Arrays) -> Partition:
    return Partition(partial.value.shape[partial.split], 0, (partial.split,))


def _of_partial(partial: Partial, arrays: Arrays) -> Partition:
    return Partition(partial.inputs[0].shape[0], 0, (0,) * len(partial.inputs))


def _by_observation(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has some of the observations: those of the first input, and all of the weights."""
    if step.output.shape[0] == 1 or major_axis(arrays[step.output]) != 0:
        return None
    return Partition(step.output.shape[0], 0, (0, *(None for _ in step.inputs[1:])))


def _of_pooling(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has some of the images, of every input."""
    if step.output.shape[0] == 1 or major_axis(arrays[step.output]) != 0:
        return None
    return Partition(step.output.shape[0], 0, (0,) * len(step.inputs))


def _of_reduction(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has a part of the results."""
    (x,), axis = step.inputs, step.attributes["axis"]
    reduced = (axis,) if isinstance(axis, int) else axis
    out = major_axis(arrays[step.output])
    kept = [i for i in range(len(x.shape)) if i not in reduced]
    if len(step.output.shape) == len(x.shape):
        kept = list(range(len(x.shape)))
    if out >= len(kept) or kept[out] in reduced:
        return None
    return Partition(x.shape[kept[out]], out, (kept[out],))


def _of_matmul(step: Instruction, arrays: Arrays) -> Partition:
    """Each thread has a part of the stack, or of the rows or columns of the only matrix."""
    ndim, axis = len(step.output.shape), major_axis(arrays[step.output])
    axes: list[int | None] = []
    for value, summed in zip(step.inputs, (ndim - 1, ndim - 2), strict=True):
        own = axis - (ndim - len(value.shape))
        has_blocks = axis != summed and own >= 0 and value.shape[own] == step.output.shape[axis]
        axes.append(own if has_blocks else None)
    return Partition(step.output.shape[axis], axis, tuple(axes))


def _of_placement(step: Instruction, arrays: Arrays) -> Partition | None:
    shape = step.output.shape
    axis = major_axis(arrays[step.output])
    if not shape:
        return None
    if is_placement(step):
        boxes = boxes_of(step)
        return Partition(
            shape[axis], axis, tuple(box.axes[axis] if box.fills(axis, shape) else None for box in boxes)
        )
    return None


def _of_scatter(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has a part of the result, and adds up what belongs there."""
    if not step.inputs[1:]:
        return _of_placement(step, arrays)
    return _of_positions(step, step.inputs[1:], arrays)


def _of_add_at(step: Instruction, arrays: Arrays) -> Partition | None:
    partition = _of_positions(step, step.inputs[2:], arrays)
    if partition is None:
        return None
    return replace(partition, input_axes=(partition.output_axis, *partition.input_axes))


def _of_positions(step: Instruction, positions: list[Value], arrays: Arrays) -> Partition | None:
    selection, axis = selection_of(step), major_axis(arrays[step.output])
    if axis in selection.indexed:
        return Partition(step.output.shape[axis], axis, (None,) * (1 + len(positions)))
    if axis not in selection.slices or selection.slices[axis] != range(step.output.shape[axis]):
        return None
    return Partition(step.output.shape[axis], axis, (selection.result_axis(axis), *(None for _ in positions)))


def _of_gather(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has a part of the positions, or of what is picked at each."""
    x, *positions = step.inputs
    shape, selection = step.output.shape, selection_of(step)
    if not shape:
        return None
    axis, of_x = major_axis(arrays[step.output]), None
    spread = range(selection.at, selection.at + len(selection.spread))
    if axis not in spread:
        of_x = selection.basic[axis if axis < selection.at else axis - len(spread)]
        if of_x is None or selection.slices[of_x] != range(x.shape[of_x]):
            return None
        return Partition(shape[axis], axis, (of_x, *(None for _ in positions)))
    axes = [axis - spread.stop + len(value.shape) for value in positions]
    own = (
        i if i >= 0 and value.shape[i] == shape[axis] else None
        for i, value in zip(axes, positions, strict=True)
    )
    return Partition(shape[axis], axis, (None, *own))


def _of_reshape(step: Instruction, arrays: Arrays) -> Partition | None:
    """Each thread has a part of the rows of the result, if these lie one after another."""
    shape = step.output.shape
    if not shape or not arrays[step.output].flags.c_contiguous:
        return None
    axis = major_axis(arrays[step.output])
    return Partition(shape[axis], axis, (None,))


#: The steps that can be shared among threads, and how; all others one thread computes.
PARTITIONS: dict[Operation, Callable[[Any, Arrays], Partition | None]] = {
    Gemm: _of_gemm,
    Group: _of_group,
    OnePass: _of_one_pass,
    Rows: _of_rows,
    Copy: _of_copy,
    PartialSum: _of_partial_sum,
    Partial: _of_partial,
    conv_: _by_observation,
    conv_input_: _by_observation,
    windows_: _of_pooling,
    overlap_add_: _of_pooling,
    select_maxima_: _of_pooling,
    scatter_to_maxima_: _of_pooling,
    sum_: _of_reduction,
    max_: _of_reduction,
    min_: _of_reduction,
    argmax_: _of_reduction,
    argmin_: _of_reduction,
    matmul_: _of_matmul,
    concatenate_: _of_placement,
    pad_: _of_placement,
    scatter_add_: _of_scatter,
    add_at_: _of_add_at,
    gather_: _of_gather,
    reshape_: _of_reshape,
}


def split_sums(program: Program, threads: int, by_columns: set[Value]) -> Program:
    """Let each thread sum its own block of large values, while it is in its cache."""
    if threads == 1:
        return program
    steps: list[Step] = []
    for step in program.steps:
        steps += SPLITS[step.operation](step, threads, by_columns) if step.operation in SPLITS else [step]
    return Program(program.inputs, steps, program.outputs, program.updates)


def split_sum(step: Instruction, threads: int, by_columns: set[Value]) -> list[Step]:
    """Return the sums of the threads' blocks, and their sum; or just the step, if it is not worth it."""
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


def _split_weight_gradient(step: Instruction, threads: int, by_columns: set[Value]) -> list[Step]:
    if work(step) < MIN_SHARED_WORK or step.inputs[0].shape[0] < 2 * threads:
        return [step]
    parts = Value((threads, *step.output.shape), step.output.dtype)
    total = Instruction(sum_, [parts], {"axis": (0,), "keepdims": False}, step.output, step.phase)
    return [Partial(step, parts), total]


#: The sums of which each thread does its block first, before the blocks are added up, always in one order.
SPLITS: dict[Operation, Callable[[Any, int, set[Value]], list[Step]]] = {
    sum_: split_sum,
    conv_weight_: _split_weight_gradient,
}
