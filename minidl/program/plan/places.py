"""Results that are computed in the memory of others, where they are needed next.

What is put together, as the steps of a sequence or the gates of a cell, is computed side by side, so that
nothing is copied. An elementwise result lies where one of its inputs lay, if nobody reads that any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.shape import concatenate_, reshape_
from minidl.program.lowered.add_at import add_at_
from minidl.program.plan.aliases import Aliases, Place
from minidl.program.plan.partition import partition_of
from minidl.program.plan.placement import boxes_of
from minidl.program.plan.rows import Stages
from minidl.program.plan.strides import broadcast_strides
from minidl.program.program import Gemm, Group, Instruction, OnePass, Operation, Program, Rows, Step, Value

#: The steps that write to strided memory as fast as to any other.
MAKERS: tuple[Operation, ...] = (Group, Rows, Gemm, matmul_, concatenate_)


def share_memory(program: Program, aliases: Aliases, threads: int) -> None:
    """Let results of a program lie in the memory of others, and tell its aliases."""
    _Parts(program, aliases, threads).place()
    aliases.find_sources()
    _take_over(program, aliases)


# --- what is put together -------------------------------------------------------------------------


class _Parts:
    """Finds the parts that a step puts together, and lets them be computed where they belong."""

    def __init__(self, program: Program, aliases: Aliases, threads: int):
        self.program, self.aliases, self.threads = program, aliases, threads
        self.needed = {aliases.root[value] for value in program.results_needed}
        self.maker = {value: step for step in program.steps for value in step.outputs}

    def place(self) -> None:
        """Place parts, those of the last whole first: one of them may be a whole itself."""
        for step in reversed(self.program.steps):
            puts_together = isinstance(step, Instruction) and step.primitive in (concatenate_, reshape_)
            if puts_together and not self.aliases.is_view[id(step)] and step.outputs[0].size:
                self._place(step)

    def _place(self, step: Step) -> None:
        """Let all parts of a whole lie in it, or none."""
        moved: list[Value] = []
        for place in self._places(step):
            root = self.aliases.root[place.value]
            if not self._may_move(root, place) or not self.aliases.move(root, place):
                break
            moved.append(root)
            if not self._threads_keep_apart(root):
                break
        else:
            self.aliases.is_view[id(step)] = True
            self.aliases.wholes |= {*step.outputs}
            return
        for root in moved:
            self.aliases.move_back(root)

    def _places(self, step: Step) -> Iterator[Place]:
        """Yield the place of each input of a step in its result."""
        (whole,) = step.outputs
        if step.operation is reshape_:
            keys: list[tuple[Any, ...]] = [(...,)]
        else:
            assert isinstance(step, Instruction)
            keys = [tuple(slice(r.start, r.stop) for r in box.ranges) for box in boxes_of(step)]
        for value, key in zip(step.inputs, keys, strict=True):
            yield Place(whole, key, value, tuple(self._way(value)))

    def _way(self, value: Value) -> Iterator[Instruction]:
        """Yield the views that lead from a value back to its memory."""
        while value is not self.aliases.root[value] and value not in self.aliases.places:
            step = self.maker[value]
            assert isinstance(step, Instruction)
            yield step
            (value,) = step.inputs

    def _may_move(self, root: Value, place: Place) -> bool:
        result = place.way[-1].inputs[0] if place.way else place.value
        return (
            result is root  # and no part of something else
            and root in self.maker
            and self.maker[root].operation in MAKERS
            and root.array is None
            and root not in self.needed
            and root.dtype == place.whole.dtype
            and root.size == place.value.size
            and self.aliases.array[root].flags.c_contiguous
            and self.aliases.root[place.whole] is not root
        )

    def _threads_keep_apart(self, value: Value) -> bool:
        """Return whether each thread writes within its block of the memory in which a result lies."""
        partition = partition_of(self.maker[value], self.aliases.array)
        return partition is None or self.aliases.same_block(value, partition.output_axis, self.threads)


# --- what lies where an input lay -----------------------------------------------------------------


def _take_over(program: Program, aliases: Aliases) -> None:
    """Let elementwise results, and what is added to, lie where an input lay that nothing reads any more."""
    readers: dict[Value, list[Step]] = {}  # in the order of the program
    for step in program.steps:
        if not aliases.is_view[id(step)]:
            for source in {source for value in step.inputs for source in aliases.sources[value]}:
                readers.setdefault(source, []).append(step)
    results = set(program.results_needed)
    needed = {source for value in results for source in aliases.sources[value]}
    for step in program.steps:
        taken: set[Value] = set()
        for value, candidates in _candidates(step, aliases):
            if value in results or value.array is not None or value in aliases.places:
                continue
            for old in candidates:
                is_free = (
                    aliases.sources[old] == (old,)
                    and old.kind == "result"
                    and old.array is None
                    and old not in needed
                    and old not in taken
                    and readers[old][-1] is step
                )
                if is_free and _is_alike(aliases.array[old], aliases.array[value]):
                    taken.add(old)
                    aliases.take_over(value, old)
                    aliases.waits.setdefault(id(step), []).extend(readers[old][:-1])
                    break


def _is_alike(array: numpy.ndarray, other: numpy.ndarray) -> bool:
    return (array.shape, array.dtype, array.strides) == (other.shape, other.dtype, other.strides)


def _candidates(step: Step, aliases: Aliases) -> Iterator[tuple[Value, list[Value]]]:
    """Yield results of a step, each with the inputs in whose place it may be computed."""
    if isinstance(step, OnePass):
        return  # its sums and windows read other elements than the one that is written
    if isinstance(step, Group):
        stages = None
        if isinstance(step, Rows):
            arrays = ((value, aliases.array[value]) for value in step.inputs)
            stages = Stages(step, [v for v, array in arrays if broadcast_strides(array, step.shape)[-1]])
        for value in step.outputs:
            if value.shape == step.shape:
                read = [old for old in step.inputs if writes_after_reading(step, old, value, aliases)]
                yield value, [old for old in read if stages is None or _is_read_before(stages, old, value)]
    elif step.operation is add_at_:
        yield step.outputs[0], [step.inputs[0]]


def writes_after_reading(group: Group, old: Value, new: Value, aliases: Aliases) -> bool:
    """Return whether the members that read a value come before one writes another, and read the same rows.

    So does NumPy, which computes member by member; generated C reads all of an element before it writes.
    """
    written = False
    for member in group.members:
        for read in member.inputs:
            if aliases.root.get(read) is aliases.root[old] and (written or read is not old):
                return False
        written = written or member.output is new
        if member.output is new:
            for index, read in enumerate(member.inputs):
                allowed = member.primitive.may_alias
                if read is old and not (allowed is None or index in allowed):
                    return False
    return old.shape == new.shape and old.dtype == new.dtype


def _is_read_before(stages: Stages, old: Value, new: Value) -> bool:
    """Return whether no later stage of a row reads a value than the one that writes another."""
    first = next(stage for stage in stages if stage in stages.needed[new])
    return not any(stages.reads(old, stage) for stage in stages if stage > first)
