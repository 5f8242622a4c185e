"""Passes on single instructions: they drop, share or rewrite what can be computed with less work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl import devices
from minidl.primitives.elementwise import add, cast, negative
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.reduction import sum_
from minidl.primitives.shape import broadcast_to_, detach, transpose_
from minidl.program.program import Gemm, Instruction, Program, Step, Value


def instructions(program: Program) -> list[Instruction]:
    """Return the steps of a program before grouping, all of them single instructions."""
    assert all(isinstance(step, Instruction) for step in program.steps)
    return program.steps  # type: ignore[return-value]


def readers_of(program: Program) -> dict[Value, int]:
    """Return how many times each value is read by steps."""
    readers: dict[Value, int] = {}
    for step in program.steps:
        for value in step.inputs:
            readers[value] = readers.get(value, 0) + 1
    return readers


def rewritten(program: Program, rewrite: Callable[[Instruction], Instruction | Value]) -> Program:
    """Replace each instruction by what ``rewrite`` returns: an instruction, or a value that exists."""
    same: dict[Value, Value] = {}
    steps: list[Step] = []
    for step in instructions(program):
        inputs = [same.get(value, value) for value in step.inputs]
        result = rewrite(Instruction(step.primitive, inputs, step.attributes, step.output, step.phase))
        if isinstance(result, Value):
            same[step.output] = result
        else:
            steps.append(result)
    return Program(
        program.inputs,
        steps,
        [same.get(value, value) for value in program.outputs],
        {state: same.get(value, value) for state, value in program.updates.items()},
    )


def drop_aliases(program: Program) -> Program:
    """Let readers of detach() read its input, which is the same array."""
    return rewritten(program, lambda step: step.inputs[0] if step.primitive is detach else step)


def fold_constants(program: Program) -> Program:
    """Compute now what depends on constants alone; random draws stay."""

    def rewrite(step: Instruction) -> Instruction | Value:
        if step.is_ordered or any(value.kind != "constant" for value in step.inputs):
            return step
        arrays = {value: value.array for value in step.inputs}
        first = step.inputs[0].array
        with devices.current(first):
            array = step.evaluate(devices.array_module(first), arrays)[step.output]
        return Value(step.output.shape, step.output.dtype, "constant", array)

    return rewritten(program, rewrite)


def broadcast_in_place(program: Program) -> Program:
    """Let elementwise instructions broadcast by themselves where another input has the full shape."""
    sources: dict[Value, Value] = {}

    def rewrite(step: Instruction) -> Instruction:
        if step.primitive is broadcast_to_:
            sources[step.output] = step.inputs[0]
        if step.is_elementwise:
            narrow = [_narrow_constant(sources.get(value, value)) for value in step.inputs]
            if numpy.broadcast_shapes(*(value.shape for value in narrow)) == step.output.shape:
                step.inputs = narrow
        return step

    return rewritten(program, rewrite)


def _narrow_constant(value: Value) -> Value:
    """Return a constant that was broadcast from one number as that number."""
    if value.kind == "constant" and value.size > 1 and not any(value.array.strides):
        with devices.current(value.array):
            one = value.array[(0,) * len(value.shape)].reshape((1,) * len(value.shape))
        return Value(one.shape, value.dtype, "constant", one)
    return value


def merge_equal(program: Program) -> Program:
    """Compute equal expressions once; random draws are never equal."""
    seen: dict[tuple[Any, ...], Value] = {}
    constants: dict[tuple[Any, ...], Value] = {}

    def identity(value: Value) -> Value:
        if value.kind == "constant" and value.size == 1:
            place, number = devices.device_of(value.array), devices.to_numpy(value.array).tobytes()
            return constants.setdefault((value.shape, value.dtype, place, number), value)
        return value

    def rewrite(step: Instruction) -> Instruction | Value:
        if step.generator is not None:
            return step
        step.inputs = [identity(value) for value in step.inputs]
        key = (step.primitive, *map(id, step.inputs), repr(sorted(step.attributes.items())))
        if key in seen:
            return seen[key]
        seen[key] = step.output
        return step

    return rewritten(program, rewrite)


def drop_dead(program: Program) -> Program:
    """Drop what nobody reads. Random draws stay, so that the generator's stream is the eager one."""
    needed = set(program.results_needed)
    steps: list[Step] = []
    for step in reversed(program.steps):
        if step.generator is not None or not needed.isdisjoint(step.outputs):
            needed.update(step.inputs)
            steps.append(step)
    return Program(program.inputs, steps[::-1], program.outputs, program.updates)


