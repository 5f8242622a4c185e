"""The pass that writes softmax, log_softmax and logsumexp as what they are made of.

So they join what is computed before and after them, row by row; and each of these steps has kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.primitives.elementwise import add, cast, divide, equal, exp, log, subtract, where_
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import log_softmax_, logsumexp_, max_, softmax_, sum_
from minidl.primitives.shape import reshape_
from minidl.program.passes.simplify import instructions
from minidl.program.program import Instruction, Program, Step, Value


def expand_reductions(program: Program) -> Program:
    """Replace each softmax, log_softmax and logsumexp by steps that give the same results.

    The exponential of a log_softmax, of which its gradient is made, is the softmax: its powers are known.
    """
    steps: list[Step] = []
    softmax: dict[Value, list[Value]] = {}  # of a log_softmax the powers, and their sum
    for step in instructions(program):
        expand = EXPANSIONS.get(step.primitive)
        if expand is not None and step.inputs[0].size:
            steps += expand(step)
            if step.primitive is log_softmax_:
                powers, total = (next(s for s in steps[::-1] if s.operation is p) for p in (exp, sum_))
                softmax[step.output] = [*powers.outputs, *total.outputs]
        elif step.primitive is exp and step.inputs[0] in softmax:
            steps.append(Instruction(divide, softmax[step.inputs[0]], {}, step.output, step.phase))
        else:
            steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


class _Expansion:
    """The steps that replace a reduction along axes; the last of them writes its output."""

    def __init__(self, step: Instruction):
        self.steps: list[Step] = []
        self.phase = step.phase
        (self.x,) = step.inputs
        self.over = {"axis": step.attributes["axis"], "keepdims": True}
        #: The shape of the reduced values, with the reduced axes kept.
        self.kept = tuple(1 if i in self.over["axis"] else n for i, n in enumerate(self.x.shape))

    def largest(self) -> Value:
        """Return the largest elements."""
        return self.apply(max_, [self.x], Value(self.kept, self.x.dtype), **self.over)

    def shifted(self, largest: Value) -> tuple[Value, Value, Value]:
        """Return x - largest, exp() of that, and the sum of these."""
        shifted = self.apply(subtract, [self.x, largest], Value(self.x.shape, self.x.dtype))
        powers = self.apply(exp, [shifted])
        return shifted, powers, self.apply(sum_, [powers], Value(self.kept, self.x.dtype), **self.over)

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


def _softmax(step: Instruction) -> list[Step]:
    made = _Expansion(step)
    _, powers, total = made.shifted(made.largest())
    made.apply(divide, [powers, total], step.output)
    return made.steps


def _log_softmax(step: Instruction) -> list[Step]:
    made = _Expansion(step)
    shifted, _, total = made.shifted(made.largest())
    made.apply(subtract, [shifted, made.apply(log, [total])], step.output)
    return made.steps


def _logsumexp(step: Instruction) -> list[Step]:
    made = _Expansion(step)
    largest = made.finite(made.largest())
    _, _, total = made.shifted(largest)
    same_shape = step.output.shape == made.kept
    result = step.output if same_shape else Value(made.kept, made.x.dtype)
    made.apply(add, [made.apply(log, [total]), largest], result)
    if not same_shape:
        made.apply(reshape_, [result], step.output, shape=step.output.shape)
    return made.steps


#: The reductions that are replaced, and the steps that replace one.
EXPANSIONS: dict[Primitive, Callable[[Instruction], list[Step]]] = {
    softmax_: _softmax,
    log_softmax_: _log_softmax,
    logsumexp_: _logsumexp,
}
