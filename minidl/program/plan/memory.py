"""Where results live: buffers by liveness, so that memory that is no longer read is used again."""

from __future__ import annotations

import bisect
import heapq
import weakref
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.layout import empty
from minidl.program.plan.schedule import ALL_THREADS, TaskSchedule, reads_of, writes_of
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
        """The bytes of the buffers that are used."""
        used: dict[int, int] = {}
        for allocation in self.allocations:
            used[allocation.buffer] = max(used.get(allocation.buffer, 0), allocation.value.nbytes)
        return sum(used.values())


@dataclass
class Lifetime:
    """When a value is first written and last read: (phase, position), and whether always row by row."""

    first: tuple[int, int]
    last: tuple[int, int]
    by_rows: bool = True


class Arena:
    """Buffers for programs of which only one runs at a time: those of one compiled function.

    What a program leaves in a buffer is not read any more when another one begins. A buffer lives as long as
    a program has it. ``scratch`` is for what an executor needs for a moment, by threads.

    From the second program on, buffers are larger than what is asked for, so that programs of slightly longer
    inputs fit, too. Memory that is never touched costs nothing.
    """

    def __init__(self) -> None:
        self.scratch: dict[int, Any] = {}
        self._buffers: list[weakref.ref[Array]] = []

    def buffer(self, nbytes: int, taken: list[Array]) -> Array:
        """Return a buffer of about this size that is not among those taken."""
        alive = [buffer for reference in self._buffers if (buffer := reference()) is not None]
        used = set(map(id, taken))
        fitting = [b for b in alive if nbytes <= b.nbytes <= 2 * nbytes + 4096 and id(b) not in used]
        if fitting:
            return min(fitting, key=lambda buffer: buffer.nbytes)
        is_second = len(alive) > len(taken)
        buffer = numpy.empty(max(nbytes * 5 // 4 if is_second else nbytes, 1), numpy.uint8)
        self._buffers = [*map(weakref.ref, alive), weakref.ref(buffer)]
        return buffer


def plan_memory(
    program: Program,
    schedule: TaskSchedule,
    aliases: Aliases,
    by_columns: set[Value],
    xp: Any = numpy,
    arena: Arena | None = None,
) -> MemoryPlan:
    """Give every value an array of the module ``xp``, in an arena if there is one.

    A buffer that is no longer read is used again from the next phase on; within a phase only where no thread
    can be ahead of another: with one thread, or if every thread reads and writes its own rows of it alone.
    """
    lifetimes = _lifetimes(program, schedule, aliases)
    roots = sorted(lifetimes, key=lambda value: lifetimes[value].first)
    arrays: dict[Value, Array] = {value: value.array for value in program.values() if value.array is not None}
    alive: list[tuple[tuple[int, int], int, Value, int]] = []  # a heap, by the moments of the last reads
    free = _FreeBuffers()
    buffers: list[Array] = []
    allocations: list[Allocation] = []
    for number, value in enumerate(roots):
        life = lifetimes[value]
        if value in schedule.in_place:
            arrays[value] = schedule.in_place[value].array
            continue
        if value.array is not None:  # it has a place of its own
            continue
        free.begin_phase(life.first[0])
        freed = []
        while alive and alive[0][0] < life.first:
            freed.append(heapq.heappop(alive)[1:])
        for _, other, index in sorted(freed, key=lambda item: item[0]):  # in the order of their first writes
            free.add(index, buffers[index].nbytes, lifetimes[other], _kind(other, by_columns))
        found = free.take(value.nbytes, _kind(value, by_columns) if life.by_rows else None)
        if found is None:
            found = len(buffers)
            buffers.append(
                xp.empty(max(value.nbytes, 1), numpy.uint8)
                if arena is None
                else arena.buffer(value.nbytes, buffers)
            )
        heapq.heappush(alive, (life.last, number, value, found))
        allocations.append(Allocation(value, found, life.first[1], life.last[1]))
        arrays[value] = empty(value, buffers[found], by_columns=value in by_columns)
    for value, place in aliases.places.items():
        arrays[value] = place.array(arrays)
    for step in program.steps:
        if aliases.is_view[id(step)] and step.outputs[0] not in aliases.wholes:
            arrays |= step.evaluate(xp, arrays)
    return MemoryPlan(arrays, buffers, allocations, unplanned_bytes(program))


def unplanned_bytes(program: Program) -> int:
    """Return the bytes of all results of a program, if each had a buffer of its own."""
    return sum(value.nbytes for value in program.values() if value.kind == "result" and value.array is None)


_Kind = tuple[Any, ...]


def _kind(value: Value, by_columns: set[Value]) -> _Kind:
    """Return what two values have in common of which each thread has the same part of a buffer."""
    shape = value.shape[::-1] if value in by_columns else value.shape
    return next((length for length in shape if length != 1), 1), value.nbytes


class _FreeBuffers:
    """Buffers that are no longer read, by their sizes, those that became free first at the front.

    One that was read in this phase may only be taken by a value of the same kind, and if each thread keeps to
    its rows.
    """

    def __init__(self) -> None:
        self.phase = -1
        self.count = 0
        self.sizes: list[int] = []  # all sizes that ever were free, sorted
        self.settled: dict[int, list[tuple[int, int]]] = {}  # by size: heaps of (when it became free, buffer)
        self.recent: dict[tuple[int, _Kind | None], list[tuple[int, int]]] = {}  # by size and kind

    def begin_phase(self, phase: int) -> None:
        """Note that all threads have come to a phase."""
        if phase > self.phase:
            self.phase = phase
            for (size, _), buffers in self.recent.items():
                for item in buffers:
                    heapq.heappush(self.settled[size], item)
            self.recent = {}

    def add(self, buffer: int, size: int, life: Lifetime, kind: _Kind) -> None:
        """Add a buffer, in which a value lay."""
        if size not in self.settled:
            bisect.insort(self.sizes, size)
            self.settled[size] = []
        settled = life.last[0] < self.phase
        key = (size, kind if life.by_rows else None)
        heapq.heappush(
            self.settled[size] if settled else self.recent.setdefault(key, []), (self.count, buffer)
        )
        self.count += 1

    def take(self, nbytes: int, kind: _Kind | None) -> int | None:
        """Take the smallest buffer that will do and is not much too large, or None."""
        for size in self.sizes[bisect.bisect_left(self.sizes, nbytes) :]:
            if size > 2 * nbytes + 4096:
                return None
            recent = self.recent.get((size, kind), []) if kind is not None else []
            candidates = [heap for heap in (self.settled[size], recent) if heap]
            if candidates:
                return heapq.heappop(min(candidates))[1]
        return None


def _lifetimes(program: Program, schedule: TaskSchedule, aliases: Aliases) -> dict[Value, Lifetime]:
    lifetimes: dict[Value, Lifetime] = {}
    position = 0
    for number, phase in enumerate(schedule.phases):
        for scheduled in phase:
            position += 1
            moment = (position if schedule.one_by_one else number, position)
            for root, own_rows in writes_of(scheduled.task, aliases, schedule.threads):
                life = lifetimes.setdefault(root, Lifetime(moment, moment))
                life.last = moment
                life.by_rows = life.by_rows and scheduled.owner == ALL_THREADS and own_rows
            for root, own_rows in reads_of(scheduled.task, aliases, schedule.threads):
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
