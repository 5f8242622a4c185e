"""What a recorded step is: a list of operations on values, without side effects until its end.

A program maps inputs and state to outputs and new state. Every value is computed once and never
changes; assignments are collected in ``updates`` and take effect after everything was computed.
Passes rewrite programs without having to think of the order of reads and writes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.devices import Array
from minidl.primitives.primitive import Kind, Primitive
from minidl.program.lowered.rounding import as_factors
from minidl.random.generator import Generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minidl.program.executor import Executor


@dataclass(eq=False, repr=False)
class Value:
    """Something a program computes or is given.

    Attributes
    ----------
    kind : ``"input"`` (changes with every call), ``"state"`` (a Tensor that lives outside and is read
        at every replay), ``"constant"``, or ``"result"`` of an operation
    array : the memory of an input, state or constant
    tensor : the Tensor whose state it is
    """

    shape: tuple[int, ...]
    dtype: numpy.dtype
    kind: str = "result"
    array: Array = None
    tensor: Any = None

    def __repr__(self) -> str:
        return f"Value({self.kind}, {self.dtype}, shape={self.shape})"

    @property
    def size(self) -> int:
        """The number of elements."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def nbytes(self) -> int:
        """The number of bytes of its elements."""
        return self.size * self.dtype.itemsize


class BaseStep:
    """What can be asked of every step, whatever it computes.

    Beside this, each has ``inputs``, ``outputs``, ``name``, and ``phase``: ``"forward"``, ``"backward"`` or
    ``"update"``. Costs, partitions among threads and the lowerings of each executor are tables by
    ``operation``: costs.py, plan/partition.py, cpu/lowering.py, cpu/calls.py, gpu/kernels/lowering.py,
    gpu/calls.py.
    """

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """What lists of steps call it."""

        @property
        def outputs(self) -> list[Value]:
            """The values it computes."""

    def __repr__(self) -> str:
        shapes = ", ".join(str(value.shape) for value in self.outputs)
        return f"{type(self).__name__}({self.name:.80} -> {shapes})"

    @property
    def operation(self) -> Operation:
        """What it computes, as a key of tables: the primitive of an Instruction, else the class."""
        return type(self)

    @property
    def is_view(self) -> bool:
        """Whether its result shares the memory of its input wherever NumPy's would."""
        return False

    @property
    def is_elementwise(self) -> bool:
        """Whether it is one elementwise primitive."""
        return False

    @property
    def generator(self) -> Generator | None:
        """The Generator that it draws from, so that its place among other draws matters."""
        return None

    @property
    def is_ordered(self) -> bool:
        """Whether it keeps its place among others of this kind: draws, and messages among processes."""
        return self.generator is not None

    @property
    def writes(self) -> list[Value]:
        """The values whose memory it writes."""
        return self.outputs


#: A key of the tables about steps: a primitive, or a class of steps that are not one primitive.
Operation = Primitive | type[BaseStep]


