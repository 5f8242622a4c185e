"""The pass for GPUs that writes softmax, log_softmax and logsumexp as what they are made of.

A GPU then computes them with generated kernels, beside which other steps can start, inside a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl.primitives.elementwise import add, cast, divide, equal, exp, log, subtract, where_
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import log_softmax_, logsumexp_, max_, softmax_, sum_
from minidl.primitives.shape import reshape_
from minidl.program.program import Instruction, Program, Step, Value


def expand_reductions(program: Program) -> Program:
    """Replace each softmax, log_softmax and logsumexp by steps that give the same results."""
    steps: list[Step] = []
    for step in program.steps:
        assert isinstance(step, Instruction)
        if step.primitive in (softmax_, log_softmax_, logsumexp_) and step.inputs[0].size:
            steps += _Expansion(step).steps
        else:
            steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


class _Expansion:
    """The steps that replace one; the last of them writes its output."""

    def __init__(self, step: Instruction):
        self.steps: list[Instruction] = []
        self.phase = step.phase
        (x,) = step.inputs
        over = {"axis": step.attributes["axis"], "keepdims": True}
        kept = tuple(1 if i in over["axis"] else length for i, length in enumerate(x.shape))
        largest = self.apply(max_, [x], Value(kept, x.dtype), **over)
        if step.primitive is logsumexp_:
            largest = self.finite(largest)
        shifted = self.apply(subtract, [x, largest], Value(x.shape, x.dtype))
        powers = self.apply(exp, [shifted])
        total = self.apply(sum_, [powers], Value(kept, x.dtype), **over)
        if step.primitive is softmax_:
            self.apply(divide, [powers, total], step.output)
            return
        if step.primitive is log_softmax_:
            self.apply(subtract, [shifted, self.apply(log, [total])], step.output)
            return
        same_shape = step.output.shape == kept
        result = step.output if same_shape else Value(kept, x.dtype)
        self.apply(add, [self.apply(log, [total]), largest], result)
        if not same_shape:
            self.apply(reshape_, [result], step.output, shape=step.output.shape)

    def apply(
        self, primitive: Primitive, inputs: list[Value], output: Value | None = None, **attributes: Any
    ) -> Value:
        """Add a step, whose output is by default like its first input; return the output."""
        output = output or Value(inputs[0].shape, inputs[0].dtype)
        self.steps.append(Instruction(primitive, inputs, attributes, output, self.phase))
        return output

    def finite(self, x: Value) -> Value:
        """Return x with 0 for infinity and NaN: what is left of these when they are subtracted is NaN."""
        difference = self.apply(subtract, [x, x])
        is_finite = self.apply(equal, [difference, difference], Value(x.shape, numpy.dtype(bool)))
        # Where False is chosen, False is 0.
        number = self.apply(cast, [is_finite], Value(x.shape, x.dtype), dtype=x.dtype)
        return self.apply(where_, [is_finite, x, number], Value(x.shape, x.dtype))
