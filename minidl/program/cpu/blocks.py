"""One thread's block of a step: the parts of arrays that it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from minidl.program.plan.partition import Arrays, Partition, block, partition_of
from minidl.program.plan.tasks import Task
from minidl.program.program import share


@dataclass(frozen=True)
class Block:
    """What one thread computes of a step.

    Attributes
    ----------
    inputs : for each input of the step the part of its array that the thread reads
    outputs : for each value that the step writes the part that the thread writes
    length : how long the block is along the axis of the partition; 1 if the step is not shared
    partition : how the step is shared, or could be, among threads
    """

    inputs: Sequence[numpy.ndarray]
    outputs: Sequence[numpy.ndarray]
    length: int
    partition: Partition | None

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
    return Block(
        [block(array, of, own) for array, of in zip(inputs, partition.input_axes, strict=True)],
        [block(array, axis, share(array.shape[axis], index, parts)) for array in outputs],
        own.stop - own.start,
        partition,
    )
