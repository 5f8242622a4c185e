"""A pass on shapes: elementwise work on observations of any shape, done on matrices (batch, features).

Images (128, 28, 28, 1) combined with the output of a dense layer (128, 784) are reshaped back and forth.
After this pass both are matrices, so that they can be stored, partitioned and grouped alike. What is combined
with an array that is broadcast along some of the axes (the statistics of BatchNorm, the mask of an attention)
keeps its axes, and so does all elementwise work that can be grouped with it.
"""

from __future__ import annotations

import math

import numpy

from minidl import devices
from minidl.primitives.reduction import sum_
from minidl.primitives.shape import reshape_
from minidl.program.passes.simplify import instructions
from minidl.program.program import Instruction, Program, Step, Value

Shape = tuple[int, ...]


def work_on_matrices(program: Program) -> Program:
    """Replace elementwise instructions, and sums of everything, on more than two axes by such on two.

    Inputs become matrices too: they are filled as such. Updates stay as they are, so that a new state
    can be written where the old one was.
    """
    steps: list[Step] = []
    kept = _kept(program)
    sources: dict[Value, Value] = {}  # of a value that is another one, reshaped

    def shaped(value: Value, shape: Shape, phase: str) -> Value:
        source = sources.get(value, value)
        if source.shape == shape:
            return source
        output = Value(shape, value.dtype)
        steps.append(Instruction(reshape_, [source], {"shape": shape}, output, phase))
        sources[output] = source
        return output

    inputs = [_matrix_input(value) for value in program.inputs]
    same = {old: shaped(new, old.shape, "forward") for old, new in zip(program.inputs, inputs, strict=True)}
    for step in instructions(program):
        operands = [same.get(value, value) for value in step.inputs]
        output, attributes, shape = step.output, step.attributes, _matrix_shape(step)
        shape = None if kept.find(_largest(step)) is KEPT else shape
        if step.primitive is reshape_:
            same[output] = shaped(operands[0], output.shape, step.phase)
            continue
        if shape is not None:
            operands = [shaped(value, shape if value.size != 1 else (1, 1), step.phase) for value in operands]
            if step.primitive is sum_:
                attributes = {**attributes, "axis": (0, 1)}
            else:
                output = Value(shape, output.dtype)
        steps.append(Instruction(step.primitive, operands, attributes, output, step.phase))
        if output is not step.output:
            same[step.output] = shaped(output, step.output.shape, step.phase)
    return Program(
        inputs,
        steps,
        [same.get(value, value) for value in program.outputs],
        {state: same.get(value, value) for state, value in program.updates.items()},
    )


#: Stands for all values that keep their axes.
KEPT = Value((), numpy.dtype(bool))


class _Families:
    """Values that belong together: each is found in its family's representative."""

    def __init__(self) -> None:
        self.parent: dict[Value, Value] = {}

    def find(self, value: Value) -> Value:
        """Return the representative of a value's family."""
        while value in self.parent:
            above = self.parent[value]
            self.parent[value] = self.parent.get(above, above)
            value = above
        return value

    def join(self, value: Value, other: Value) -> None:
        """Make one family of two; KEPT stands for the one that it is in."""
        value, other = self.find(value), self.find(other)
        if value is not other:
            value, other = (other, value) if value is KEPT else (value, other)
            self.parent[value] = other


def _kept(program: Program) -> _Families:
    """Return the values that elementwise work connects; those that cannot be matrices are with KEPT."""
    families = _Families()
    for step in instructions(program):
        shape = step.output.shape
        if not step.is_elementwise or len(shape) <= 2 or step.phase == "update":
            continue
        for value in step.inputs:
            if value.shape == shape and value.kind != "constant":
                families.join(value, step.output)
        if _matrix_shape(step) is None:
            families.join(step.output, KEPT)
    return families


def _largest(step: Instruction) -> Value:
    return step.inputs[0] if step.primitive is sum_ else step.output


def _matrix_input(value: Value) -> Value:
    if len(value.shape) <= 2:
        return value
    shape = (value.shape[0], math.prod(value.shape[1:]))
    with devices.current(value.array):
        return Value(shape, value.dtype, "input", value.array.reshape(shape))


def _matrix_shape(step: Instruction) -> Shape | None:
    """Return the shape of the matrices that a step can work on instead, or None."""
    if step.primitive is sum_:
        shape = step.inputs[0].shape
        possible = len(step.attributes["axis"]) == len(shape) and not step.attributes["keepdims"]
    else:
        shape = step.output.shape
        possible = (
            step.is_elementwise
            and step.phase != "update"
            and all(value.size == 1 or value.shape == shape for value in step.inputs)
        )
    if len(shape) <= 2 or not possible:
        return None
    return shape[0], math.prod(shape[1:])
