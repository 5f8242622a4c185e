"""The plan of a program for a GPU: which steps go into one launch of a kernel.

On a large GPU a step of training is bound by the number of launches, not by arithmetic. So steps for which
kernels are generated wait as long as they can, and those that then do not need each other start together:
the sums of all bias gradients, or the updates of all parameters, are one launch each.

What can neither be generated nor done by cuBLAS is left to CuPy, and cuts the CUDA graph of a step in two:
matrix products of whole numbers, or of anything where cuBLAS is not found; primitives of users without a
CUDA expression; complex numbers; indexing whose result CuPy shapes otherwise than NumPy, or by 2**30
positions and more. `cuda_steps.LOWERINGS` has the primitives with kernels, beside elementwise ones and draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minidl.program.gpu.kernels.lowering import LOWERINGS
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.schedule import Schedule, ScheduledTask
from minidl.program.plan.tasks import Advance, Copy, Task
from minidl.program.program import Group, Instruction, Value, is_random
from minidl.random.generator import Generator

#: About how many arrays the steps of one launch have at most. Where that is too much for CUDA after all,
#: because many steps read the same ones, the executor makes it several launches.
MAX_ARRAYS = 400


@dataclass(eq=False)
class _Launch:
    """Steps that do not need each other, and the memory (or random stream) they read and write."""

    tasks: list[Task]
    reads: set[Value | Generator] = field(default_factory=set)
    writes: set[Value | Generator] = field(default_factory=set)

    def conflicts(self, other: _Launch) -> bool:
        """Say whether the order of two launches matters."""
        return bool(self.writes & (other.reads | other.writes) or self.reads & other.writes)

    def join(self, other: _Launch) -> None:
        """Take in the steps of a launch, which come first."""
        self.tasks = other.tasks + self.tasks
        self.reads |= other.reads
        self.writes |= other.writes

    def takes(self, other: _Launch) -> bool:
        """Say whether the steps of another launch may become part of this one."""
        arrays = len(self.reads) + len(self.writes) + len(other.reads) + len(other.writes)
        return arrays <= MAX_ARRAYS and all(map(is_generated, self.tasks + other.tasks))


def is_generated(task: Task) -> bool:
    """Say whether there may be a generated kernel for a step."""
    return isinstance(task, (Group, Copy, Advance)) or (
        isinstance(task, Instruction) and (task.primitive in LOWERINGS or is_random(task))
    )


def places_of_draws(tasks: Sequence[Task]) -> tuple[dict[int, int], dict[Generator, int]]:
    """Return where in its stream each random step (by ``id``) begins, and how far each stream comes."""
    places: dict[int, int] = {}
    counts: dict[Generator, int] = {}
    for task in tasks:
        if isinstance(task, Instruction) and is_random(task):
            generator = task.attributes["generator"]
            places[id(task)] = counts.get(generator, 0)
            counts[generator] = places[id(task)] + task.output.size
    return places, counts


def by_launches(order: Schedule, aliases: Aliases) -> Schedule:
    """Return a schedule in which each phase is one launch, from one in which steps come one by one."""
    backwards: list[_Launch] = []  # from the last launch to the first
    tasks = [turn.task for phase in order.phases for turn in phase]
    _, counts = places_of_draws(tasks)
    tasks += [Advance(generator, count) for generator, count in counts.items()]
    for task in reversed(tasks):
        launch = _Launch([task])
        roots = [aliases.root[value] for value in task.inputs]
        launch.reads = {order.in_place.get(root, root) for root in roots}
        launch.writes = {order.in_place.get(value, value) for value in task.outputs}
        if isinstance(task, Copy):
            launch.writes.add(task.state)
        elif isinstance(task, Advance):
            launch.writes.add(task.generator)
        elif isinstance(task, Instruction) and is_random(task):
            launch.reads.add(task.attributes["generator"])
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
    return Schedule(phases, order.in_place)
