"""The NumPy executor: a program as lists of calls on buffers that never move.

Everything that can be decided once is decided here: which thread computes which rows, where
results live, how elementwise groups are divided into blocks that fit in cache. What is left for a
replay is to run the calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy

from minidl.errors import KernelError
from minidl.program.cpu import peak_rates
from minidl.program.cpu.blas import with_one_blas_thread_each
from minidl.program.cpu.blocks import block_of
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.calls import Call, Scratch, calls
from minidl.program.cpu.choices import choose_kernels, choose_threads
from minidl.program.cpu.kernel_cache import KernelsUnavailable
from minidl.program.cpu.lowering import statements
from minidl.program.cpu.threads import thread_pool
from minidl.program.executor import Executor
from minidl.program.expressions import Unsupported
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.layout import feature_major
from minidl.program.plan.memory import Arena, plan_memory
from minidl.program.plan.one_pass import join_passes
from minidl.program.plan.partition import split_sums
from minidl.program.plan.places import share_memory
from minidl.program.plan.schedule import ALL_THREADS, ScheduledTask, TaskSchedule, schedule
from minidl.program.plan.tasks import Task
from minidl.program.program import Program, Value

#: Up to how many rows results are stored by columns, which is faster and needs more barriers: in C, a barrier
#: takes about a microsecond; from Python it takes tens.
MAX_ROWS = {"numpy": 48, "c": 384}


class NumpyExecutor(Executor):
    """Runs a program on the CPU.

    Parameters
    ----------
    program : the program, after all passes
    threads : how many threads compute; by default as many as pay, at most one for each core that this
        process may use
    kernels : ``"numpy"`` runs elementwise groups block by block; ``"c"`` as generated C functions;
        ``"auto"`` decides by the program's costs, and whether there is a compiler
    arena : where buffers come from, if other programs share them

    Raises
    ------
    KernelError
        With ``"c"``, there is no compiler, or it refuses the code.
    """

    def __init__(
        self,
        program: Program,
        threads: int | None = None,
        kernels: str = "auto",
        arena: Arena | None = None,
    ):
        self.kernels, self.reason = choose_kernels(program, kernels)
        self.threads = choose_threads(program, self.kernels, threads)
        by_columns = feature_major(program, MAX_ROWS[self.kernels])
        for value in program.inputs:
            if value in by_columns:
                value.array = numpy.asfortranarray(value.array)
        if self.kernels == "c":
            program = join_passes(program, self.threads, by_columns)
        self.program = program = split_sums(program, self.threads, by_columns)
        aliases = Aliases(program, by_columns)
        share_memory(program, aliases, self.threads)
        self.schedule: TaskSchedule = schedule(program, self.threads, aliases)
        self.memory = plan_memory(program, self.schedule, aliases, by_columns, arena=arena)
        self._scratch: dict[int, Scratch] = {} if arena is None else arena.scratch
        self.pool = thread_pool(self.threads)
        try:
            self.phases = self._phases(lambda task, calls: calls)
        except KernelError as error:
            if kernels == "c" and not isinstance(error, KernelsUnavailable):
                raise
            warnings.warn(
                f"no generated C can be used here, so NumPy computes: {error}", RuntimeWarning, stacklevel=2
            )
            self.kernels, self.reason = "numpy", "no generated C can be used here"
            self.phases = self._phases(lambda task, calls: calls)

    def run(self, phases: Sequence[Sequence[Sequence[Call]]] | None = None) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""
        with_one_blas_thread_each(self.pool.run, self.phases if phases is None else phases)

    def array(self, value: Value) -> numpy.ndarray:
        """Return the array in which a value lies after run(); the next run overwrites it."""
        array: numpy.ndarray = self.memory.arrays[value]
        return array

    def poison(self) -> None:
        """Fill every buffer with NaN (all bits set), to expose a step that reads what it did not write."""
        for buffer in self.memory.buffers:
            buffer.fill(255)

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Return a run() that reports how long each step took, in seconds, and returns how long all took."""

        def timed(task: Task, calls: list[Call]) -> list[Call]:
            def run() -> None:
                started = perf_counter()
                for call in calls:
                    call()
                record(task, perf_counter() - started)

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
        reason = f" ({self.reason})" if self.reason else ""
        kernels = {"c": "C", "numpy": "NumPy"}[self.kernels]
        phases = len(self.schedule.phases)
        return f"{kernels} kernels{reason}, {self.threads} thread(s), {phases} phase(s) between barriers"

    # --- from tasks to calls ----------------------------------------------------------------------

    def _phases(
        self, wrapped: Callable[[Task, list[Call]], list[Call]], whole: bool = True
    ) -> list[list[list[Call]]]:
        """Return the calls of each thread in each phase, as ``wrapped`` returns them for each piece of work.

        As C, a thread's work becomes one call as far as possible, over several phases too if ``whole``, and
        one call for each task if not.
        """
        source = CSource()
        phases = [
            [list(self._pieces(phase, thread, source)) for thread in range(self.threads)]
            for phase in self.schedule.phases
        ]
        if whole:
            phases = _joined(phases, source.barrier(self.threads))
        every_piece = [piece for phase in phases for pieces in phase for piece in pieces]
        numbers = [(piece, source.segment(piece.statements)) for piece in every_piece if piece.is_c]
        segments = source.build(self.pool.barrier)
        for piece, number in numbers:
            piece.calls = [segments[number]]
        return [
            [[call for piece in pieces for call in wrapped(piece.task, piece.calls)] for pieces in phase]
            for phase in phases
        ]

    def _pieces(self, phase: Sequence[ScheduledTask], thread: int, source: CSource) -> Iterator[_Piece]:
        """Yield what one thread does in a phase, task by task."""
        scratch = self._scratch.setdefault(thread, Scratch())
        for scheduled in phase:
            if scheduled.owner not in (ALL_THREADS, thread):
                continue
            task, is_shared = scheduled.task, scheduled.owner == ALL_THREADS
            index, parts = (thread, self.threads) if is_shared else (0, 1)
            block = block_of(task, self.memory.arrays, index, parts)
            if self.kernels == "c":
                try:
                    yield _Piece(task, statements=statements(task, block, source))
                    continue
                except Unsupported:
                    pass
            yield _Piece(task, calls=list(calls(task, block, scratch)))


@dataclass(eq=False)
class _Piece:
    """What a thread does for one task, or from that task on: C statements that become one call, or calls."""

    task: Task
    statements: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    @property
    def is_c(self) -> bool:
        return bool(self.statements)


def _joined(phases: list[list[list[_Piece]]], barrier: str) -> list[list[list[_Piece]]]:
    """Join phases that are all C into one, with barriers in it, and neighbouring pieces of C into one."""
    joined: list[list[list[_Piece]]] = []
    previous_is_c = False
    for phase in phases:
        is_c = all(piece.is_c for pieces in phase for piece in pieces)
        if is_c and previous_is_c:
            task = next(piece.task for pieces in phase for piece in pieces)
            for pieces, more in zip(joined[-1], phase, strict=True):
                pieces += [_Piece(task, [barrier]), *more]
        else:
            joined.append([list(pieces) for pieces in phase])
        previous_is_c = is_c
    return [[_merged(pieces) for pieces in phase] for phase in joined]


def _merged(pieces: list[_Piece]) -> list[_Piece]:
    """Put C statements that follow each other into one piece."""
    merged: list[_Piece] = []
    for piece in pieces:
        if piece.is_c and merged and merged[-1].is_c:
            merged[-1].statements += piece.statements
        else:
            merged.append(piece)
    return merged
