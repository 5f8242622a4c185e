"""The plan of a program for several threads: who computes which rows, and when all must meet.

All threads walk through the same steps, each computing its own block of rows (or, of a matrix stored by
columns, of columns). A block of rows of an elementwise result needs only the same block of its inputs,
and a block of rows of ``a @ b`` needs that block of ``a`` and all of ``b``. So a thread can go on alone
until a step needs what the others have computed: stored by rows, forward and backward of its part of
the batch need no meeting at all, and one meeting later, weight gradients and their updates are shared
by the rows of the weights. Steps too small to be shared belong to one thread.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy

from minidl.devices import Array
from minidl.primitives.random import Generator
from minidl.primitives.reduction import sum_
from minidl.program.layout import empty, major_axis
from minidl.program.program import (
    Gemm,
    Group,
    Instruction,
    PartialSum,
    Program,
    Step,
    Value,
    is_random,
    share,
)

#: Work below this many elements (or multiply-adds / 16) is not worth being split.
SMALL = 16_384

EVERYONE = -1


@dataclass(eq=False)
class Copy:
    """The last step of an update that could not be computed in its place: copy a value to a state."""

    state: Value
    value: Value
    phase: str = "update"
    name: str = "copy to state"

    @property
    def inputs(self) -> list[Value]:
        """What is copied."""
        return [self.value]

    @property
    def outputs(self) -> list[Value]:
        """Nothing new."""
        return []


@dataclass(eq=False)
class Advance:
    """The last step of a program that draws on a GPU: its stream has come so many numbers further."""

    generator: Generator
    count: int
    phase: str = "update"
    name: str = "advance random numbers"

    @property
    def inputs(self) -> list[Value]:
        """Nothing but the stream."""
        return []

    @property
    def outputs(self) -> list[Value]:
        """Nothing new."""
        return []


Task = Step | Copy | Advance


@dataclass(eq=False)
class Turn:
    """One step in the plan: ``owner`` is the thread that runs it, or EVERYONE for a block each."""

    task: Task
    owner: int


@dataclass(eq=False)
class Schedule:
    """The turns of each phase between two meetings, and which updates happen in place.

    ``one_by_one`` says that the turns of a phase, too, come one after another.
    """

    phases: list[list[Turn]] = field(default_factory=list)
    in_place: dict[Value, Value] = field(default_factory=dict)  # new value -> the state it replaces
    one_by_one: bool = False


def cost(task: Task) -> float:
    """Return a rough cost, in elements passed once over."""
    if isinstance(task, Gemm):
        return sum(a.size * b.shape[1] for a, b in task.terms) / 16
    if isinstance(task, Group):
        return float(sum(member.output.size for member in task.members))
    return float(sum(value.size for value in [*task.inputs, *task.outputs]))


def split_sums(program: Program, threads: int, by_columns: set[Value]) -> Program:
    """Let each thread sum its own block of large values, while it is in its cache."""
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Instruction) and step.primitive is sum_ and threads > 1:
            (x,), axis = step.inputs, step.attributes["axis"]
            cut = 1 if x in by_columns else 0
            if cut in axis and x.size >= SMALL and x.shape[cut] >= 2 * threads:
                shape = tuple(1 if i in axis else length for i, length in enumerate(x.shape))
                partial = Value((threads, *shape), step.output.dtype)
                steps.append(PartialSum(x, axis, cut, partial, step.phase))
                attributes = {"axis": (0, *(i + 1 for i in axis)), "keepdims": step.attributes["keepdims"]}
                if attributes["keepdims"]:
                    attributes = {"axis": (0,), "keepdims": False}
                step = Instruction(sum_, [partial], attributes, step.output, step.phase)
        steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


@dataclass(frozen=True)
class Cut:
    """How a step can be shared among threads: blocks along an axis of its shape."""

    shape: tuple[int, ...]
    axis: int

    @property
    def length(self) -> int:
        """How much there is to be shared."""
        return self.shape[self.axis]


def cut_of(task: Task, arrays: Mapping[Value, numpy.ndarray]) -> Cut | None:
    """Return how a step can be shared among threads, or None if one must do it."""
    if isinstance(task, PartialSum):
        return Cut(task.value.shape, task.cut)
    if isinstance(task, Copy):
        return Cut(task.state.shape, 0) if task.state.shape else None
    if isinstance(task, Gemm):
        return Cut(task.output.shape, major_axis(arrays[task.output]))
    if isinstance(task, Group):
        shape = task.members[0].output.shape
        like = next((v for v in task.outputs if v.shape == shape), None)
        return Cut(shape, major_axis(arrays[like]) if like is not None else 0) if shape else None
    if isinstance(task, Instruction) and task.primitive is sum_:
        (x,) = task.inputs  # a sum over rows, of a matrix stored by columns
        if task.attributes["axis"] == (0,) and major_axis(arrays[x]) == 1:
            return Cut(x.shape, 1)
    return None


def part_of(array: numpy.ndarray, cut: Cut, index: int, parts: int) -> numpy.ndarray:
    """Return the block of an input or output that belongs to one thread; all of it where it is broadcast."""
    return block_of(array, cut, share(cut.length, index, parts))


def block_of(array: numpy.ndarray, cut: Cut, block: slice) -> numpy.ndarray:
    """Return a block along the cut's axis of an array that broadcasts to the cut's shape."""
    axis = cut.axis - (len(cut.shape) - array.ndim)
    if axis < 0 or array.shape[axis] != cut.length:
        return array
    return array[(slice(None),) * axis + (block,)]


class Aliases:
    """Which values are views of which memory, and whether a block of their rows is the same block there."""

    def __init__(self, program: Program, by_columns: set[Value]):
        self.root: dict[Value, Value] = {}
        self.array: dict[Value, numpy.ndarray] = {}  # of the right layout; results are never touched
        self.is_view: dict[int, bool] = {}
        for value in program.values():
            if value.array is not None:
                self._own(value, addresses_of(value.array))
        for step in program.steps:
            self.is_view[id(step)] = isinstance(step, Instruction) and self._view(step)
            if not self.is_view[id(step)]:
                for output in step.outputs:
                    self._own(output, empty(output, _addresses(output.nbytes), output in by_columns))

    def _own(self, value: Value, array: numpy.ndarray) -> None:
        self.root[value], self.array[value] = value, array

    def _view(self, step: Instruction) -> bool:
        if step.primitive.kind != "view":
            return False
        source = self.array[step.inputs[0]]
        result = step.primitive.forward(numpy, source, **step.attributes)
        if not numpy.may_share_memory(result, source):
            return False
        self.root[step.output], self.array[step.output] = self.root[step.inputs[0]], result
        return True

    def same_block(self, value: Value, axis: int) -> bool:
        """Say whether a block along an axis of the value lies within that thread's block of its memory."""
        view, whole = self.array[value], self.array[self.root[value]]
        major = major_axis(whole)
        if not whole.ndim or view.shape[axis] != whole.shape[major]:
            return False
        if view is whole:
            return axis == major
        start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        others = [i for i in range(view.ndim) if i != axis]
        length = sum((view.shape[i] - 1) * view.strides[i] for i in others)
        row = whole.strides[major]
        return bool(view.strides[axis] == row and start >= 0 and start + length + view.itemsize <= abs(row))


