"""How each step becomes calls of NumPy and BLAS: the table CALLS.

Whatever is not in it is one call of its primitive's forward, which writes to ``out``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy

from minidl.primitives.indexing import scatter_add_
from minidl.primitives.reduction import sum_
from minidl.primitives.shape import concatenate_, pad_, reshape_
from minidl.program.cpu.blas import matmul_call
from minidl.program.cpu.blocks import Block, moves_of
from minidl.program.expressions import Unsupported
from minidl.program.lowered.add_at import add_at_
from minidl.program.lowered.selection import Selection
from minidl.program.plan.layout import GEMM_DTYPES, empty
from minidl.program.plan.placement import selection_of
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import (
    AdvanceSum,
    BeginSum,
    EndSum,
    Gemm,
    Group,
    Instruction,
    OnePass,
    Operation,
    Partial,
    PartialSum,
    Rows,
    Value,
)

Call = Callable[[], Any]

#: Bytes of one block of one value of a group. Small enough that the few blocks in use stay in cache;
#: large enough that threads seldom wait for the interpreter lock, which each call releases and takes
#: back (with blocks of 64 KiB the update of the main job takes 1.4 times as long).
BLOCK_BYTES = 512 * 1024


#: Up to how long rows are added up by BLAS; of 8 elements each it is seven times as fast.
MAX_COLUMNS = 1024


def calls(task: Task, block: Block, scratch: Scratch) -> Iterator[Call]:
    """Yield the calls that compute a step, or one thread's block of it."""
    return CALLS.get(task.operation, _forward)(task, block, scratch)


class Scratch:
    """Memory for one block of the inner values of a group, used by one thread for all its groups."""

    def __init__(self) -> None:
        self.buffers: dict[int, numpy.ndarray] = {}

    def array(self, slot: int, shape: tuple[int, ...], dtype: numpy.dtype, by_columns: bool) -> numpy.ndarray:
        """Return an array in a slot. A slot that proves too small is replaced, not moved."""
        nbytes = math.prod(shape) * dtype.itemsize
        if slot not in self.buffers or self.buffers[slot].nbytes < nbytes:
            self.buffers[slot] = numpy.empty(max(nbytes, 1), numpy.uint8)
        return empty(Value(shape, dtype), self.buffers[slot], by_columns)


def _forward(step: Instruction, block: Block, scratch: Scratch) -> Iterator[Call]:
    (out,) = block.outputs
    yield partial(step.primitive.forward, numpy, *block.inputs, out=out, **step.attributes)


def _gemm(gemm: Gemm, block: Block, scratch: Scratch) -> Iterator[Call]:
    (out,) = block.outputs
    for i, (a, b) in enumerate(zip(block.inputs[::2], block.inputs[1::2], strict=True)):
        yield matmul_call(a, b, out, add=i > 0)


def _copy(copy: Copy, block: Block, scratch: Scratch) -> Iterator[Call]:
    yield partial(numpy.copyto, block.outputs[0], block.inputs[0])


def _begin_sum(step: BeginSum, block: Block, scratch: Scratch) -> Iterator[Call]:
    yield partial(step.run, block.inputs)


def _advance_sum(step: AdvanceSum, block: Block, scratch: Scratch) -> Iterator[Call]:
    yield step.message.communicator.progress


def _end_sum(step: EndSum, block: Block, scratch: Scratch) -> Iterator[Call]:
    yield step.message.end


def _moves(step: Instruction, block: Block, scratch: Scratch) -> Iterator[Call]:
    try:
        moves = list(moves_of(step, block))
    except Unsupported:
        yield from _forward(step, block, scratch)
        return
    for target, what in moves:
        yield partial(numpy.copyto, target, what)


def _scatter(step: Instruction, block: Block, scratch: Scratch) -> Iterator[Call]:
    g, *positions = block.inputs
    if not positions:
        yield from _moves(step, block, scratch)
    else:
        yield from _add_positions(step, block, [], g, positions)


def _add_at(step: Instruction, block: Block, scratch: Scratch) -> Iterator[Call]:
    x, g, *positions = block.inputs
    yield from _add_positions(step, block, [x], g, positions)


def _add_positions(
    step: Instruction,
    block: Block,
    base: list[numpy.ndarray],
    g: numpy.ndarray,
    positions: list[numpy.ndarray],
) -> Iterator[Call]:
    selection = selection_of(step)
    if block.axis is not None and block.axis in selection.indexed:
        yield partial(_add_rows, step, block, selection, block.axis, base, g, positions)
    else:
        (out,) = block.outputs
        attributes = step.attributes | {"shape": out.shape}
        yield partial(step.primitive.forward, numpy, *base, g, *positions, out=out, **attributes)


def _add_rows(
    step: Instruction,
    block: Block,
    selection: Selection,
    axis: int,
    base: list[numpy.ndarray],
    g: numpy.ndarray,
    positions: list[numpy.ndarray],
) -> None:
    """Add up what belongs in a block of the result along an axis that positions index."""
    (out,) = block.outputs
    shared = selection.indexed.index(axis)
    length = step.output.shape[axis]
    places = positions[shared] + (positions[shared] < 0) * length
    if places.size and not (places.min() >= 0 and places.max() < length):
        raise IndexError("a position is outside of the axis that it indexes")
    inside = (places >= block.start) & (places < block.start + block.length)
    inside = numpy.broadcast_to(inside, selection.spread)
    own = list(numpy.broadcast_arrays(*positions[:shared], places - block.start, *positions[shared + 1 :]))
    chosen = [array[inside] for array in own]
    part = g[(slice(None),) * selection.at + (inside,)]
    attributes = step.attributes | {"shape": out.shape}
    step.primitive.forward(numpy, *base, part, *chosen, out=out, **attributes)


