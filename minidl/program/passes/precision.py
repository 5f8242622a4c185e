"""Passes on the precision of matrix products: rounded factors, exact products, float32 sums.

So a tensor core computes, and so the CPU computes too when it is asked for such a precision: slower than in
float32, but with the errors that a GPU would make. Parameters, their gradients, and everything that is not
a factor of a product stay float32. ("Mixed precision training", Micikevicius et al., 2018,
https://arxiv.org/abs/1710.03740. The loss needs no scaling: bfloat16 reaches as far down as float32.)
"""

from __future__ import annotations

import numpy

from minidl.primitives.convolution import CONVOLUTIONS
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.shape import transpose_
from minidl.program.lowered.rounding import PRECISIONS, round_off, to_bfloat16
from minidl.program.passes.simplify import drop_dead, instructions
from minidl.program.program import Gemm, Instruction, Program, Step, Value

#: The steps that are products of two factors.
PRODUCTS = (matmul_, *CONVOLUTIONS)


def round_factors(program: Program, precision: str) -> Program:
    """Round the factors of all float32 products and convolutions; ``precision`` is one of PRECISIONS."""
    if precision == "float32":
        return program
    transposes: dict[Value, Instruction] = {}
    steps: list[Step] = []

    def rounded(value: Value, phase: str) -> Value:
        output = Value(value.shape, value.dtype)
        if value in transposes:  # so that both uses of a tied weight share the rounding
            transpose = transposes[value]
            source = rounded(transpose.inputs[0], phase)
            steps.append(Instruction(transpose_, [source], transpose.attributes, output, phase))
        else:
            bits = {"bits": PRECISIONS[precision]}
            steps.append(Instruction(round_off, [value], bits, output, phase))
        return output

    for step in instructions(program):
        if step.primitive is transpose_:
            transposes[step.output] = step
        elif step.primitive in PRODUCTS and all(value.dtype == numpy.float32 for value in step.inputs):
            factors = [rounded(value, step.phase) for value in step.inputs]
            step = Instruction(step.primitive, factors, step.attributes, step.output, step.phase)
        steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


def pack_factors(program: Program) -> Program:
    """For a GPU, store factors that were rounded to bfloat16 in 16 bits, as tensor cores take them.

    Those of stacks of matrices and of convolutions stay float32: tensor cores round them to 10 bits (tf32),
    which changes nothing.
    """
    packed: dict[Value, Value] = {}
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Gemm):
            terms = [(packed[a], packed[b]) if a in packed and b in packed else (a, b) for a, b in step.terms]
            step = Gemm(terms, step.output, step.phase)
        steps.append(step)
        if isinstance(step, Instruction):
            output = Value(step.output.shape, numpy.dtype(numpy.uint16))
            if step.primitive is round_off and step.attributes["bits"] == PRECISIONS["bfloat16"]:
                steps.append(Instruction(to_bfloat16, step.inputs, {}, output, step.phase))
            elif step.primitive is transpose_ and step.inputs[0] in packed:
                source = packed[step.inputs[0]]
                steps.append(Instruction(transpose_, [source], step.attributes, output, step.phase))
            else:
                continue
            packed[step.output] = output
    return drop_dead(Program(program.inputs, steps, program.outputs, program.updates))
