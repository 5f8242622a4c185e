"""The CuPy executor: a program as few launches on buffers that never move, replayed as CUDA graphs.

Matrix products, and those of convolutions, are calls of cuBLAS; nearly everything else becomes generated
kernels, and what does not (see launches.py) is left to CuPy. The first run makes the launches one by one.
From the second run on, those that follow each other are replayed as one CUDA graph; only what CuPy computes
stays in between.

A run works on CuPy's current stream, in order with all other work there. A program holds its buffers,
workspaces and graphs for itself, so that programs do not disturb each other.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy

from minidl import devices
from minidl.devices import Array
from minidl.primitives.convolution import CONVOLUTIONS
from minidl.program.costs import PRODUCTS
from minidl.program.executor import Executor
from minidl.program.expressions import Unsupported
from minidl.program.gpu import peak_rates
from minidl.program.gpu.calls import LibraryCalls
from minidl.program.gpu.cublas import Cublas, library
from minidl.program.gpu.kernels.lowering import Operands, kernels_of
from minidl.program.gpu.kernels.source import THREADS, launch_name, source
from minidl.program.gpu.launches import Launch, by_launches, places_of_draws
from minidl.program.gpu.scratch import with_scratch
from minidl.program.lowered.rounding import are_packed
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.memory import plan_memory
from minidl.program.plan.schedule import TaskSchedule, schedule
from minidl.program.plan.tasks import Task
from minidl.program.program import Gemm, Program, Value
from minidl.random.generator import Generator
from minidl.random.philox import Philox

#: The most arrays that a launch takes: every version of CUDA has room for 4096 bytes of arguments.
MAX_ARGUMENTS = 512


class GraphSegment:
    """Calls that follow each other; replayed as one CUDA graph, where that is possible."""

    def __init__(self, calls: list[Launch]):
        self.calls = calls
        self.can_be_captured = len(calls) > 1 and all(call.captured for call in calls)
        self.graph: Any = None

    def run(self) -> None:
        """Do the work, on CuPy's current stream."""
        if self.graph is not None:
            self.graph.launch()
            return
        for call in self.calls:
            call.run()

    def capture(self, stream: Any) -> None:
        """Make the graph, which computes nothing yet; if that fails, say so, and do without from now on."""
        self.can_be_captured = False
        current: Launch | None = None
        try:
            with stream:
                stream.begin_capture()
                try:
                    for current in self.calls:
                        current.run()
                    current = None
                finally:
                    graph = stream.end_capture()
        except Exception as error:  # CuPy, the driver and cuBLAS each have their own
            where = f" at '{current.name}'" if current is not None else ""
            warnings.warn(
                f"a CUDA graph could not be captured{where}, so this part of the step is launched piece by "
                f"piece: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self.graph = graph


class CupyExecutor(Executor):
    """Runs a program on a GPU.

    Parameters
    ----------
    program : the program, after all passes; its arrays are CuPy's, all on one GPU
    tf32 : float32 matrix products may round their factors to 10 bits, if these have more
    """

    def __init__(self, program: Program, tf32: bool = False):
        self.program = program = with_scratch(program)
        self.first = next(value.array for value in program.values() if value.array is not None)
        self.cupy: Any = devices.array_module(self.first)
        self.device = self.first.device
        self.scratch: list[Array] = []
        with self.device:
            aliases = Aliases(program, set())
            self.schedule: TaskSchedule = by_launches(schedule(program, 1, aliases), aliases)
            self.memory = plan_memory(program, self.schedule, aliases, set(), self.cupy)
            draws, self.generators = places_of_draws(program.steps)
            self.operands = Operands(
                self.memory.arrays, self._zeros, lambda generator: self._stream(generator).state, draws
            )
            multiplies = any(step.operation in (*PRODUCTS, *CONVOLUTIONS) for step in program.steps)
            self.cublas = Cublas(self.cupy, tf32) if multiplies and library() is not None else None
            self.library_calls = LibraryCalls(self.cupy, self.cublas, self.memory.arrays, self._empty)
            self.calls = list(self._calls())
            self._compile()
            self.stream = self.cupy.cuda.Stream(non_blocking=True)
        runs = itertools.groupby(self.calls, key=lambda call: call.captured)
        self.segments = [GraphSegment(list(calls)) for _, calls in runs]
        self.is_warm = False

    def run(self) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""
        with self.device:
            for generator in self.generators:
                self._stream(generator)  # has a new key, if it was given a new state
            for segment in self.segments:
                if self.is_warm and segment.can_be_captured:
                    segment.capture(self.stream)
                segment.run()
        self.is_warm = True  # kernels are loaded, cuBLAS has made its choices

    def array(self, value: Value) -> Array:
        """Return the array in which a value lies after run(); the next run overwrites it."""
        return self.memory.arrays[value]

    def poison(self) -> None:
        """Fill every buffer with NaN (all bits set), to expose a step that reads what it did not write."""
        with self.device:
            for buffer in self.memory.buffers:
                buffer.fill(255)

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Return a run() that reports how long each step took, in seconds, and returns how long all took.

        The steps are timed launch by launch, the whole as it is replayed: it may take less than its parts.
        The steps of one launch share its time as they share the bytes it moves.
        """

        def run_all() -> float:
            times: dict[int, float] = {}
            with self.device:
                for call in self.calls:
                    seconds = self._seconds(call.run)
                    moved = [sum(v.nbytes for v in [*task.inputs, *task.outputs]) for task in call.tasks]
                    for task, own in zip(call.tasks, moved, strict=True):
                        times[id(task)] = times.get(id(task), 0.0) + seconds * own / max(sum(moved), 1)
                        record(task, times[id(task)])  # some steps are several calls
                return self._seconds(self.run)

        return run_all

    def _seconds(self, work: Callable[[], Any]) -> float:
        """Return how long the GPU takes for some work."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1e3

    def peak_rates(self) -> tuple[float, float]:
        """Return the best rates of matrix products and of copying, per second."""
        gemms = [step for step in self.program.steps if isinstance(step, Gemm)]
        packed = any(are_packed(*term, gemm.output.dtype) for gemm in gemms for term in gemm.terms)
        with self.device:
            return peak_rates.peak_rates(self.cupy, self.library_calls.multiply, self._seconds, packed)

    def note(self) -> str:
        """Return how the program is run, for its listing."""
        graphs = sum(segment.graph is not None for segment in self.segments)
        return f"{len(self.calls)} launches and calls, {graphs} CUDA graph(s)"

    def __del__(self) -> None:
        for segment in getattr(self, "segments", []):
            segment.graph = None  # before the memory that it writes

    # --- from tasks to calls ----------------------------------------------------------------------

    def _calls(self) -> Iterator[Launch]:
        """Yield the calls of the whole program, the generated kernels not yet compiled."""
        for phase in self.schedule.phases:
            launch, room = Launch([], captured=True), MAX_ARGUMENTS
            for task in (scheduled.task for scheduled in phase):
                if task.outputs and not any(value.size for value in task.outputs):
                    continue  # there is nothing to compute
                try:
                    kernels = [kernel for kernel in kernels_of(task, self.operands) if kernel.blocks]
                    arguments = sum(len(kernel.types) for kernel in kernels)
                    if arguments > MAX_ARGUMENTS:
                        raise Unsupported(task.name)
                except Unsupported:
                    yield from self.library_calls.of(task)
                    continue
                if arguments > room:
                    yield launch
                    launch, room = Launch([], captured=True), MAX_ARGUMENTS
                room -= arguments
                launch.tasks.append(task)
                launch.kernels += kernels
            if launch.kernels:
                yield launch

    def _compile(self) -> None:
        """Compile all kernels together, which takes the least time."""
        launches = [call for call in self.calls if call.kernels]
        if not launches:
            return
        module = self.cupy.RawModule(code=source([call.kernels for call in launches]))
        for number, call in enumerate(launches):
            arguments = tuple(argument for kernel in call.kernels for argument in kernel.arguments)
            blocks = sum(kernel.blocks for kernel in call.kernels)
            call.run = partial(module.get_function(launch_name(number)), (blocks,), (THREADS,), arguments)

    def _stream(self, generator: Generator) -> Philox:
        """Return the stream of a generator on this GPU, ready to be drawn from."""
        stream: Philox = generator.of(self.cupy, self.first)
        return stream

    def _empty(self, shape: Sequence[int], dtype: numpy.dtype) -> Array:
        """Return memory for a copy, which the executor keeps."""
        self.scratch.append(self.cupy.empty(shape, dtype))
        return self.scratch[-1]

    def _zeros(self, count: int, dtype: numpy.dtype) -> Array:
        """Return memory for a kernel, which the executor keeps."""
        self.scratch.append(self.cupy.zeros(count, dtype))
        return self.scratch[-1]