def protect_old_state(program: Program) -> Program:
    """Copy what is returned or assigned, if it is the memory of an input or a state, or a view of it.

    After this pass, an update may overwrite its state without changing what the program returns.
    """
    outside = {value for value in program.values() if value.kind in ("input", "state")}
    for step in instructions(program):
        if step.is_view and step.inputs[0] in outside:
            outside.add(step.output)
    copies: dict[Value, Value] = {}
    steps = list(program.steps)
    for value in program.results_needed:
        if value in outside:
            copies[value] = Value(value.shape, value.dtype)
            steps.append(Instruction(cast, [value], {"dtype": value.dtype}, copies[value]))
    return Program(
        program.inputs,
        steps,
        [copies.get(value, value) for value in program.outputs],
        {state: copies.get(value, value) for state, value in program.updates.items()},
    )


def drop_idle_casts(program: Program) -> Program:
    """Let readers of a cast to the same dtype read its input."""

    def rewrite(step: Instruction) -> Instruction | Value:
        idle = step.primitive is cast and step.inputs[0].dtype == step.output.dtype
        return step.inputs[0] if idle else step

    return rewritten(program, rewrite)


def negate_sums(program: Program) -> Program:
    """Write the sum of negated numbers as their sum, negated: rounded alike, and an array less is stored."""
    negated: dict[Value, Value] = {}
    steps: list[Step] = []
    for step in instructions(program):
        if step.primitive is negative:
            negated[step.output] = step.inputs[0]
        source = negated.get(step.inputs[0]) if step.primitive is sum_ else None
        if source is None or source.dtype != step.output.dtype or source.dtype.kind != "f":
            steps.append(step)
            continue
        total = Value(step.output.shape, step.output.dtype)
        steps.append(Instruction(sum_, [source], step.attributes, total, step.phase))
        steps.append(Instruction(negative, [total], {}, step.output, step.phase))
    return Program(program.inputs, steps, program.outputs, program.updates)


def transpose_products(program: Program) -> Program:
    """Write the transpose of a matrix product as the product of the transposes, swapped.

    Transposes of factors are free (BLAS takes them as flags); afterwards both contributions to the
    gradient of a tied weight have the same layout and can be added up in one buffer.
    """
    factors: dict[Value, tuple[Value, Value]] = {}
    readers = readers_of(program)
    kept = set(program.results_needed)
    steps: list[Step] = []
    for step in instructions(program):
        source = step.inputs[0] if step.inputs else None
        if step.primitive is matmul_ and len(step.output.shape) == 2:
            factors[step.output] = (step.inputs[0], step.inputs[1])
        elif _is_transpose(step) and source in factors and source not in kept and readers[source] == 1:
            a, b = factors[source]
            left, right = _transposed(b, steps, step.phase), _transposed(a, steps, step.phase)
            step = Instruction(matmul_, [left, right], {}, step.output, step.phase)
            factors[step.output] = (left, right)
        steps.append(step)
    return drop_dead(
        merge_equal(_undo_double_transposes(Program(program.inputs, steps, program.outputs, program.updates)))
    )


def _is_transpose(step: Instruction) -> bool:
    """Return whether a step exchanges the axes of a matrix."""
    return step.primitive is transpose_ and step.attributes["axes"] == (1, 0)


def _transposed(value: Value, steps: list[Step], phase: str) -> Value:
    output = Value(value.shape[::-1], value.dtype)
    steps.append(Instruction(transpose_, [value], {"axes": (1, 0)}, output, phase))
    return output


def _undo_double_transposes(program: Program) -> Program:
    sources: dict[Value, Value] = {}

    def rewrite(step: Instruction) -> Instruction | Value:
        if _is_transpose(step):
            if step.inputs[0] in sources:
                return sources[step.inputs[0]]
            sources[step.output] = step.inputs[0]
        return step

    return rewritten(program, rewrite)


def accumulate_products(program: Program) -> Program:
    """Turn matrix products into Gemm steps, and sums of them into one Gemm that accumulates."""
    readers = readers_of(program)
    kept = set(program.results_needed)
    products: dict[Value, Gemm] = {}
    merged: set[int] = set()
    steps: list[Step] = []
    for step in instructions(program):
        if step.primitive is matmul_ and len(step.output.shape) == 2:
            gemm = Gemm([(step.inputs[0], step.inputs[1])], step.output, step.phase)
            products[step.output] = gemm
            steps.append(gemm)
        elif (
            step.primitive is add
            and all(v in products and readers[v] == 1 and v not in kept for v in step.inputs)
            and step.inputs[0].shape == step.inputs[1].shape
            and step.inputs[0] is not step.inputs[1]
        ):
            summands = [products.pop(value) for value in step.inputs]
            merged.update(map(id, summands))
            gemm = Gemm(summands[0].terms + summands[1].terms, step.output, step.phase)
            products[step.output] = gemm
            steps.append(gemm)
        else:
            steps.append(step)
    steps = [step for step in steps if id(step) not in merged]
    return Program(program.inputs, steps, program.outputs, program.updates)
