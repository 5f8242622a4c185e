"""The pass that lets neighbours of reshapes work on the same matrices.

Dense layers work on matrices, and what comes before and after them on more axes, reshaped back and forth.
After this pass all are matrices, so that they can be stored, partitioned and grouped alike, and joined row by
row. What is broadcast along other axes than those of the matrix keeps its axes.
"""

from __future__ import annotations

import math

from minidl import devices
from minidl.primitives.reduction import max_, min_, sum_
from minidl.primitives.shape import reshape_
from minidl.program.passes.simplify import instructions
from minidl.program.program import Instruction, Program, Step, Value

Shape = tuple[int, ...]

REDUCTIONS = (sum_, max_, min_)


def work_on_matrices(program: Program) -> Program:
    """Replace elementwise instructions and reductions of what is a matrix, reshaped, by such of the matrix.

    Inputs become matrices too: they are filled as such. Updates stay as they are, so that a new state
    can be written where the old one was.
    """
    pass_ = _Pass()
    inputs = [_matrix_input(value) for value in program.inputs]
    for old, new in zip(program.inputs, inputs, strict=True):
        if new is not old:
            pass_.same[old] = pass_.shaped(new, old.shape, "forward")
    for step in instructions(program):
        pass_.add(step)
    same = pass_.same
    return Program(
        inputs,
        pass_.steps,
        [same.get(value, value) for value in program.outputs],
        {state: same.get(value, value) for state, value in program.updates.items()},
    )


def _matrix_input(value: Value) -> Value:
    if len(value.shape) <= 2:
        return value
    shape = (value.shape[0], math.prod(value.shape[1:]))
    with devices.current(value.array):
        return Value(shape, value.dtype, "input", value.array.reshape(shape))


class _Pass:
    """The new steps.

    Attributes
    ----------
    same : by values of the old program those that are in their place
    sources : of values that are others, reshaped, these others
    strided : values that lie strided in memory, so that to reshape them is to copy them
    copies : of strided values the first one that was reshaped, from which all other shapes are made
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.same: dict[Value, Value] = {}
        self.sources: dict[Value, Value] = {}
        self.strided: set[Value] = set()
        self.copies: dict[Value, Value] = {}

    def shaped(self, value: Value, shape: Shape, phase: str) -> Value:
        """Return a value in another shape."""
        source = self.sources.get(value, value)
        source = source if source.shape == shape else self.copies.get(source, source)
        if source.shape == shape:
            return source
        output = Value(shape, value.dtype)
        self.steps.append(Instruction(reshape_, [source], {"shape": shape}, output, phase))
        if source in self.strided:
            self.copies[source] = output
        else:
            self.sources[output] = source
        return output

    def add(self, step: Instruction) -> None:
        """Add a step of the old program, or what takes its place."""
        operands = [self.same.get(value, value) for value in step.inputs]
        new = Instruction(step.primitive, operands, step.attributes, step.output, step.phase)
        if step.primitive is reshape_:
            self.same[step.output] = self.shaped(operands[0], step.output.shape, step.phase)
        elif step.is_elementwise and step.phase != "update":
            self._replace(step, self._elementwise(new) or new)
        elif step.primitive in REDUCTIONS and step.phase != "update":
            self._replace(step, self._reduction(new))
        else:
            self.steps.append(new)
            if step.is_view:
                self.strided.add(step.output)

    def _replace(self, step: Instruction, new: Instruction) -> None:
        self.steps.append(new)
        if new.output is not step.output:
            self.same[step.output] = self.shaped(new.output, step.output.shape, step.phase)

    def _matrix(self, value: Value) -> Shape | None:
        """Return the shape of the matrix that a value is, reshaped; None if it is none."""
        source = self.sources.get(value, value)
        is_column = source.shape[1:] == (1,) and value.shape[1:] != (1,)  # of one number for each row
        return source.shape if len(source.shape) == 2 and (len(value.shape) != 2 or is_column) else None

    def _elementwise(self, step: Instruction) -> Instruction | None:
        """Return an elementwise step on matrices; None if its operands cannot be such."""
        shape = step.output.shape
        for value in step.inputs:
            matrix = self._matrix(value) if value.shape == shape else None
            shapes = matrix and [self._shape_on_matrix(v, shape, matrix) for v in step.inputs]
            if matrix and shapes and None not in shapes:
                pairs = zip(step.inputs, shapes, strict=True)
                inputs = [self.shaped(value, own, step.phase) for value, own in pairs if own]
                output = Value(matrix, step.output.dtype)
                return Instruction(step.primitive, inputs, step.attributes, output, step.phase)
        return None

    def _shape_on_matrix(self, value: Value, shape: Shape, matrix: Shape) -> Shape | None:
        """Return the shape in which an operand is broadcast to a matrix as before to a shape, or None."""
        if value.size == 1:
            return (1, 1)
        if value.shape == shape:
            return None if value in self.strided else matrix
        if matrix != (math.prod(shape[:-1]), shape[-1]):
            return None
        if value.size == value.shape[-1] == shape[-1]:
            return value.shape[-1:] if len(value.shape) == 1 else (1, shape[-1])
        return (matrix[0], 1) if value.shape == (*shape[:-1], 1) else None

    def _reduction(self, step: Instruction) -> Instruction:
        """Return a reduction on a matrix, where it is one of rows, of columns, or of everything."""
        (x,), axis = step.inputs, step.attributes["axis"]
        last, matrix = len(x.shape) - 1, self._matrix(x)
        is_of_rows = axis == (last,) and last > 0
        rows = (math.prod(x.shape[:-1]), x.shape[-1:][0] if x.shape else 1)
        if matrix is None or (matrix != rows and len(axis) <= last):
            if not is_of_rows or step.attributes["keepdims"]:
                return step
            shape, inputs = (*x.shape[:-1], 1), [x]  # the axis is kept, so that it can be joined to others
        elif is_of_rows:
            axis, shape, inputs = (1,), (matrix[0], 1), [self.shaped(x, matrix, step.phase)]
        elif axis == tuple(range(last)):
            axis, shape, inputs = (0,), (1, matrix[1]), [self.shaped(x, matrix, step.phase)]
        elif len(axis) == last + 1:
            axis, shape, inputs = (0, 1), (1, 1), [self.shaped(x, matrix, step.phase)]
        else:
            return step
        attributes = {**step.attributes, "axis": axis, "keepdims": True}
        return Instruction(step.primitive, inputs, attributes, Value(shape, step.output.dtype), step.phase)