def _addresses(count: int) -> numpy.ndarray:
    """Return bytes that are never touched; taken from the heap, they would be in the buffers' way."""
    return numpy.frombuffer(mmap.mmap(-1, max(count, 1)), numpy.uint8)


def addresses_of(array: Array) -> numpy.ndarray:
    """Return a NumPy array that stands for an array on a device while planning: never read or written."""
    if isinstance(array, numpy.ndarray):
        return array
    reaches = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    count = sum(map(abs, reaches)) + array.dtype.itemsize if array.size else 0
    start = -sum(reach for reach in reaches if reach < 0) if array.size else 0
    return numpy.ndarray(array.shape, array.dtype, _addresses(count).data, start, array.strides)


def schedule(program: Program, threads: int, aliases: Aliases) -> Schedule:
    """Plan a program: choose in-place updates, then put the steps in phases between meetings."""
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
        self.before: dict[int, list[Task]] = {id(t): self._producers(t) for t in self.tasks}
        draws = [task for task in self.tasks if is_random(task)]
        for earlier, later in itertools.pairwise(draws):
            self.before[id(later)].append(earlier)
        self.result = Schedule()
        # What happened to each piece of memory since the last meeting: who wrote it, who read it.
        self.written: dict[Value, int] = {}
        self.read: dict[Value, set[int]] = {}
        self.load = [0.0] * threads

    def _producers(self, task: Task) -> list[Task]:
        roots = (self.aliases.root[value] for value in task.inputs)
        return [self.producer[root] for root in roots if root in self.producer]

    def plan(self) -> Schedule:
        for state, value in self.program.updates.items():
            self._plan_update(state, value)
        waiting = list(self.tasks)
        done: set[int] = set()
        while waiting:
            phase: list[Turn] = []
            held: list[Task] = waiting
            progress = True
            while progress:
                progress, still = False, []
                for task in held:
                    ready = all(id(other) in done for other in self.before[id(task)])
                    owner = self._owner(task) if ready else None
                    if owner is None:
                        still.append(task)
                        continue
                    self._note(task, owner)
                    phase.append(Turn(task, owner))
                    done.add(id(task))
                    progress = True
                held = still
            assert phase, "the steps of the program wait for each other"
            self.result.phases.append(phase)
            self.written, self.read, self.load = {}, {}, [0.0] * self.threads
            waiting = held
        self.result.one_by_one = all(turn.owner == 0 for phase in self.result.phases for turn in phase)
        return self.result

    # --- updates ----------------------------------------------------------------------------------

    def _plan_update(self, state: Value, value: Value) -> None:
        writer = self.producer.get(value)
        others = [task for task in self.readers.get(state, []) if task is not writer]
        if (
            isinstance(writer, Group)
            and value not in self.result.in_place
            and state.array.flags.c_contiguous
            and self._writes_after_reading(writer, state, value)
            and not any(self._waits_for(task, writer) for task in others)
        ):
            self.result.in_place[value] = state
            self.before[id(writer)] += others
            return
        copy = Copy(state, value)
        self.before[id(copy)] = self._producers(copy) + self.readers.get(state, [])
        self.tasks.append(copy)

    def _writes_after_reading(self, group: Group, state: Value, value: Value) -> bool:
        """Say whether the members that read the old state come first and read it in the same rows."""
        written = False
        for member in group.members:
            for read in member.inputs:
                if self.aliases.root.get(read) is state and (written or read is not state):
                    return False
            written = written or member.output is value
            if member.output is value:
                for index, read in enumerate(member.inputs):
                    allowed = member.primitive.overwrites
                    if read is state and not (allowed is None or index in allowed):
                        return False
        return state.shape == value.shape and state.dtype == value.dtype

    def _waits_for(self, task: Task, other: Task) -> bool:
        waiting, seen = [task], set()
        while waiting:
            current = waiting.pop()
            if current is other:
                return True
            if id(current) not in seen:
                seen.add(id(current))
                waiting.extend(self.before[id(current)])
        return False

    # --- who may run what without a meeting -------------------------------------------------------

    def _owner(self, task: Task) -> int | None:
        """Return the thread that can run a step now, EVERYONE for a block each, or None for neither."""
        cut = cut_of(task, self.aliases.array)
        reads, writes = list(self._reads(task)), list(self._writes(task))
        if self.threads > 1 and cut and cut.length >= 2 * self.threads and cost(task) >= SMALL:
            for root, aligned in reads:
                if root in self.written and not (aligned and self.written[root] == EVERYONE):
                    return None
            if all(self.read.get(root, set()) <= {EVERYONE} for root in writes):
                return EVERYONE
            return None
        owners = {self.written[root] for root, _ in reads if root in self.written}
        owners |= {reader for root in writes for reader in self.read.get(root, set())}
        owners |= {0} if is_random(task) else set()  # one thread draws, in the order of the program
        if not owners:
            return min(range(self.threads), key=lambda thread: self.load[thread])
        if len(owners) == 1 and owners != {EVERYONE}:
            return owners.pop()
        return None if self.threads > 1 else 0

    def _note(self, task: Task, owner: int) -> None:
        for root, aligned in self._reads(task):
            # A read of all rows by everyone forbids everyone to write there: no thread's own mark.
            self.read.setdefault(root, set()).update(
                range(self.threads) if owner == EVERYONE and not aligned else {owner}
            )
        for root in self._writes(task):
            self.written[root] = owner
        if owner != EVERYONE:
            self.load[owner] += cost(task)

    def _reads(self, task: Task) -> Iterable[tuple[Value, bool]]:
        for root, aligned in reads_of(task, self.aliases):
            yield self.result.in_place.get(root, root), aligned

    def _writes(self, task: Task) -> Iterable[Value]:
        if isinstance(task, Copy):
            yield task.state
        for value in task.outputs:
            yield self.result.in_place.get(value, value)


def reads_of(task: Task, aliases: Aliases) -> Iterator[tuple[Value, bool]]:
    """Yield the memory a step reads, and whether each thread reads just its own block of it."""
    cut = cut_of(task, aliases.array)
    if isinstance(task, Gemm):
        assert cut is not None
        for term in task.terms:
            for i, value in enumerate(term):
                yield aliases.root[value], i == cut.axis and aliases.same_block(value, i)
        return
    for value in task.inputs:
        axis = cut.axis - (len(cut.shape) - len(value.shape)) if cut else -1
        own = cut is not None and axis >= 0 and value.shape[axis] == cut.length
        yield aliases.root[value], own and aliases.same_block(value, axis)
