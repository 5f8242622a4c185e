"""How each step becomes C: the table LOWERINGS, from which segments of C code are made.

A new operation joins it with one function, which returns the statements of one thread's block of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.primitives.reduction import sum_
from minidl.program.cpu.blocks import Block
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.statements import gemm_statement, group_statement, sum_statement
from minidl.program.expressions import Unsupported
from minidl.program.plan.tasks import Task
from minidl.program.program import Gemm, Group, Instruction, Operation, PartialSum

#: Returns C statements for a step, or one thread's block of it; raises Unsupported where it has none.
Lowering = Callable[[Any, Block, CSource], list[str]]


def statements(task: Task, block: Block, source: CSource) -> list[str]:
    """Return a step, or one thread's block of it, as C.

    Raises
    ------
    Unsupported
        There is no C for the step; calls.py has calls of NumPy for every step.
    """
    if task.operation not in LOWERINGS:
        raise Unsupported(task.name)
    return LOWERINGS[task.operation](task, block, source)


def _gemm(gemm: Gemm, block: Block, source: CSource) -> list[str]:
    (out,) = block.outputs
    terms = zip(block.inputs[::2], block.inputs[1::2], strict=True)
    return [gemm_statement(source, a, b, out, add=i > 0) for i, (a, b) in enumerate(terms)]


def _group(group: Group, block: Block, source: CSource) -> list[str]:
    places = dict(zip(group.inputs, block.inputs, strict=True))
    places |= zip(group.outputs, block.outputs, strict=True)
    return [group_statement(source, group.members, group.outputs, places, block.shape(group.shape))]


def _partial_sum(partial: PartialSum, block: Block, source: CSource) -> list[str]:
    return [sum_statement(source, block.inputs[0], partial.axis, block.outputs[0][0])]


def _sum(step: Instruction, block: Block, source: CSource) -> list[str]:
    return [sum_statement(source, block.inputs[0], step.attributes["axis"], block.outputs[0])]


LOWERINGS: dict[Operation, Lowering] = {
    Gemm: _gemm,
    Group: _group,
    PartialSum: _partial_sum,
    sum_: _sum,
}
