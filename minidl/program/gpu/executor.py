"""The CuPy executor: a program as few launches on buffers that never move, replayed as CUDA graphs.

Matrix products are calls of cuBLAS; nearly everything else becomes generated kernels, and what does not (see
launches.py) is left to CuPy. The first run makes the launches one by one. From the second run on, those that
follow each other are replayed as one CUDA graph; only what CuPy computes stays in between.

A run works on CuPy's current stream, in order with all other work there. A program holds its buffers,
workspaces and graphs for itself, so that programs do not disturb each other.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy

from minidl import devices
from minidl.devices import Array
from minidl.primitives.linear_algebra import matmul_
from minidl.program.expressions import Unsupported
from minidl.program.gpu import peak_rates
from minidl.program.gpu.cublas import Cublas, library
from minidl.program.gpu.gemm_operands import Factors, as_matrices
from minidl.program.gpu.kernels.elementwise import (
    advance_kernel,
    copy_kernel,
    draw_kernel,
    fill_kernel,
    group_kernel,
    is_literal,
)
from minidl.program.gpu.kernels.lowering import LOWERINGS
from minidl.program.gpu.kernels.source import THREADS, Kernel, launch_name, source
from minidl.program.gpu.launches import by_launches, is_generated, places_of_draws
from minidl.program.lowered.rounding import are_packed, as_factors
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.memory import plan_memory
from minidl.program.plan.schedule import Schedule, schedule
from minidl.program.plan.tasks import Advance, Copy, Task
from minidl.program.program import Gemm, Group, Instruction, Program, Value, is_random
from minidl.random.generator import Generator
from minidl.random.philox import Philox

#: How many arrays a launch takes: 4096 bytes of arguments are what every version of CUDA has room for.
MAX_ARGUMENTS = 512


@dataclass(eq=False)
class Call:
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


class Segment:
    """Calls that follow each other; replayed as one CUDA graph, where that is possible."""

    def __init__(self, calls: list[Call]):
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
        current: Call | None = None
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


class CupyExecutor:
    """Runs a program on a GPU.

    Parameters
    ----------
    program : the program, after all passes; its arrays are CuPy's, all on one GPU
    tf32 : float32 matrix products may round their factors to 10 bits
    """

    def __init__(self, program: Program, tf32: bool = False):
        self.program = program
        self.first = next(value.array for value in program.values() if value.array is not None)
        self.cupy: Any = devices.array_module(self.first)
        self.device = self.first.device
        self.scratch: list[Array] = []
        with self.device:
            aliases = Aliases(program, set())
            self.schedule: Schedule = by_launches(schedule(program, 1, aliases), aliases)
            self.places, self.generators = places_of_draws(program.steps)
            self.memory = plan_memory(program, self.schedule, aliases, set(), self.cupy)
            multiplies = any(isinstance(step, Gemm) or step.name == "matmul" for step in program.steps)
            self.products = Cublas(self.cupy, tf32) if multiplies and library() is not None else None
            self.calls = list(self._calls())
            self._compile()
            self.stream = self.cupy.cuda.Stream(non_blocking=True)
        runs = itertools.groupby(self.calls, key=lambda call: call.captured)
        self.segments = [Segment(list(calls)) for _, calls in runs]
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
        """Fill every buffer with NaN (all bits set), so that a step reading what it did not write shows."""
        with self.device:
            for buffer in self.memory.buffers:
                buffer.fill(255)

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Return a run() that reports how long each step took, in seconds, and returns how long all took.

        The steps are timed launch by launch, the whole as it is replayed: it may take less than its parts.
        The steps of one launch share its time as they share the bytes it moves.
        """

        def run_all() -> float:
            with self.device:
                for call in self.calls:
                    seconds = self._seconds(call.run)
                    moved = [sum(v.nbytes for v in [*task.inputs, *task.outputs]) for task in call.tasks]
                    for task, own in zip(call.tasks, moved, strict=True):
                        record(task, seconds * own / max(sum(moved), 1))
                return self._seconds(self.run)

        return run_all

    def _seconds(self, work: Callable[[], Any]) -> float:
        """Return how long the GPU takes for some work."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / 1e3

    def peak_rates(self) -> tuple[float, float]:
        """Return the best rates of matrix products and of copying, per second."""
        multiply = self.products.gemm if self.products is not None else self._matmul
        gemms = [step for step in self.program.steps if isinstance(step, Gemm)]
        packed = any(are_packed(*term, gemm.output.dtype) for gemm in gemms for term in gemm.terms)
        with self.device:
            return peak_rates.peak_rates(self.cupy, multiply, self._seconds, packed)

    def note(self) -> str:
        """Return how the program is run, for its listing."""
        graphs = sum(segment.graph is not None for segment in self.segments)
        return f"{len(self.calls)} launches and calls, {graphs} CUDA graph(s)"

    def __del__(self) -> None:
        for segment in getattr(self, "segments", []):
            segment.graph = None  # before the memory that it writes

    # --- from turns to calls ----------------------------------------------------------------------

    def _calls(self) -> Iterator[Call]:
        """Yield the calls of the whole program, the generated kernels not yet compiled."""
        for phase in self.schedule.phases:
            launch, room = Call([], captured=True), MAX_ARGUMENTS
            for turn in phase:
                if turn.task.outputs and not any(value.size for value in turn.task.outputs):
                    continue  # there is nothing to compute
                try:
                    kernels = [kernel for kernel in self._kernels(turn.task) if kernel.blocks]
                    arguments = sum(len(kernel.arrays) for kernel in kernels)
                    if arguments > MAX_ARGUMENTS:
                        raise Unsupported(turn.task.name)
                except Unsupported:
                    yield from self._library_calls(turn.task)
                    continue
                if arguments > room:
                    yield launch
                    launch, room = Call([], captured=True), MAX_ARGUMENTS
                room -= arguments
                launch.tasks.append(turn.task)
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
            arrays = tuple(array for kernel in call.kernels for array in kernel.arrays)
            blocks = sum(kernel.blocks for kernel in call.kernels)
            call.run = partial(module.get_function(launch_name(number)), (blocks,), (THREADS,), arrays)

    def _kernels(self, task: Task) -> list[Kernel]:
        """Return the kernels of a step; one of no elements has no blocks."""
        arrays = self.memory.arrays
        if isinstance(task, Group):
            values = dict.fromkeys([*task.inputs, *task.outputs])
            places = {value: arrays[value] for value in values if not is_literal(value)}
            return [group_kernel(task.members, task.outputs, places, task.members[0].output.shape)]
        if isinstance(task, Copy):
            return [copy_kernel(task.state.array, arrays[task.value])]
        if isinstance(task, Advance):
            return [advance_kernel(self._stream(task.generator).state, task.count)]
        if not is_generated(task):
            raise Unsupported(task.name)
        assert isinstance(task, Instruction)
        out, inputs = arrays[task.output], [arrays[value] for value in task.inputs]
        if is_random(task):
            state = self._stream(task.attributes["generator"]).state
            return [draw_kernel(task.name, state, self.places[id(task)], out)]
        return LOWERINGS[task.primitive](task, inputs, out, self._zeros)

    def _stream(self, generator: Generator) -> Philox:
        """Return the stream of a generator on this GPU, ready to be drawn from."""
        return generator.of(self.cupy, self.first)

    def _empty(self, shape: Sequence[int], dtype: numpy.dtype) -> Array:
        """Return memory for a copy, which the executor keeps."""
        self.scratch.append(self.cupy.empty(shape, dtype))
        return self.scratch[-1]

    def _zeros(self, count: int, dtype: numpy.dtype) -> Array:
        """Return memory for a kernel, which the executor keeps."""
        self.scratch.append(self.cupy.zeros(count, dtype))
        return self.scratch[-1]

    def _library_calls(self, task: Task) -> Iterator[Call]:
        """Yield the calls of cuBLAS or CuPy for a step, and before them what makes copies for cuBLAS."""
        arrays = self.memory.arrays
        factors = Factors(self._empty)
        if isinstance(task, Gemm):
            out = arrays[task.output]
            terms = [(arrays[a], arrays[b]) for a, b in task.terms if a.size and b.size]
            if not terms:
                yield Call([task], captured=True, kernels=[fill_kernel(out, 0)])
            elif self.products is not None and self.products.computes(out):
                dtypes = [a.dtype if are_packed(a, b, out.dtype) else out.dtype for a, b in terms]
                terms = [
                    (factors.matrix(a, dtype), factors.matrix(b, dtype))
                    for (a, b), dtype in zip(terms, dtypes, strict=True)
                ]
                yield from self._copies(task, factors)
                yield Call([task], partial(_add_up, self.products.gemm, terms, out), captured=True)
            else:
                yield Call([task], partial(_add_up, self._matmul, terms, out))
            return
        if isinstance(task, Group):
            yield Call([task], partial(self._run_members, task))
            return
        assert isinstance(task, Instruction)
        out, inputs = arrays[task.output], [arrays[value] for value in task.inputs]
        if task.primitive is matmul_ and self.products is not None and self.products.computes(out):
            run = self._stacked(inputs, out, factors)
            yield from self._copies(task, factors)
            if run is not None:
                yield Call([task], run, captured=True)
            return
        forward = partial(task.primitive.forward, self.cupy, *inputs, **task.attributes)
        yield Call([task], partial(forward, out=arrays[task.output]))

    def _stacked(self, inputs: list[Array], out: Array, factors: Factors) -> Callable[[], Any] | None:
        """Return the call of cuBLAS for a product of stacks of matrices, if one is needed."""
        assert self.products is not None
        a, b = inputs
        if not a.size or not b.size:
            factors.copies.append(fill_kernel(out, 0))
            return None
        matrices = as_matrices(a, b, out)
        if matrices is not None:
            left, right = (factors.matrix(matrix, out.dtype) for matrix in matrices[:2])
            return partial(self.products.gemm, left, right, matrices[2], False)
        a, b = (factors.stack(stack, out.dtype, out.shape[:-2]) for stack in (a, b))
        return self.products.stacked(a, b, out)

    def _copies(self, task: Task, factors: Factors) -> Iterator[Call]:
        if factors.copies:
            yield Call([task], captured=True, kernels=factors.copies)

    def _matmul(self, a: Array, b: Array, out: Array, add: bool) -> None:
        a, b = as_factors(self.cupy, a, b, out.dtype)
        if add:
            self.cupy.add(out, self.cupy.matmul(a, b), out=out)
        else:
            self.cupy.matmul(a, b, out=out)

    def _run_members(self, group: Group) -> None:
        """Compute a group for which no kernel can be generated, member by member."""
        known = dict(self.memory.arrays)
        for member in group.members:
            inputs = [known[value] for value in member.inputs]
            out = known.get(member.output)
            result = member.primitive.forward(self.cupy, *inputs, out=out, **member.attributes)
            known[member.output] = result


def _add_up(
    multiply: Callable[[Array, Array, Array, bool], None], factors: list[tuple[Array, Array]], out: Array
) -> None:
    """Compute a sum of matrix products in one array."""
    for i, (a, b) in enumerate(factors):
        multiply(a, b, out, i > 0)
