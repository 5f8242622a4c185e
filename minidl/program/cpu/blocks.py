"""One thread's block of a step: the parts of arrays that it reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.primitives.shape import reshape_
from minidl.program.expressions import Unsupported
from minidl.program.plan.partition import Arrays, Partition, block, partition_of
from minidl.program.plan.placement import is_placement, pieces, placements
from minidl.program.plan.tasks import Task
from minidl.program.program import Instruction, share


@dataclass(frozen=True)
class Block:
    """What one thread computes of a step.

    Attributes
    ----------
    inputs : for each input of the step the part of its array that the thread reads
    outputs : for each value that the step writes the part that the thread writes
    length : how long the block is along the axis of the partition; 1 if the step is not shared
    partition : how the step is shared, or could be, among threads
    start : where the block begins along that axis
    """

    inputs: Sequence[numpy.ndarray]
    outputs: Sequence[numpy.ndarray]
    length: int
    partition: Partition | None
    start: int = 0

    @property
    def axis(self) -> int | None:
        """The axis of the outputs along which this is a block; None if the step is not shared."""
        return self.partition.output_axis if self.partition is not None else None

    def part(self, rows: slice) -> Block:
        """Return a part of this block, for steps whose inputs and outputs have the same rows."""
        if self.partition is None:
            return self
        axes, axis = self.partition.input_axes, self.partition.output_axis
        return Block(
            [block(array, own, rows) for array, own in zip(self.inputs, axes, strict=True)],
            [block(array, axis, rows) for array in self.outputs],
            rows.stop - rows.start,
            self.partition,
            self.start + rows.start,
        )

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the block of a result that has this shape as a whole."""
        if self.partition is None:
            return whole
        axis = self.partition.output_axis
        return (*whole[:axis], self.length, *whole[axis + 1 :])


def block_of(task: Task, arrays: Arrays, index: int, parts: int) -> Block:
    """Return the block of a step that belongs to one of several threads."""
    partition = partition_of(task, arrays)
    inputs, outputs = [arrays[value] for value in task.inputs], [arrays[value] for value in task.writes]
    if partition is None:
        return Block(inputs, outputs, 1, None)
    axis, own = partition.output_axis, share(partition.length, index, parts)
    # A value that is read twice is one array for the primitive, too.
    blocks = {
        (value, of): block(arrays[value], of, own)
        for value, of in zip(task.inputs, partition.input_axes, strict=True)
    }
    return Block(
        [blocks[key] for key in zip(task.inputs, partition.input_axes, strict=True)],
        [block(array, axis, share(array.shape[axis], index, parts)) for array in outputs],
        own.stop - own.start,
        partition,
        own.start,
    )


def moves_of(step: Instruction, block: Block) -> Iterator[tuple[numpy.ndarray, Any]]:
    """Yield the parts of a block of a step that moves elements, each with the array or number put there.

    Raises
    ------
    Unsupported
        It does not only move them, or its parts are no arrays.
    """
    (out,) = block.outputs
    if step.operation is reshape_:
        yield from _reshaped(block.inputs[0], out, block.start * (out.size // max(block.length, 1)))
    elif is_placement(step):
        yield from placements(step, block.inputs, out, block.axis, block.start)
    else:
        raise Unsupported(step.name)


def _reshaped(
    x: numpy.ndarray, out: numpy.ndarray, start: int
) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """Yield parts of an array whose elements are those of x from ``start`` on, and these parts of x."""
    if not out.flags.c_contiguous:
        raise Unsupported("a reshape into strided memory")
    flat, first = out.reshape(-1), 0
    for piece in pieces(x, start, start + out.size):
        yield flat[first : first + piece.size].reshape(piece.shape), piece
        first += piece.size