@dataclass(eq=False, repr=False)
class Instruction(BaseStep):
    """One primitive applied to values."""

    primitive: Primitive
    inputs: list[Value]
    attributes: dict[str, Any]
    output: Value
    phase: str = "forward"

    @property
    def outputs(self) -> list[Value]:
        """The values it computes."""
        return [self.output]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return self.primitive.name

    @property
    def operation(self) -> Operation:
        """The primitive."""
        return self.primitive

    @property
    def is_view(self) -> bool:
        """Whether its result shares the memory of its input wherever NumPy's would."""
        return self.primitive.kind is Kind.VIEW

    @property
    def is_elementwise(self) -> bool:
        """Whether it is one elementwise primitive."""
        return self.primitive.kind is Kind.ELEMENTWISE

    @property
    def generator(self) -> Generator | None:
        """The Generator that it draws from, if it does."""
        return self.attributes["generator"] if self.primitive.kind is Kind.RANDOM else None

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute the outputs from the arrays of the inputs, with nothing planned."""
        inputs = [arrays[value] for value in self.inputs]
        return {self.output: xp.asarray(self.primitive.forward(xp, *inputs, **self.attributes))}


@dataclass(eq=False, repr=False)
class Group(BaseStep):
    """Elementwise instructions of one shape that run together, block by block, in cache.

    ``outputs`` are the values that others read; the rest never leaves the cache.
    """

    members: list[Instruction]
    outputs: list[Value] = field(default_factory=list)

    @property
    def inputs(self) -> list[Value]:
        """The values it reads that it does not compute."""
        inside = {member.output for member in self.members}
        read = [value for member in self.members for value in member.inputs if value not in inside]
        return list(dict.fromkeys(read))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all members' results."""
        return self.members[0].output.shape

    @property
    def phase(self) -> str:
        """The phase of the first member."""
        return self.members[0].phase

    @property
    def name(self) -> str:
        """The members' names, shortened if they are many."""
        names = [member.name for member in self.members]
        return " ".join(names) if len(names) <= 4 else f"{' '.join(names[:3])} +{len(names) - 3}"

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute all members, one after another."""
        known = dict(arrays)
        for member in self.members:
            known |= member.evaluate(xp, known)
        return {member.output: known[member.output] for member in self.members}


@dataclass(eq=False, repr=False)
class Rows(Group):
    """Elementwise instructions and reductions along the last axis that run together, row by row, in cache.

    Results of members are of one shape, or have a last axis of length 1 instead: one number for each row.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all rows."""
        reduction = next(member for member in self.members if not member.is_elementwise)
        return reduction.inputs[0].shape


@dataclass(eq=False, repr=False)
class Gemm(BaseStep):
    """A sum of matrix products, ``a1 @ b1 + a2 @ b2 + ...``, in one buffer."""

    terms: list[tuple[Value, Value]]
    output: Value
    phase: str = "forward"

    @property
    def inputs(self) -> list[Value]:
        """The factors."""
        return [value for term in self.terms for value in term]

    @property
    def outputs(self) -> list[Value]:
        """The sum."""
        return [self.output]

    @property
    def name(self) -> str:
        """``matmul``, with the number of further products added to it."""
        return "matmul" + f" + {len(self.terms) - 1} more" * (len(self.terms) > 1)

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute the products and add them up."""
        factors = (as_factors(xp, arrays[a], arrays[b], self.output.dtype) for a, b in self.terms)
        products = (xp.matmul(a, b) for a, b in factors)
        return {self.output: functools.reduce(xp.add, products)}


@dataclass(eq=False, repr=False)
class PartialSum(BaseStep):
    """The sums over blocks of a value, one block for each thread, to be added up later.

    ``axis`` is what the whole sum reduces, ``split`` the one of these axes along which there are blocks.
    The output has the block as its first axis, and then the axes of the value, summed ones of length 1.
    """

    value: Value
    axis: tuple[int, ...]
    split: int
    output: Value
    phase: str = "forward"
    name: str = "sum by parts"

    @property
    def inputs(self) -> list[Value]:
        """What is summed."""
        return [self.value]

    @property
    def outputs(self) -> list[Value]:
        """The sums of the blocks."""
        return [self.output]

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute the sum of each block."""
        array, parts = arrays[self.value], self.output.shape[0]
        before = (slice(None),) * self.split
        blocks = (array[(*before, share(array.shape[self.split], i, parts))] for i in range(parts))
        return {self.output: xp.stack([xp.sum(block, axis=self.axis, keepdims=True) for block in blocks])}


@dataclass(eq=False, repr=False)
class OnePass(Group):
    """A group, and what is done beside it in the same pass over memory.

    Its first member may put gradients where the largest elements of windows are, the last one may pick the
    largest elements of windows (max pooling and its gradient; the windows lie side by side and cover all).
    ``sums`` are over blocks of members' results; ``outputs`` has their outputs behind those of members.
    """

    sums: list[PartialSum] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the elementwise members' results."""
        return next(member.output.shape for member in self.members if member.is_elementwise)

    @property
    def name(self) -> str:
        """The members' names, and how many sums there are."""
        return super().name + (f", {len(self.sums)} sum{'s' * (len(self.sums) > 1)}" if self.sums else "")

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute all members, and then the sums."""
        results = super().evaluate(xp, arrays)
        for partial in self.sums:
            results |= partial.evaluate(xp, results)
        return results


@dataclass(eq=False, repr=False)
class Partial(BaseStep):
    """A sum over observations, computed for blocks of them, one for each thread, to be added up later.

    ``whole`` is the instruction, and every input of it has the observations as its first axis. The output has
    the block as its first axis, and then those of the whole result.
    """

    whole: Instruction
    output: Value

    @property
    def inputs(self) -> list[Value]:
        """The inputs of the instruction."""
        return self.whole.inputs

    @property
    def outputs(self) -> list[Value]:
        """The results of the blocks."""
        return [self.output]

    @property
    def phase(self) -> str:
        """The phase of the instruction."""
        return self.whole.phase

    @property
    def name(self) -> str:
        """The name of the instruction."""
        return f"{self.whole.name} by parts"

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Compute the result of each block."""
        inputs, parts = [arrays[value] for value in self.inputs], self.output.shape[0]
        blocks = ([array[share(len(array), i, parts)] for array in inputs] for i in range(parts))
        forward = self.whole.primitive.forward
        return {self.output: xp.stack([forward(xp, *b, **self.whole.attributes) for b in blocks])}


