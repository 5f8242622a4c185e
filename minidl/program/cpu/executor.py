"""The NumPy executor: a program as lists of calls on buffers that never move.

Everything that can be decided once is decided here: which thread computes which rows, where
results live, how elementwise groups are cut into blocks that fit in cache. What is left for a
replay is to run the calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy

from minidl.primitives.reduction import sum_
from minidl.program.cpu import peak_rates
from minidl.program.cpu.blas import default_threads, matmul_call, with_one_blas_thread_each
from minidl.program.cpu.c_code import Source, gemm_statement, group_statement, sum_statement
from minidl.program.cpu.kernel_cache import KernelsUnavailable
from minidl.program.cpu.threads import thread_pool
from minidl.program.expressions import Unsupported
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.layout import empty, feature_major, major_axis
from minidl.program.plan.memory import plan_memory
from minidl.program.plan.partition import Partition, block_of, part_of, partition_of, split_sums
from minidl.program.plan.schedule import ALL_THREADS, Schedule, ScheduledTask, schedule
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import Gemm, Group, Instruction, PartialSum, Program, Value, share

Call = Callable[[], Any]

#: Up to how many rows results are stored by columns, which is faster and needs more meetings: as C, threads
#: meet within a microsecond; from Python it takes tens.
MAX_ROWS = {"numpy": 48, "c": 384}

#: Bytes of one block of one value of a group. Small enough that the few blocks in use stay in cache;
#: large enough that threads seldom meet at the interpreter lock, which each call gives up and takes
#: back (with blocks of 64 KiB the update of the main job takes 1.4 times as long).
BLOCK_BYTES = 512 * 1024


class NumpyExecutor:
    """Runs a program on the CPU.

    Parameters
    ----------
    program : the program, after all passes
    threads : how many threads compute; by default one for each core this process may use
    kernels : ``"numpy"`` runs elementwise groups block by block; ``"c"`` as generated C functions
    """

    def __init__(self, program: Program, threads: int | None = None, kernels: str = "numpy"):
        if kernels not in ("numpy", "c"):
            raise ValueError(f"unknown kernels {kernels!r}: use 'numpy' or 'c'")
        self.threads = threads or default_threads()
        by_columns = feature_major(program, MAX_ROWS[kernels])
        for value in program.inputs:
            if value in by_columns:
                value.array = numpy.asfortranarray(value.array)
        self.program = program = split_sums(program, self.threads, by_columns)
        aliases = Aliases(program, by_columns)
        self.schedule: Schedule = schedule(program, self.threads, aliases)
        self.memory = plan_memory(program, self.schedule, aliases, by_columns)
        self.kernels = kernels
        self.team = thread_pool(self.threads)
        try:
            self.phases = self._phases(lambda turn, calls: calls)
        except KernelsUnavailable as error:
            warnings.warn(
                f"no generated C can be used here, so NumPy computes: {error}", RuntimeWarning, stacklevel=2
            )
            self.kernels = "numpy"
            self.phases = self._phases(lambda turn, calls: calls)

    def run(self, phases: Sequence[Sequence[Sequence[Call]]] | None = None) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""
        with_one_blas_thread_each(self.team.run, self.phases if phases is None else phases)

    def array(self, value: Value) -> numpy.ndarray:
        """Return the array in which a value lies after run(); the next run overwrites it."""
        return self.memory.arrays[value]

    def poison(self) -> None:
        """Fill every buffer with NaN (all bits set), so that a step reading what it did not write shows."""
        for buffer in self.memory.buffers:
            buffer.fill(255)

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Return a run() that reports how long each step took, in seconds, and returns how long all took."""

        def timed(turn: ScheduledTask, calls: list[Call]) -> list[Call]:
            def run() -> None:
                started = perf_counter()
                for call in calls:
                    call()
                record(turn.task, perf_counter() - started)

            return [run]

        phases = self._phases(timed, whole=False)

        def run_all() -> float:
            started = perf_counter()
            self.run(phases)
            return perf_counter() - started

        return run_all

    def peak_rates(self) -> tuple[float, float]:
        """Return the best rates of matrix products and of copying, per second."""
        return peak_rates.peak_rates(self.threads)

    def note(self) -> str:
        """Return how the program is run, for its listing."""
        return f"{self.threads} thread(s), {len(self.schedule.phases)} phase(s) between meetings"

    # --- from turns to calls ----------------------------------------------------------------------

    def _phases(
        self, wrapped: Callable[[ScheduledTask, list[Call]], list[Call]], whole: bool = True
    ) -> list[list[list[Call]]]:
        """Return the calls of each thread in each phase.

        As C, a thread's turns become one call as far as possible, over several phases too if
        ``whole``, and one call for each turn if not.
        """
        source = Source()
        work = [
            [list(self._turns(phase, thread, source)) for thread in range(self.threads)]
            for phase in self.schedule.phases
        ]
        if whole and self.kernels == "c":
            work = _joined(work, source.barrier(self.threads))
        numbered = [
            [[(turn, [_segment(source, item) for item in items]) for turn, items in turns] for turns in phase]
            for phase in work
        ]
        segments = source.build(self.team.barrier)

        def calls_of(turns: Work) -> list[Call]:
            calls: list[Call] = []
            for turn, items in turns:
                calls += wrapped(turn, [segments[i] if isinstance(i, int) else i for i in items])
            return calls

        return [[calls_of(turns) for turns in phase] for phase in numbered]

    def _turns(
        self, phase: Sequence[ScheduledTask], thread: int, source: Source
    ) -> Iterator[tuple[ScheduledTask, list[Any]]]:
        """Yield what one thread does in a phase, turn by turn: calls, or statements of C."""
        scratch = _Scratch()
        for turn in phase:
            if turn.owner not in (ALL_THREADS, thread):
                continue
            index, parts = (thread, self.threads) if turn.owner == ALL_THREADS else (0, 1)
            if self.kernels == "c":
                try:
                    yield turn, [self._statements(turn.task, index, parts, source)]
                    continue
                except Unsupported:
                    pass
            yield turn, list(self._calls(turn.task, index, parts, scratch))

    def _operands(self, task: Task, index: int, parts: int) -> Callable[[Value], numpy.ndarray]:
        """Return the function that gives the block of an array that belongs to one of several threads."""
        cut, arrays = partition_of(task, self.memory.arrays), self.memory.arrays
        if cut is None or parts == 1:
            return lambda value: arrays[value]
        return lambda value: part_of(arrays[value], cut, index, parts)

    def _products(self, gemm: Gemm, index: int, parts: int) -> Iterator[tuple[Any, Any, Any, bool]]:
        """Yield factors, destination and whether to add, for each product of a sum of products."""
        arrays = self.memory.arrays
        out = arrays[gemm.output]
        axis = major_axis(out)
        block = share(out.shape[axis], index, parts)
        for i, (a, b) in enumerate(gemm.terms):
            if axis == 0:
                yield arrays[a][block], arrays[b], out[block], i > 0
            else:
                yield arrays[a], arrays[b][:, block], out[:, block], i > 0

    def _statements(self, task: Task, index: int, parts: int, source: Source) -> list[str]:
        """Return a step, or one thread's block of it, as C."""
        part = self._operands(task, index, parts)
        if isinstance(task, Gemm):
            return [gemm_statement(source, *product) for product in self._products(task, index, parts)]
        if isinstance(task, Group):
            places = {value: part(value) for value in dict.fromkeys([*task.inputs, *task.outputs])}
            shape = list(task.members[0].output.shape)
            cut = partition_of(task, self.memory.arrays)
            if cut is not None:
                block = share(cut.length, index, parts)
                shape[cut.axis] = block.stop - block.start
            return [group_statement(source, task.members, task.outputs, places, tuple(shape))]
        if isinstance(task, PartialSum):
            out = self.memory.arrays[task.output][index]
            return [sum_statement(source, part(task.value), task.axis, out)]
        if isinstance(task, Instruction) and task.primitive is sum_:
            out = self._block_of_sum(task, index, parts)
            return [sum_statement(source, part(task.inputs[0]), task.attributes["axis"], out)]
        raise Unsupported

    def _block_of_sum(self, task: Instruction, index: int, parts: int) -> numpy.ndarray:
        """Return where a thread writes its block of a sum over rows: the same columns."""
        out = self.memory.arrays[task.output]
        return out[..., share(out.shape[-1], index, parts)] if parts > 1 else out

    def _calls(self, task: Task, index: int, parts: int, scratch: _Scratch) -> Iterator[Call]:
        """Yield the calls of NumPy and BLAS for a step, or for one thread's block of it."""
        part = self._operands(task, index, parts)
        if isinstance(task, Group):
            yield from self._group_calls(task, index, parts, scratch)
        elif isinstance(task, Gemm):
            for product in self._products(task, index, parts):
                yield matmul_call(*product)
        elif isinstance(task, Copy):
            yield partial(numpy.copyto, part(task.state), part(task.value))
        elif isinstance(task, PartialSum):
            x, out = part(task.value), self.memory.arrays[task.output][index]
            if x.ndim == 2 and task.axis == (0,):  # two to three times as fast as a sum over rows
                yield matmul_call(numpy.ones((1, len(x)), x.dtype), x, out, add=False)
            else:
                yield partial(numpy.sum, x, axis=task.axis, keepdims=True, out=out)
        else:
            assert isinstance(task, Instruction)
            out = self._block_of_sum(task, index, parts)
            inputs = [part(value) for value in task.inputs]
            yield partial(task.primitive.forward, numpy, *inputs, out=out, **task.attributes)

    def _group_calls(self, group: Group, index: int, parts: int, scratch: _Scratch) -> Iterator[Call]:
        shape = group.members[0].output.shape
        cut = partition_of(group, self.memory.arrays) or Partition((1,), 0)
        rows = share(cut.length, index, parts)
        row_size = _size(shape) // max(cut.length, 1)
        row_bytes = max(1, row_size * max(m.output.dtype.itemsize for m in group.members))
        step = max(1, BLOCK_BYTES // row_bytes)
        slots = _slots(group)
        for start in range(rows.start, rows.stop, step):
            block = slice(start, min(start + step, rows.stop))
            yield from self._block_calls(group, cut, block, slots, scratch)

    def _block_calls(
        self, group: Group, cut: Partition, block: slice, slots: dict[Value, int], scratch: _Scratch
    ) -> Iterator[Call]:
        places: dict[Value, numpy.ndarray] = {}
        shape = list(group.members[0].output.shape)
        if shape:
            shape[cut.axis] = block.stop - block.start

        def place(value: Value) -> numpy.ndarray:
            if value not in places:
                if value in slots:
                    places[value] = scratch.array(slots[value], tuple(shape), value.dtype, cut.axis == 1)
                else:
                    array = self.memory.arrays[value]
                    places[value] = block_of(array, cut, block) if shape else array
            return places[value]

        for member in group.members:
            inputs = [place(value) for value in member.inputs]
            out = place(member.output)
            yield partial(member.primitive.forward, numpy, *inputs, out=out, **member.attributes)


Work = list[tuple[ScheduledTask, list[Any]]]


def _segment(source: Source, item: Any) -> Any:
    """Return the number of a new C function for statements; calls stay what they are."""
    return source.segment(item) if isinstance(item, list) else item


def _joined(phases: list[list[Work]], barrier: str) -> list[list[Work]]:
    """Join phases that are all C into one in which the threads meet, and turns into one function."""
    joined: list[list[Work]] = []
    previous_is_c = False
    for phase in phases:
        is_c = all(isinstance(item, list) for turns in phase for _, items in turns for item in items)
        if is_c and previous_is_c:
            some_turn = next(turn for turns in phase for turn, _ in turns)
            for turns, more in zip(joined[-1], phase, strict=True):
                turns += [(some_turn, [[barrier]]), *more]
        else:
            joined.append([list(turns) for turns in phase])
        previous_is_c = is_c
    return [[_merged(turns) for turns in phase] for phase in joined]


def _merged(turns: Work) -> Work:
    """Put statements that follow each other into one item."""
    merged: Work = []
    for turn, items in turns:
        for item in items:
            if isinstance(item, list) and merged and isinstance(merged[-1][1][-1], list):
                merged[-1][1][-1].extend(item)
            else:
                merged.append((turn, [list(item) if isinstance(item, list) else item]))
    return merged


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


class _Scratch:
    """Memory for one block of the inner values of a group, used by one thread for all its groups."""

    def __init__(self) -> None:
        self.buffers: dict[int, numpy.ndarray] = {}

    def array(self, slot: int, shape: tuple[int, ...], dtype: numpy.dtype, by_columns: bool) -> numpy.ndarray:
        """Return an array in a slot. A slot that proves too small is replaced, not moved."""
        nbytes = _size(shape) * dtype.itemsize
        if slot not in self.buffers or self.buffers[slot].nbytes < nbytes:
            self.buffers[slot] = numpy.empty(max(nbytes, 1), numpy.uint8)
        return empty(Value(shape, dtype), self.buffers[slot], by_columns)


def _slots(group: Group) -> dict[Value, int]:
    """Give each inner value of a group a slot of scratch memory, in place of a dying input if it may."""
    outside = set(group.outputs)
    last_read = {value: i for i, member in enumerate(group.members) for value in member.inputs}
    slots: dict[Value, int] = {}
    free: list[int] = []
    for i, member in enumerate(group.members):
        dying = [
            (index, value)
            for index, value in enumerate(member.inputs)
            if value in slots and last_read[value] == i
        ]
        output = member.output
        if output not in outside:
            allowed = member.primitive.may_alias
            reusable = [
                value
                for index, value in dying
                if (allowed is None or index in allowed)
                and value.dtype == output.dtype
                and all(index_ == index or other is not value for index_, other in enumerate(member.inputs))
            ]
            if reusable:
                slots[output] = slots[reusable[0]]
                dying = [(index, value) for index, value in dying if value is not reusable[0]]
            else:
                slots[output] = free.pop() if free else len(set(slots.values()))
        free += [slot for slot in {slots[value] for _, value in dying} if slot not in free]
    return slots
