"""The NumPy executor: a program as lists of calls on buffers that never move.

Everything that can be decided once is decided here: which thread computes which rows, where
results live, how elementwise groups are cut into blocks that fit in cache. What is left for a
replay is to run the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import numpy

from minidl.program.blas import default_threads, matmul_call, one_blas_thread_each
from minidl.program.memory import plan_memory
from minidl.program.native import Kernels
from minidl.program.program import Gemm, Group, Instruction, PartialSum, Program, Value, share
from minidl.program.schedule import EVERYONE, Aliases, Copy, Schedule, Turn, schedule, split_sums
from minidl.program.team import team_of

Call = Callable[[], Any]

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
        self.program = program = split_sums(program, self.threads)
        aliases = Aliases(program)
        self.schedule: Schedule = schedule(program, self.threads, aliases)
        self.memory = plan_memory(program, self.schedule, aliases)
        groups = [step for step in program.steps if isinstance(step, Group)]
        self.kernels = Kernels(groups, self.memory.arrays) if kernels == "c" else None
        self.phases = [
            [self._calls(phase, thread) for thread in range(self.threads)] for phase in self.schedule.phases
        ]
        self.team = team_of(self.threads)

    def run(self, phases: Sequence[Sequence[Sequence[Call]]] | None = None) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""
        with one_blas_thread_each():
            self.team.run(self.phases if phases is None else phases)

    def array(self, value: Value) -> numpy.ndarray:
        """Return the array in which a value lies after run(); the next run overwrites it."""
        return self.memory.arrays[value]

    def poison(self) -> None:
        """Fill every buffer with NaN (all bits set), so that a step reading what it did not write shows."""
        for buffer in self.memory.buffers:
            buffer.fill(255)

    def timed_phases(self, record: Callable[[Turn, float], None]) -> list[list[list[Call]]]:
        """Return the phases with each turn as one call that also reports how long it took, in seconds."""

        def timed(turn: Turn, calls: list[Call]) -> Call:
            def run() -> None:
                started = perf_counter()
                for call in calls:
                    call()
                record(turn, perf_counter() - started)

            return run

        return [
            [
                [timed(turn, calls) for turn, calls in self._turns(phase, thread)]
                for thread in range(self.threads)
            ]
            for phase in self.schedule.phases
        ]

    # --- from turns to calls ----------------------------------------------------------------------

    def _calls(self, phase: Sequence[Turn], thread: int) -> list[Call]:
        return [call for _, calls in self._turns(phase, thread) for call in calls]

    def _turns(self, phase: Sequence[Turn], thread: int) -> Iterator[tuple[Turn, list[Call]]]:
        """Yield what one thread does in a phase, turn by turn."""
        scratch = _Scratch()
        for turn in phase:
            if turn.owner == EVERYONE:
                yield turn, self._task_calls(turn, thread, self.threads, scratch)
            elif turn.owner == thread:
                yield turn, self._task_calls(turn, 0, 1, scratch)

    def _task_calls(self, turn: Turn, index: int, parts: int, scratch: _Scratch) -> list[Call]:
        task, arrays = turn.task, self.memory.arrays
        if isinstance(task, Group):
            length = task.members[0].output.shape[0] if task.members[0].output.shape else 1
            call = self.kernels.call(task, share(length, index, parts)) if self.kernels else None
            return [call] if call else self._group_calls(task, index, parts, scratch)
        if isinstance(task, Gemm):
            out = arrays[task.output]
            rows = share(len(out), index, parts)
            return [
                matmul_call(arrays[a][rows], arrays[b], out[rows], add=i > 0)
                for i, (a, b) in enumerate(task.terms)
            ]
        if isinstance(task, Copy):
            target, source = arrays[task.state], arrays[task.value]
            if target.ndim:
                rows = share(len(target), index, parts)
                target, source = target[rows], source[rows]
            return [partial(numpy.copyto, target, source)]
        if isinstance(task, PartialSum):
            x, out = arrays[task.value], arrays[task.output][index : index + 1]
            x = x[share(len(x), index, parts)]
            if x.ndim == 2 and task.axis == (0,):  # two to three times as fast as a sum over rows
                return [matmul_call(numpy.ones((1, len(x)), x.dtype), x, out, add=False)]
            return [partial(numpy.sum, x, axis=task.axis, keepdims=True, out=out)]
        assert isinstance(task, Instruction)
        inputs = [arrays[value] for value in task.inputs]
        return [partial(task.primitive.forward, numpy, *inputs, out=arrays[task.output], **task.attributes)]

    def _group_calls(self, group: Group, index: int, parts: int, scratch: _Scratch) -> list[Call]:
        shape = group.members[0].output.shape
        rows = share(shape[0], index, parts) if shape else slice(0, 1)
        row_bytes = max(1, _size(shape[1:]) * max(m.output.dtype.itemsize for m in group.members))
        step = max(1, BLOCK_BYTES // row_bytes)
        slots = _slots(group)
        calls: list[Call] = []
        for start in range(rows.start, rows.stop, step):
            block = slice(start, min(start + step, rows.stop))
            calls += self._block_calls(group, shape, block, slots, scratch)
        return calls

    def _block_calls(
        self,
        group: Group,
        shape: tuple[int, ...],
        block: slice,
        slots: dict[Value, int],
        scratch: _Scratch,
    ) -> list[Call]:
        places: dict[Value, numpy.ndarray] = {}
        block_shape = (block.stop - block.start, *shape[1:]) if shape else ()

        def place(value: Value) -> numpy.ndarray:
            if value not in places:
                if value in slots:
                    places[value] = scratch.array(slots[value], block_shape, value.dtype)
                else:
                    array = self.memory.arrays[value]
                    whole = not shape or len(array.shape) < len(shape) or array.shape[0] != shape[0]
                    places[value] = array if whole else array[block]
            return places[value]

        calls: list[Call] = []
        for member in group.members:
            inputs = [place(value) for value in member.inputs]
            calls.append(
                partial(
                    member.primitive.forward, numpy, *inputs, out=place(member.output), **member.attributes
                )
            )
        return calls


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


class _Scratch:
    """Memory for one block of the inner values of a group, used by one thread for all its groups."""

    def __init__(self) -> None:
        self.buffers: dict[int, numpy.ndarray] = {}

    def array(self, slot: int, shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
        """Return an array in a slot. A slot that proves too small is replaced, not moved."""
        nbytes = _size(shape) * dtype.itemsize
        if slot not in self.buffers or self.buffers[slot].nbytes < nbytes:
            self.buffers[slot] = numpy.empty(max(nbytes, 1), numpy.uint8)
        return self.buffers[slot][:nbytes].view(dtype).reshape(shape)


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
            allowed = member.primitive.overwrites
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