class Message:
    """A sum over all processes in one piece of memory, from its beginning to its end.

    Attributes
    ----------
    array : the memory, in which all values of the message lie
    times : how many seconds went by, the last time, between the beginning and the call that waits for the
        end, and from there to the end
    """

    def __init__(self, communicator: Any, array: Array):
        self.communicator, self.array = communicator, array
        self.times = (0.0, 0.0)
        self._finish: Any = None
        self._begun = 0.0

    def begin(self) -> None:
        """Begin the sum, of what is in the memory now."""
        self.communicator.progress()
        self._begun = perf_counter()
        self._finish = self.communicator.begin_sum(self.array)

    def end(self) -> None:
        """Wait until the memory has the sum."""
        asked = perf_counter()
        self._finish()
        self.times = (asked - self._begun, perf_counter() - asked)


@dataclass(eq=False)
class BeginSum(BaseStep):
    """Puts values into the memory of a message, one after another, and begins to sum it over all processes.

    A value that lies there already stays; ``token`` says that it has happened.
    """

    values: list[Value]
    places: list[slice]
    message: Message
    token: Value
    phase: str = "backward"

    @property
    def inputs(self) -> list[Value]:
        """What is summed."""
        return self.values

    @property
    def outputs(self) -> list[Value]:
        """The token."""
        return [self.token]

    @property
    def name(self) -> str:
        """What it does, and with how much."""
        return f"begin allreduce of {self.message.array.nbytes / 1024:.0f} KB"

    @property
    def is_ordered(self) -> bool:
        """Whether it keeps its place: every process begins its messages in one order."""
        return True

    def run(self, arrays: Sequence[Array]) -> None:
        """Begin the sum of these arrays of the values."""
        for array, place in zip(arrays, self.places, strict=True):
            target = self.message.array[place]
            if not is_same_memory(array, target):
                devices.write(target.reshape(array.shape), array)
        self.message.begin()

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Begin the sum; the token is a number."""
        self.run([arrays[value] for value in self.values])
        return {self.token: xp.zeros((), numpy.uint8)}


@dataclass(eq=False)
class _AfterBegin(BaseStep):
    """A step about a message that has been begun: it needs the token of the beginning."""

    token: Value
    message: Message
    output: Value
    phase: str = "backward"

    @property
    def inputs(self) -> list[Value]:
        """The token of the beginning."""
        return [self.token]

    @property
    def outputs(self) -> list[Value]:
        """What the step gives."""
        return [self.output]

    @property
    def is_ordered(self) -> bool:
        """Whether it keeps its place: one thread talks with other processes."""
        return True


@dataclass(eq=False)
class AdvanceSum(_AfterBegin):
    """Lets messages on their way move on between long steps: most kinds of MPI do so only when called.

    ``output`` is a number that nobody reads.
    """

    name: str = "advance allreduce"

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Let messages move on."""
        self.message.communicator.progress()
        return {self.output: xp.zeros((), numpy.uint8)}


