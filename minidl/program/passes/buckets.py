"""The pass that turns sums over processes into few large messages, which travel while the step goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import devices
from minidl.devices import Array
from minidl.distributed.sums import allreduce_
from minidl.primitives.indexing import slice_
from minidl.primitives.shape import reshape_
from minidl.program.costs import flops
from minidl.program.program import AdvanceSum, BeginSum, EndSum, Instruction, Message, Program, Step, Value

#: A message is sent when it has so many bytes. Larger ones cost less each byte, smaller ones begin earlier.
BUCKET_BYTES = 1 << 20

#: After steps of so many floating-point operations, messages on their way are moved on.
LONG_STEP = 10_000_000

#: Values in a message begin at multiples of so many bytes, as vector instructions like it.
ALIGNMENT = 64


def send_in_buckets(program: Program) -> Program:
    """Replace sums over processes by steps that begin a message, and steps that wait for its end.

    Those that may wait for others share buckets of BUCKET_BYTES, in the order in which their inputs become
    complete. A message begins when the last of its values is there; the first step that reads one of them
    comes after its end. All processes have the same buckets: neither depends on how many rows a process has.
    A value that nothing else reads is computed in the message's memory, so that nothing is copied.
    """
    sums = [step for step in program.steps if isinstance(step, Instruction) and step.primitive is allreduce_]
    if not sums:
        return program
    position = {value: i for i, step in enumerate(program.steps) for value in step.outputs}
    like = next(value.array for value in program.values() if value.array is not None)
    buckets = [*_buckets(sums, position, _sums_before(program))]
    placed = _only_read_by_sums(program)
    begin_after: dict[int, list[_Bucket]] = {}
    for bucket in buckets:
        last = max(position.get(value, -1) for value in bucket.values)
        begin_after.setdefault(last, []).append(bucket)
    bucket_of = {step.output: bucket for bucket in buckets for step in bucket.sums}
    steps: list[Step] = []
    steps += [bucket.begin(placed, like) for bucket in begin_after.get(-1, [])]
    for i, step in enumerate(program.steps):
        if not (isinstance(step, Instruction) and step.primitive is allreduce_):
            for value in step.inputs:
                if value in bucket_of:
                    steps += bucket_of[value].end()
            steps.append(step)
        for bucket in begin_after.get(i, []):
            for value in bucket.values:  # the sum of a sum
                if value in bucket_of:
                    steps += bucket_of[value].end()
            steps.append(bucket.begin(placed, like))
    for bucket in buckets:
        steps += bucket.end()
    steps = [*_advancing(_as_sums_arrive(steps))]
    return Program(program.inputs, steps, program.outputs, program.updates)


def _as_sums_arrive(steps: list[Step]) -> list[Step]:
    """Order steps by the latest message that they need: what needs none, or an earlier one, comes first."""
    number = {step.message: i for i, step in enumerate(s for s in steps if isinstance(s, BeginSum))}
    latest: dict[Value, int] = {}
    keys: list[int] = []
    last_draw = -1
    for step in steps:
        key = max((latest.get(value, -1) for value in step.inputs), default=-1)
        if isinstance(step, EndSum):
            key = max(key, number[step.message])
        if step.generator is not None:  # draws stay in their order
            key = last_draw = max(key, last_draw)
        keys.append(key)
        latest |= dict.fromkeys(step.outputs, key)
    return [steps[i] for i in sorted(range(len(steps)), key=keys.__getitem__)]


def _advancing(steps: list[Step]) -> Iterator[Step]:
    """Yield the steps, and after each long one, while messages are on their way, one that moves them on."""
    on_their_way: list[BeginSum] = []
    for step in steps:
        yield step
        if isinstance(step, BeginSum):
            on_their_way.append(step)
        elif isinstance(step, EndSum):
            on_their_way = [begin for begin in on_their_way if begin.message is not step.message]
        elif on_their_way and flops(step) >= LONG_STEP:
            begin = on_their_way[-1]
            yield AdvanceSum(begin.token, begin.message, Value((), numpy.dtype(numpy.uint8)), step.phase)


@dataclass(eq=False)
class _Bucket:
    """Sums that travel in one message."""

    sums: list[Instruction] = field(default_factory=list)
    nbytes: int = 0
    bits: int = 0
    message: Message | None = None
    is_ended: bool = False

    @property
    def values(self) -> list[Value]:
        return [step.inputs[0] for step in self.sums]

    def begin(self, placed: set[Value], like: Array) -> BeginSum:
        """Return the step that begins the message; values of ``placed`` get their places in its memory."""
        dtype = self.values[0].dtype
        places: list[slice] = []
        length = 0
        for value in self.values:
            places.append(slice(length, length + value.size))
            length += -(-value.nbytes // ALIGNMENT) * ALIGNMENT // dtype.itemsize
        with devices.current(like):
            memory = devices.array_module(like).zeros(length, dtype)
        self.message = Message(self.sums[0].attributes["communicator"], memory)
        self.places, self.token = places, Value((), numpy.dtype(numpy.uint8))
        for value, place in zip(self.values, places, strict=True):
            if value in placed:
                value.array = self.message.array[place].reshape(value.shape)
        return BeginSum(self.values, places, self.message, self.token, self.sums[-1].phase)

    def end(self) -> list[Step]:
        """Return the steps that wait for the sums and find them in the memory, unless that was done."""
        if self.is_ended:
            return []
        self.is_ended = True
        assert self.message is not None
        phase = "update" if self.sums[0].attributes["waits"] else self.sums[0].phase
        array = self.message.array
        whole = Value(array.shape, array.dtype, array=array)
        steps: list[Step] = [EndSum(self.token, self.message, whole, phase)]
        for step, place in zip(self.sums, self.places, strict=True):
            part = Value((step.output.size,), array.dtype)
            steps.append(Instruction(slice_, [whole], {"key": (place,)}, part, phase))
            steps.append(Instruction(reshape_, [part], {"shape": step.output.shape}, step.output, phase))
        return steps


def _buckets(
    sums: list[Instruction], position: dict[Value, int], before: dict[Value, int]
) -> Iterator[_Bucket]:
    """Yield the buckets: one for a sum that cannot wait, and those that can in the order of their inputs."""
    open_buckets: dict[Any, _Bucket] = {}
    order = sorted(range(len(sums)), key=lambda i: (position.get(sums[i].inputs[0], -1), i))
    for step in (sums[i] for i in order):
        if not step.attributes["waits"]:
            yield _Bucket([step], step.output.nbytes)
            continue
        key = (id(step.attributes["communicator"]), step.output.dtype)
        if key in open_buckets and before.get(step.inputs[0], 0) & open_buckets[key].bits:
            yield open_buckets.pop(key)  # which must be on its way before this one can be computed
        bucket = open_buckets.setdefault(key, _Bucket())
        bucket.bits |= before[step.output] & ~before.get(step.inputs[0], 0)
        bucket.sums.append(step)
        bucket.nbytes += step.output.nbytes
        if bucket.nbytes >= BUCKET_BYTES:
            yield open_buckets.pop(key)
    yield from open_buckets.values()


def _only_read_by_sums(program: Program) -> set[Value]:
    """Return the results that are computed by a step, and read by one sum over processes and nothing else."""
    readers: dict[Value, list[Step]] = {}
    for step in program.steps:
        for value in step.inputs:
            readers.setdefault(value, []).append(step)
    needed = set(program.results_needed)
    return {
        value
        for step in program.steps
        if not step.is_view
        for value in step.outputs
        if value not in needed
        and len(readers.get(value, ())) == 1
        and isinstance(readers[value][0], Instruction)
        and readers[value][0].operation is allreduce_
    }


def _sums_before(program: Program) -> dict[Value, int]:
    """Return which sums over processes each value depends on, as bits; that of a sum has its own bit."""
    before: dict[Value, int] = {}
    count = 0
    for step in program.steps:
        bits = 0
        for value in step.inputs:
            bits |= before.get(value, 0)
        if step.operation is allreduce_:
            bits |= 1 << count
            count += 1
        if bits:
            before |= dict.fromkeys(step.outputs, bits)
    return before