def _sum(step: Instruction, block: Block, scratch: Scratch) -> Iterator[Call]:
    (x,), (out,) = block.inputs, block.outputs
    yield _sum_call(x, step.attributes["axis"], step.attributes["keepdims"], out)


def _partial_sum(step: PartialSum, block: Block, scratch: Scratch) -> Iterator[Call]:
    yield _sum_call(block.inputs[0], step.axis, True, block.outputs[0][0])


def _sum_call(x: numpy.ndarray, axis: tuple[int, ...], keepdims: bool, out: numpy.ndarray) -> Call:
    """Return a call that sums over axes: by BLAS where rows are added up, which NumPy does one by one."""
    columns = x.shape[-1] if x.ndim > 1 else 0
    if (
        axis == tuple(range(x.ndim - 1))
        and 0 < columns <= MAX_COLUMNS
        and x.size
        and x.dtype in GEMM_DTYPES
        and x.dtype == out.dtype
        and x.flags.c_contiguous
        and out.flags.c_contiguous
    ):
        rows = x.reshape(-1, columns)
        return matmul_call(_ones(len(rows), x.dtype), rows, out.reshape(1, columns), add=False)
    return partial(numpy.sum, x, axis=axis, keepdims=keepdims, out=out)


@functools.lru_cache(32)
def _ones(length: int, dtype: numpy.dtype) -> numpy.ndarray:
    return numpy.ones((1, length), dtype)


def _group(group: Group, block: Block, scratch: Scratch) -> Iterator[Call]:
    row_size = math.prod(group.shape) // max(block.partition.length if block.partition else 1, 1)
    row_bytes = max(1, row_size * max(member.output.dtype.itemsize for member in group.members))
    rows = max(1, BLOCK_BYTES // row_bytes)
    slots = _slots(group)
    for _, out in _sums(group, block):
        yield partial(out[0].fill, 0)
    for start in range(0, block.length, rows):
        part = block.part(slice(start, min(start + rows, block.length)))
        yield from _group_part(group, part, slots, scratch, _sums(group, block))


def _group_part(
    group: Group,
    part: Block,
    slots: dict[Value, int],
    scratch: Scratch,
    sums: list[tuple[PartialSum, numpy.ndarray]],
) -> Iterator[Call]:
    axis = part.partition.output_axis if part.partition is not None else None
    by_columns = axis == 1 and len(group.shape) == 2
    places = dict(zip(group.inputs, part.inputs, strict=True))
    places |= zip(group.outputs, part.outputs, strict=True)
    for member in group.members:
        output = member.output
        if output in slots:
            shape = part.shape(output.shape)
            places[output] = scratch.array(slots[output], shape, output.dtype, by_columns)
        inputs = [places[value] for value in member.inputs]
        yield partial(member.primitive.forward, numpy, *inputs, out=places[output], **member.attributes)
        for partial_sum, out in sums:
            if partial_sum.value is output:
                yield partial(_add_sum, places[output], partial_sum.axis, out[0])


def _sums(group: Group, block: Block) -> list[tuple[PartialSum, numpy.ndarray]]:
    """Return the sums on the side of a group, and where a thread has its own of each."""
    if not isinstance(group, OnePass):
        return []
    return list(zip(group.sums, block.outputs[-len(group.sums) :], strict=True))


def _add_sum(x: numpy.ndarray, axis: tuple[int, ...], out: numpy.ndarray) -> None:
    numpy.add(out, numpy.sum(x, axis=axis, keepdims=True), out=out)


def _slots(group: Group) -> dict[Value, int]:
    """Give each inner value of a group a slot of scratch memory, in place of a dying input if it may."""
    outside = set(group.outputs)
    last_read = {value: i for i, member in enumerate(group.members) for value in member.inputs}
    slots: dict[Value, int] = {}
    free: list[int] = []
    for i, member in enumerate(group.members):
        dying = [
            (index, value)
            for index, value in enumerate(member.inputs)
            if value in slots and last_read[value] == i
        ]
        output = member.output
        if output not in outside:
            allowed = member.primitive.may_alias
            reusable = [
                value
                for index, value in dying
                if (allowed is None or index in allowed)
                and (value.dtype, value.shape) == (output.dtype, output.shape)
                and all(index_ == index or other is not value for index_, other in enumerate(member.inputs))
            ]
            if reusable:
                slots[output] = slots[reusable[0]]
                dying = [(index, value) for index, value in dying if value is not reusable[0]]
            else:
                slots[output] = free.pop() if free else len(set(slots.values()))
        free += [slot for slot in {slots[value] for _, value in dying} if slot not in free]
    return slots


def _partial(step: Partial, block: Block, scratch: Scratch) -> Iterator[Call]:
    forward = step.whole.primitive.forward
    yield partial(forward, numpy, *block.inputs, out=block.outputs[0][0], **step.whole.attributes)


CALLS: dict[Operation, Callable[[Any, Block, Scratch], Iterator[Call]]] = {
    Gemm: _gemm,
    Group: _group,
    OnePass: _group,
    Rows: _group,
    PartialSum: _partial_sum,
    sum_: _sum,
    Partial: _partial,
    Copy: _copy,
    concatenate_: _moves,
    pad_: _moves,
    reshape_: _moves,
    scatter_add_: _scatter,
    add_at_: _add_at,
    BeginSum: _begin_sum,
    AdvanceSum: _advance_sum,
    EndSum: _end_sum,
}
