"""Where results live: buffers by liveness, so that memory that is no longer read is used again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.layout import empty
from minidl.program.program import Program, Value
from minidl.program.schedule import EVERYONE, Aliases, Schedule, reads_of


@dataclass
class Tenant:
    """One value's stay in a buffer, from its first to its last position in the order of steps."""

    value: Value
    buffer: int
    first: int
    last: int


@dataclass
class MemoryPlan:
    """The arrays of all values, the buffers they lie in, and how much memory the plan saves.

    ``unplanned`` is what the results would take, in bytes, if each had a buffer of its own.
    """

    arrays: dict[Value, Array]
    buffers: list[Array]
    tenants: list[Tenant]
    unplanned: int

    @property
    def planned(self) -> int:
        """The bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)


@dataclass
class _Life:
    """When a value is first written and last read: (phase, position), and whether always row by row."""

    first: tuple[int, int]
    last: tuple[int, int]
    by_rows: bool = True


def plan_memory(
    program: Program, schedule: Schedule, aliases: Aliases, by_columns: set[Value], xp: Any = numpy
) -> MemoryPlan:
    """Give every value an array of the module ``xp``.

    A dead buffer is used again from the next phase on; within a phase only where no thread can be
    ahead of another: with one thread, or if every thread touched just its own rows of it and will
    do so again.
    """
    lives = _lives(program, schedule, aliases)
    roots = sorted(lives, key=lambda value: lives[value].first)
    arrays: dict[Value, Array] = {value: value.array for value in program.values() if value.array is not None}
    free: list[tuple[Value, Array]] = []
    alive: list[tuple[Value, Array]] = []
    buffers: list[Array] = []
    tenants: list[Tenant] = []
    for value in roots:
        life = lives[value]
        if value in schedule.in_place:
            arrays[value] = schedule.in_place[value].array
            continue
        for other in [other for other in alive if lives[other[0]].last < life.first]:
            alive.remove(other)
            free.append(other)
        fitting = [
            (buffer.nbytes, index)
            for index, (other, buffer) in enumerate(free)
            if buffer.nbytes >= value.nbytes
            and _may_follow(value, life, other, lives[other], (value in by_columns) == (other in by_columns))
        ]
        if fitting and min(fitting)[0] <= 2 * value.nbytes + 4096:
            buffer = free.pop(min(fitting)[1])[1]
        else:
            buffer = xp.empty(max(value.nbytes, 1), numpy.uint8)
            buffers.append(buffer)
        alive.append((value, buffer))
        index = next(i for i, known in enumerate(buffers) if known is buffer)
        tenants.append(Tenant(value, index, life.first[1], life.last[1]))
        arrays[value] = empty(value, buffer, by_columns=value in by_columns)
    for step in program.steps:
        if aliases.is_view[id(step)]:
            (source,) = step.inputs
            arrays[step.outputs[0]] = step.primitive.forward(  # type: ignore[union-attr]
                xp,
                arrays[source],
                **step.attributes,  # type: ignore[union-attr]
            )
    return MemoryPlan(arrays, buffers, tenants, unplanned_bytes(program))


def unplanned_bytes(program: Program) -> int:
    """Return the bytes of all results of a program, if each had a buffer of its own."""
    return sum(value.nbytes for value in program.values() if value.kind == "result" and value.array is None)


def _may_follow(value: Value, life: _Life, other: Value, other_life: _Life, same_order: bool) -> bool:
    if other_life.last[0] < life.first[0]:
        return True
    return (
        same_order
        and life.by_rows
        and other_life.by_rows
        and value.shape == other.shape
        and value.dtype == other.dtype
    )


def _lives(program: Program, schedule: Schedule, aliases: Aliases) -> dict[Value, _Life]:
    lives: dict[Value, _Life] = {}
    position = 0
    for number, phase in enumerate(schedule.phases):
        for turn in phase:
            position += 1
            moment = (position if schedule.one_by_one else number, position)
            for value in turn.task.outputs:
                lives[value] = _Life(moment, moment, turn.owner == EVERYONE)
            for root, own_rows in reads_of(turn.task, aliases):
                if root in lives:
                    lives[root].last = moment
                    lives[root].by_rows = lives[root].by_rows and turn.owner == EVERYONE and own_rows
    end = (position + 1, position + 1)
    for value in program.results_needed:
        root = aliases.root[value]
        if root in lives:
            lives[root].last = end
    return lives
