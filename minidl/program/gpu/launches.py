"""The plan of a program for a GPU: which steps go into one launch of a kernel.

On a large GPU a step of training is bound by the number of launches, not by arithmetic. So steps for which
kernels are generated wait as long as they can, and those that then do not need each other start together:
the sums of all bias gradients, or the updates of all parameters, are one launch each.

What has neither generated kernels (kernels/lowering.py) nor a call of cuBLAS (calls.py) is left to CuPy, and
splits the CUDA graph of a step in two: matrix products of integers, or of anything where cuBLAS is not found;
inverses and other linear algebra; primitives of users without an expression; complex numbers; sorting along
axes of many elements; indexing whose result CuPy shapes otherwise than NumPy, or by many positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minidl.program.gpu.kernels.lowering import has_kernels
from minidl.program.gpu.kernels.source import Kernel
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.schedule import ScheduledTask, TaskSchedule
from minidl.program.plan.tasks import Advance, Task
from minidl.program.program import Value
from minidl.random.generator import Generator

#: About how many arrays the steps of one launch have at most. Where that is too much for CUDA after all,
#: because many steps read the same ones, the executor makes it several launches.
MAX_ARRAYS = 400


@dataclass(eq=False)
class Launch:
    """One launch of generated kernels, or one call of a library.

    ``captured`` says whether a CUDA graph can hold it.
    """

    tasks: list[Task]
    run: Callable[[], Any] = lambda: None
    captured: bool = False
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The names of its steps."""
        return "; ".join(task.name for task in self.tasks)


@dataclass(eq=False)
class _PlannedLaunch:
    """Steps that do not need each other, and the memory (or random stream) they read and write."""

    tasks: list[Task]
    reads: set[Value | Generator] = field(default_factory=set)
    writes: set[Value | Generator] = field(default_factory=set)

    def conflicts(self, other: _PlannedLaunch) -> bool:
        """Return whether the order of two launches matters."""
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)

    def join(self, other: _PlannedLaunch) -> None:
        """Take in the steps of a launch, which come first."""
        self.tasks = other.tasks + self.tasks
        self.reads |= other.reads
        self.writes |= other.writes

    def takes(self, other: _PlannedLaunch) -> bool:
        """Return whether the steps of another launch may become part of this one."""
        arrays = len(self.reads) + len(self.writes) + len(other.reads) + len(other.writes)
        return arrays <= MAX_ARRAYS and all(map(has_kernels, self.tasks + other.tasks))


def places_of_draws(tasks: Sequence[Task]) -> tuple[dict[int, int], dict[Generator, int]]:
    """Return where in its stream each random step (by ``id``) begins, and how far each stream comes."""
    places: dict[int, int] = {}
    counts: dict[Generator, int] = {}
    for task in tasks:
        if task.generator is not None:
            places[id(task)] = counts.get(task.generator, 0)
            counts[task.generator] = places[id(task)] + sum(value.size for value in task.outputs)
    return places, counts


def by_launches(order: TaskSchedule, aliases: Aliases) -> TaskSchedule:
    """Return a schedule in which each phase is one launch, from one in which steps come one by one."""
    tasks = [scheduled.task for phase in order.phases for scheduled in phase]
    launches = [_launch_of(task, order, aliases) for task in tasks]
    for generator, count in places_of_draws(tasks)[1].items():
        launches.append(_PlannedLaunch([Advance(generator, count)], writes={generator}))
    backwards: list[_PlannedLaunch] = []  # from the last launch to the first
    for launch in reversed(launches):
        latest = None
        for other in reversed(backwards):
            if launch.conflicts(other):
                break
            if other.takes(launch):
                latest = other
        if latest is not None:
            latest.join(launch)
        else:
            backwards.append(launch)
    phases = [[ScheduledTask(task, 0) for task in launch.tasks] for launch in reversed(backwards)]
    return TaskSchedule(phases, order.in_place)


def _launch_of(task: Task, order: TaskSchedule, aliases: Aliases) -> _PlannedLaunch:
    """Return the launch of a single step, before others join it."""
    roots = [aliases.root[value] for value in task.inputs]
    launch = _PlannedLaunch([task])
    launch.reads |= {order.in_place.get(root, root) for root in roots}
    launch.reads |= {task.generator} if task.generator is not None else set()
    launch.writes |= {order.in_place.get(value, value) for value in task.writes}
    return launch