@dataclass(eq=False)
class EndSum(_AfterBegin):
    """Waits until a message has come to its end; then its memory has the sums.

    ``output`` is the whole memory of the message.
    """

    name: str = "end allreduce"

    def evaluate(self, xp: Any, arrays: Mapping[Value, Array]) -> dict[Value, Array]:
        """Wait for the sum."""
        self.message.end()
        return {self.output: self.message.array}


def is_same_memory(array: Array, other: Array) -> bool:
    """Return whether two contiguous arrays of one size begin at the same place."""
    if isinstance(array, numpy.ndarray):
        return bool(array.flags.c_contiguous and array.ctypes.data == other.ctypes.data)
    return bool(array.flags.c_contiguous and array.data.ptr == other.data.ptr)


Step = Instruction | Group | Rows | OnePass | Gemm | PartialSum | Partial | BeginSum | AdvanceSum | EndSum


def share(length: int, index: int, parts: int) -> slice:
    """Return the part of a length that belongs to one of several threads."""
    return slice(length * index // parts, length * (index + 1) // parts)


@dataclass(eq=False)
class Program:
    """A recorded function.

    Attributes
    ----------
    inputs : values that each call provides
    steps : operations in an order in which they can be computed
    outputs : values that each call returns
    updates : what each state becomes after the call
    executor : what runs it, once it is compiled
    """

    inputs: list[Value]
    steps: list[Step]
    outputs: list[Value]
    updates: dict[Value, Value]
    executor: Executor | None = None

    def values(self) -> Iterator[Value]:
        """Yield every value that a step reads or computes, or that is returned, each once."""
        seen: dict[Value, None] = dict.fromkeys(self.inputs)
        for step in self.steps:
            seen |= dict.fromkeys([*step.inputs, *step.outputs])
        seen |= dict.fromkeys([*self.outputs, *self.updates, *self.updates.values()])
        return iter(seen)

    @property
    def states(self) -> list[Value]:
        """Every state that the program reads or updates."""
        return [value for value in self.values() if value.kind == "state"]

    @property
    def generators(self) -> list[Generator]:
        """The generators that the program draws from."""
        return list(dict.fromkeys(step.generator for step in self.steps if step.generator is not None))

    @property
    def results_needed(self) -> list[Value]:
        """The values that must exist at the end: outputs and new state."""
        return list(dict.fromkeys([*self.outputs, *self.updates.values()]))

    def evaluate(self, inputs: Sequence[Array]) -> tuple[list[Array], dict[Value, Array]]:
        """Compute outputs and new state step by step, and change nothing: the reference for executors."""
        arrays = dict(zip(self.inputs, inputs, strict=True))
        arrays |= {value: value.array for value in self.values() if value.kind in ("state", "constant")}
        for step in self.steps:
            first = arrays[step.inputs[0]]
            with devices.current(first):
                arrays |= step.evaluate(devices.array_module(first), arrays)
        return [arrays[value] for value in self.outputs], {
            state: arrays[value] for state, value in self.updates.items()
        }

    def summary(self) -> str:
        """Return the readable listing that print() shows: every step with its shapes and costs."""
        from minidl.program.reports.listing import listing

        return listing(self)

    def profile(self, repeats: int = 20) -> str:
        """Time every step over several replays and return the listing with times in it.

        The replays work on the state as it is now, which is restored afterwards. Random generators
        do advance.
        """
        from minidl.program.reports.listing import listing
        from minidl.program.reports.profile import measure

        return listing(self, measure(self, repeats))

    def plot(self, path: str | PathLike[str] | None = None, repeats: int = 20) -> Figure:
        """Draw where the time goes and how the memory is used over the step.

        Returns the figure, which a notebook shows; it is written to a file if one is named.
        """
        from minidl.program.reports.plot import plot_program
        from minidl.program.reports.profile import measure

        return plot_program(self, measure(self, repeats), path)

    def __repr__(self) -> str:
        """Return how many operations there are, and between what; print() shows them."""
        inputs = ", ".join(str(value.shape) for value in self.inputs)
        outputs = ", ".join(str(value.shape) for value in self.outputs)
        return f"Program({len(self.steps)} steps, ({inputs}) -> ({outputs}); print() lists them)"

    def __str__(self) -> str:
        return self.summary()
