"""The plan of a program for several threads: which rows each computes, and where barriers are needed.

All threads walk through the same steps, each computing its own block of rows (or, of a matrix stored by
columns, of columns). A block of rows of an elementwise result needs only the same block of its inputs,
and a block of rows of ``a @ b`` needs that block of ``a`` and all of ``b``. So a thread can go on alone
until a step needs what the others have computed: stored by rows, forward and backward of its part of
the batch need no barrier at all, and after one barrier, weight gradients and their updates are shared
by the rows of the weights. Steps too small to be shared belong to one thread.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from minidl.program.costs import work
from minidl.program.lowered.check import check_
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.partition import MIN_SHARED_WORK, Partition, partition_of
from minidl.program.plan.places import writes_after_reading
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import Group, Program, Value

ALL_THREADS = -1


@dataclass(eq=False)
class ScheduledTask:
    """One step in the plan: ``owner`` is the thread that runs it, or ALL_THREADS for a block each."""

    task: Task
    owner: int


@dataclass(eq=False)
class TaskSchedule:
    """The tasks of each phase, with a barrier after it, and which updates happen in place.

    ``one_by_one`` says that the tasks of a phase, too, come one after another; ``threads`` is their number.
    """

    phases: list[list[ScheduledTask]] = field(default_factory=list)
    in_place: dict[Value, Value] = field(default_factory=dict)  # new value -> the state it replaces
    one_by_one: bool = False
    threads: int = 1


def schedule(program: Program, threads: int, aliases: Aliases) -> TaskSchedule:
    """Plan a program: choose in-place updates, then put the steps in phases between barriers."""
    return _Planner(program, threads, aliases).plan()


class _Planner:
    def __init__(self, program: Program, threads: int, aliases: Aliases):
        self.program, self.threads, self.aliases = program, threads, aliases
        self.tasks: list[Task] = [step for step in program.steps if not aliases.is_view[id(step)]]
        self.producer: dict[Value, Task] = {v: t for t in self.tasks for v in t.outputs}
        self.readers: dict[Value, list[Task]] = {}
        for task in self.tasks:
            for value in task.inputs:
                self.readers.setdefault(aliases.root[value], []).append(task)
        self.after: dict[int, dict[int, Task]] = {}  # which tasks wait for a task
        self.missing: dict[int, int] = {}  # how many tasks, not planned yet, a task waits for
        for task in self.tasks:
            self._let_wait(task, self._producers(task))
            self._let_wait(task, aliases.waits.get(id(task), ()))
        self.checks = [task for task in self.tasks if task.operation is check_]  # nothing is updated before
        ordered = [task for task in self.tasks if task.is_ordered]
        for earlier, later in itertools.pairwise(ordered):
            self._let_wait(later, [earlier])
        self.result = TaskSchedule(threads=threads)
        # What happened to each piece of memory since the last barrier: which threads wrote and read it.
        self.written: dict[Value, set[int]] = {}
        self.read: dict[Value, set[int]] = {}
        self.load = [0.0] * threads

    def _producers(self, task: Task) -> list[Task]:
        sources = (source for value in task.inputs for source in self.aliases.sources[value])
        return [self.producer[source] for source in sources if source in self.producer]

    def _let_wait(self, task: Task, others: Iterable[Task]) -> None:
        """Note that a task must come after others."""
        for other in others:
            waiting = self.after.setdefault(id(other), {})
            if id(task) not in waiting:
                waiting[id(task)] = task
                self.missing[id(task)] = self.missing.get(id(task), 0) + 1

    def plan(self) -> TaskSchedule:
        for state, value in self.program.updates.items():
            self._plan_update(state, value)
        position = {id(task): i for i, task in enumerate(self.tasks)}
        ready = [i for i, task in enumerate(self.tasks) if not self.missing.get(id(task))]
        while ready:
            ready = self._plan_phase(ready, position)
        assert not any(self.missing.values()), "the steps of the program wait for each other"
        self.result.one_by_one = all(task.owner == 0 for phase in self.result.phases for task in phase)
        return self.result

    def _plan_phase(self, ready: list[int], position: dict[int, int]) -> list[int]:
        """Plan what can run before the next barrier; return which tasks are ready and cannot.

        Tasks are taken in the order of the program, again and again from its beginning. One that cannot run
        now cannot until the next phase, for what was written and read meanwhile only becomes more.
        """
        phase: list[ScheduledTask] = []
        blocked: list[int] = []
        while ready:
            heapq.heapify(ready)
            next_round: list[int] = []
            while ready:
                here = heapq.heappop(ready)
                task = self.tasks[here]
                owner = self._owner(task)
                if owner is None:
                    blocked.append(here)
                    continue
                self._note(task, owner)
                phase.append(ScheduledTask(task, owner))
                for other in self.after.get(id(task), ()):
                    self.missing[other] -= 1
                    if not self.missing[other] and position[other] > here:
                        heapq.heappush(ready, position[other])
                    elif not self.missing[other]:
                        next_round.append(position[other])
            ready = next_round
        assert phase, "no task can run, though nothing has run since the last barrier"
        self.result.phases.append(phase)
        self.written, self.read, self.load = {}, {}, [0.0] * self.threads
        return blocked

    # --- updates ----------------------------------------------------------------------------------

    def _plan_update(self, state: Value, value: Value) -> None:
        writer = self.producer.get(value)
        others = [task for task in (*self.readers.get(state, []), *self.checks) if task is not writer]
        if (
            writer is not None
            and writer.operation is Group  # not Rows, whose members read again what others have written
            and isinstance(writer, Group)
            and value not in self.result.in_place
            and state.array.flags.c_contiguous
            and writes_after_reading(writer, state, value, self.aliases)
            and not self._wait(others, writer)
        ):
            self.result.in_place[value] = state
            self._let_wait(writer, others)
            return
        copy = Copy(state, value)
        self._let_wait(copy, [*self._producers(copy), *self.readers.get(state, []), *self.checks])
        self.tasks.append(copy)

    def _wait(self, tasks: list[Task], writer: Task) -> bool:
        """Return whether some of the tasks wait for one that computes a new state, behind which few come."""
        sought = set(map(id, tasks))
        waiting, seen = [id(writer)], set()
        while waiting:
            current = waiting.pop()
            if current in sought:
                return True
            if current not in seen:
                seen.add(current)
                waiting.extend(self.after.get(current, ()))
        return False

    # --- what can run without a barrier -----------------------------------------------------------

    def _owner(self, task: Task) -> int | None:
        """Return the thread that can run a step now, ALL_THREADS for a block each, or None for neither."""
        partition = partition_of(task, self.aliases.array)
        reads, writes = list(self._reads(task)), list(self._writes(task))
        if self._is_shared(task, partition):
            for root, aligned in reads:
                if root in self.written and not (aligned and self.written[root] == {ALL_THREADS}):
                    return None
            for root, aligned in writes:
                if root in self.read and not (aligned and self.read[root] == {ALL_THREADS}):
                    return None
            return ALL_THREADS
        owners = {owner for root, _ in reads for owner in self.written.get(root, ())}
        owners |= {reader for root, _ in writes for reader in self.read.get(root, set())}
        owners |= {0} if task.is_ordered else set()  # one thread draws, in the order of the program
        if not owners:
            return min(range(self.threads), key=lambda thread: self.load[thread])
        if len(owners) == 1 and owners != {ALL_THREADS}:
            return owners.pop()
        return None if self.threads > 1 else 0

    def _is_shared(self, task: Task, partition: Partition | None) -> bool:
        return (
            self.threads > 1
            and partition is not None
            and partition.length >= 2 * self.threads
            and work(task) >= MIN_SHARED_WORK
        )

    def _note(self, task: Task, owner: int) -> None:
        for places, places_of in ((self._reads(task), self.read), (self._writes(task), self.written)):
            for root, aligned in places:
                # What threads read or write beyond their own rows, others must wait for: as if each thread
                # had read or written all of it for itself.
                alone = owner != ALL_THREADS or aligned
                places_of.setdefault(root, set()).update({owner} if alone else range(self.threads))
        if owner != ALL_THREADS:
            self.load[owner] += work(task)

    def _reads(self, task: Task) -> Iterable[tuple[Value, bool]]:
        for root, aligned in reads_of(task, self.aliases, self.threads):
            yield self.result.in_place.get(root, root), aligned

    def _writes(self, task: Task) -> Iterable[tuple[Value, bool]]:
        for root, aligned in writes_of(task, self.aliases, self.threads):
            yield self.result.in_place.get(root, root), aligned


def reads_of(task: Task, aliases: Aliases, threads: int) -> Iterator[tuple[Value, bool]]:
    """Yield the memory a step reads, and whether each thread reads just its own block of it."""
    partition = partition_of(task, aliases.array)
    axes = partition.input_axes if partition is not None else (None,) * len(task.inputs)
    for value, axis in zip(task.inputs, axes, strict=True):
        yield aliases.root[value], axis is not None and aliases.same_block(value, axis, threads)


def writes_of(task: Task, aliases: Aliases, threads: int) -> Iterator[tuple[Value, bool]]:
    """Yield the memory a step writes, and whether each thread writes just its own block of it."""
    partition = partition_of(task, aliases.array)
    for value in task.writes:
        aligned = partition is not None and aliases.same_block(value, partition.output_axis, threads)
        yield aliases.root[value], aligned
