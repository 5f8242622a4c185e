"""Where results live: buffers by liveness, so that memory that is no longer read is used again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.layout import empty
from minidl.program.plan.schedule import ALL_THREADS, TaskSchedule, reads_of
from minidl.program.program import Program, Value


@dataclass
class Allocation:
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
    allocations: list[Allocation]
    unplanned: int

    @property
    def planned(self) -> int:
        """The bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)


@dataclass
class Lifetime:
    """When a value is first written and last read: (phase, position), and whether always row by row."""

    first: tuple[int, int]
    last: tuple[int, int]
    by_rows: bool = True


def plan_memory(
    program: Program, schedule: TaskSchedule, aliases: Aliases, by_columns: set[Value], xp: Any = numpy
) -> MemoryPlan:
    """Give every value an array of the module ``xp``.

    A buffer that is no longer read is used again from the next phase on; within a phase only where no thread
    can be ahead of another: with one thread, or if every thread reads and writes its own rows of it alone.
    """
    lifetimes = _lifetimes(program, schedule, aliases)
    roots = sorted(lifetimes, key=lambda value: lifetimes[value].first)
    arrays: dict[Value, Array] = {value: value.array for value in program.values() if value.array is not None}
    free: list[tuple[Value, Array]] = []
    alive: list[tuple[Value, Array]] = []
    buffers: list[Array] = []
    allocations: list[Allocation] = []
    for value in roots:
        life = lifetimes[value]
        if value in schedule.in_place:
            arrays[value] = schedule.in_place[value].array
            continue
        for other in [other for other in alive if lifetimes[other[0]].last < life.first]:
            alive.remove(other)
            free.append(other)
        fitting = [
            (buffer.nbytes, index)
            for index, (other, buffer) in enumerate(free)
            if buffer.nbytes >= value.nbytes
            and _may_follow(
                value, life, other, lifetimes[other], (value in by_columns) == (other in by_columns)
            )
        ]
        if fitting and min(fitting)[0] <= 2 * value.nbytes + 4096:
            buffer = free.pop(min(fitting)[1])[1]
        else:
            buffer = xp.empty(max(value.nbytes, 1), numpy.uint8)
            buffers.append(buffer)
        alive.append((value, buffer))
        index = next(i for i, known in enumerate(buffers) if known is buffer)
        allocations.append(Allocation(value, index, life.first[1], life.last[1]))
        arrays[value] = empty(value, buffer, by_columns=value in by_columns)
    for step in program.steps:
        if aliases.is_view[id(step)]:
            arrays |= step.evaluate(xp, arrays)
    return MemoryPlan(arrays, buffers, allocations, unplanned_bytes(program))


def unplanned_bytes(program: Program) -> int:
    """Return the bytes of all results of a program, if each had a buffer of its own."""
    return sum(value.nbytes for value in program.values() if value.kind == "result" and value.array is None)


def _may_follow(value: Value, life: Lifetime, other: Value, other_life: Lifetime, same_order: bool) -> bool:
    if other_life.last[0] < life.first[0]:
        return True
    return (
        same_order
        and life.by_rows
        and other_life.by_rows
        and value.shape == other.shape
        and value.dtype == other.dtype
    )


def _lifetimes(program: Program, schedule: TaskSchedule, aliases: Aliases) -> dict[Value, Lifetime]:
    lifetimes: dict[Value, Lifetime] = {}
    position = 0
    for number, phase in enumerate(schedule.phases):
        for scheduled in phase:
            position += 1
            moment = (position if schedule.one_by_one else number, position)
            for value in scheduled.task.outputs:
                lifetimes[value] = Lifetime(moment, moment, scheduled.owner == ALL_THREADS)
            for root, own_rows in reads_of(scheduled.task, aliases):
                if root in lifetimes:
                    lifetimes[root].last = moment
                    lifetimes[root].by_rows = (
                        lifetimes[root].by_rows and scheduled.owner == ALL_THREADS and own_rows
                    )
    end = (position + 1, position + 1)
    for value in program.results_needed:
        root = aliases.root[value]
        if root in lifetimes:
            lifetimes[root].last = end
    return lifetimes
