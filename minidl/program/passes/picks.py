"""The pass that picks one element of each row, and puts one there, by comparing column numbers.

So the cross-entropy of class numbers, and its gradient, are elementwise work on rows and sums of them, and
join the softmax (see rows.py): no matrix of zeros is filled, and none is gathered from.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.primitives.elementwise import cast, clip_, equal, where_
from minidl.primitives.indexing import SLOT, gather_, scatter_add_
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import sum_
from minidl.primitives.shape import detach, reshape_
from minidl.program.passes.simplify import instructions
from minidl.program.program import Instruction, Program, Step, Value

INT32 = numpy.dtype(numpy.int32)


def compare_picks(program: Program) -> Program:
    """Replace ``x[arange(rows), column]``, and its gradient, where the columns were clipped to those of x.

    Other columns may not exist, which a gather refuses.
    """
    columns = _Columns()
    steps: list[Step] = []
    for step in instructions(program):
        columns.note(step)
        is_pick = step.primitive in (gather_, scatter_add_) and step.attributes["key"] == (SLOT, SLOT)
        whole = step.output if step.primitive is scatter_add_ else step.inputs[0]
        if is_pick and columns.are_known(whole, *step.inputs[1:]):
            steps += _compared(step, whole, columns)
        else:
            steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


class _Columns:
    """Between which bounds values lie that were clipped; and the numbers of all columns."""

    def __init__(self) -> None:
        self.bounds: dict[Value, tuple[Any, Any]] = {}
        self.all: dict[int, Value] = {}

    def every(self, width: int, like: Value) -> Value:
        """Return the numbers of this many columns, on the device of another constant."""
        if width not in self.all:
            with devices.current(like.array):
                array = devices.array_module(like.array).arange(width, dtype=INT32)
            self.all[width] = Value((width,), INT32, "constant", array)
        return self.all[width]

    def note(self, step: Instruction) -> None:
        if step.primitive is clip_ and step.output.dtype.kind in "iu":
            self.bounds[step.output] = step.attributes["low"], step.attributes["high"]
        elif step.primitive in (reshape_, detach) and step.inputs[0] in self.bounds:
            self.bounds[step.output] = self.bounds[step.inputs[0]]

    def are_known(self, whole: Value, rows: Value, columns: Value) -> bool:
        """Return whether there is one column for each row, and it exists."""
        if len(whole.shape) != 2 or whole.size == 0 or columns not in self.bounds:
            return False
        low, high = self.bounds[columns]
        count = whole.shape[0]
        if rows.kind != "constant" or not rows.shape == columns.shape == (count,):
            return False
        in_order = numpy.array_equal(devices.to_numpy(rows.array), numpy.arange(count))
        return in_order and low >= 0 and high < whole.shape[1] < 2**31


def _compared(step: Instruction, whole: Value, known: _Columns) -> list[Instruction]:
    """Return the steps that pick from a matrix, or put into one of zeros."""
    (rows, width), (x, order, columns) = whole.shape, step.inputs
    every = known.every(width, order)
    with devices.current(order.array):
        zero = devices.array_module(order.array).zeros((), whole.dtype)
    nothing = Value((), whole.dtype, "constant", zero)
    steps: list[Instruction] = []

    def apply(primitive: Primitive, inputs: list[Value], output: Value, **attributes: Any) -> Value:
        steps.append(Instruction(primitive, inputs, attributes, output, step.phase))
        return output

    column = apply(reshape_, [columns], Value((rows, 1), columns.dtype), shape=(rows, 1))
    column = apply(cast, [column], Value((rows, 1), INT32), dtype=INT32)
    is_there = apply(equal, [every, column], Value(whole.shape, numpy.dtype(bool)))
    if step.primitive is scatter_add_:
        g = apply(reshape_, [x], Value((rows, 1), x.dtype), shape=(rows, 1))
        apply(where_, [is_there, g, nothing], step.output)
    else:
        alone = apply(where_, [is_there, x, nothing], Value(x.shape, x.dtype))
        total = apply(sum_, [alone], Value((rows, 1), x.dtype), axis=(1,), keepdims=True)
        apply(reshape_, [total], step.output, shape=step.output.shape)
    return steps
