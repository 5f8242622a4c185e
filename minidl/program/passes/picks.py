"""The pass that picks one element of each row, and puts one there, by comparing column numbers.

So the cross-entropy of class numbers, and its gradient, are elementwise work on rows and sums of them, and
join the softmax (see rows.py): no matrix of zeros is filled, and none is gathered from. What is subtracted
from a whole row is subtracted from the picked element alone. The sum of a row with one element put
among zeros is that element.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.primitives.elementwise import cast, clip_, equal, subtract, where_
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
        if step.primitive is sum_ and step.inputs[0] in columns.alone and _is_of_rows(step):
            alone = columns.alone[step.inputs[0]]
            attributes = {"shape": step.output.shape}
            steps.append(Instruction(reshape_, [alone], attributes, step.output, step.phase))
            continue
        is_pick = step.primitive in (gather_, scatter_add_) and step.attributes["key"] == (SLOT, SLOT)
        whole = step.output if step.primitive is scatter_add_ else step.inputs[0]
        if is_pick and columns.are_known(whole, *step.inputs[1:]):
            steps += _compared(step, whole, columns)
        else:
            steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


def _is_of_rows(step: Instruction) -> bool:
    (x,) = step.inputs
    return step.attributes["axis"] == (len(x.shape) - 1,) and x.dtype == step.output.dtype


class _Columns:
    """What is known of values while the steps are gone through.

    Attributes
    ----------
    bounds : between which integers that were clipped lie
    all : by their count the numbers of all columns
    alone : of what has one element in each row, among zeros, these elements
    subtracted : of differences of rows and one number for each, both
    reshaped : of what was reshaped, what it was
    """

    def __init__(self) -> None:
        self.bounds: dict[Value, tuple[Any, Any]] = {}
        self.all: dict[int, Value] = {}
        self.alone: dict[Value, Value] = {}
        self.subtracted: dict[Value, tuple[Value, Value]] = {}
        self.reshaped: dict[Value, Value] = {}

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
        elif step.primitive in (reshape_, detach):
            (x,), shape = step.inputs, step.output.shape
            if x in self.bounds:
                self.bounds[step.output] = self.bounds[x]
            if x.shape and shape and x.shape[-1] == shape[-1]:
                self.reshaped[step.output] = x
                if x in self.alone:
                    self.alone[step.output] = self.alone[x]
        elif step.primitive is subtract:
            x, y = step.inputs
            if x.shape == step.output.shape and y.shape == (*x.shape[:-1], 1) and x.dtype == y.dtype:
                self.subtracted[step.output] = x, y

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
        known.alone[step.output] = g
        apply(where_, [is_there, g, nothing], step.output)
        return steps
    subtracted: list[Value] = []
    while x in known.reshaped or x in known.subtracted:
        if x in known.reshaped:
            x = known.reshaped[x]
        else:
            x, y = known.subtracted[x]
            subtracted.append(y)
    matrix = apply(reshape_, [x], Value((rows, width), x.dtype), shape=(rows, width))
    alone = apply(where_, [is_there, matrix, nothing], Value((rows, width), x.dtype))
    total = apply(sum_, [alone], Value((rows, 1), x.dtype), axis=(1,), keepdims=True)
    for y in reversed(subtracted):
        y = apply(reshape_, [y], Value((rows, 1), x.dtype), shape=(rows, 1))
        total = apply(subtract, [total, y], Value((rows, 1), x.dtype))
    apply(reshape_, [total], step.output, shape=step.output.shape)
    return steps
