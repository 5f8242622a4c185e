"""How each step becomes C: the table LOWERINGS, from which segments of C code are made.

A new operation joins it with one function, which returns the statements of one thread's block of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.indexing import gather_, scatter_add_
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.reduction import argmax_, argmin_, max_, min_, sum_
from minidl.primitives.shape import concatenate_, pad_, reshape_
from minidl.primitives.windows import overlap_add_, scatter_to_maxima_, select_maxima_, windows_
from minidl.program.cpu.blocks import Block, moves_of
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.convolution import conv_input_statements, conv_statement, conv_weight_statements
from minidl.program.cpu.indexing import gather_statement, scatter_statements
from minidl.program.cpu.one_pass import one_pass_statement
from minidl.program.cpu.reductions import reduction_statement
from minidl.program.cpu.rows import rows_statement
from minidl.program.cpu.statements import (
    copy_statement,
    fill_statement,
    gemm_statement,
    group_statement,
    matmul_statement,
)
from minidl.program.cpu.windows import (
    overlap_add_statements,
    scatter_to_maxima_statements,
    select_maxima_statement,
    windows_statement,
)
from minidl.program.expressions import Unsupported
from minidl.program.lowered.add_at import add_at_
from minidl.program.plan.tasks import Copy, Task
from minidl.program.program import (
    Gemm,
    Group,
    Instruction,
    OnePass,
    Operation,
    Partial,
    PartialSum,
    Rows,
    Value,
)

#: Returns C statements for a step, or one thread's block of it; raises Unsupported where it has none.
Lowering = Callable[[Any, Block, CSource], list[str]]

#: Returns the loops that compute the members of a group over a block of this shape. Places are the arrays,
#: or the blocks of them, of every value that is read or written in memory. Raises Unsupported, too.
Statement = Callable[[CSource, Any, dict[Value, numpy.ndarray], tuple[int, ...]], str]


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


def _loops(statement: Statement) -> Lowering:
    """Return the lowering of a group, of whatever kind, whose members one statement computes together."""

    def lowering(group: Group, block: Block, source: CSource) -> list[str]:
        places = dict(zip(group.inputs, block.inputs, strict=True))
        places |= zip(group.outputs, block.outputs, strict=True)
        return [statement(source, group, places, block.shape(group.shape))]

    return lowering


def _matmul(step: Instruction, block: Block, source: CSource) -> list[str]:
    return [matmul_statement(source, *block.inputs, *block.outputs)]


def _copy(copy: Copy, block: Block, source: CSource) -> list[str]:
    return [copy_statement(source, block.outputs[0], block.inputs[0])]


def _partial_sum(partial: PartialSum, block: Block, source: CSource) -> list[str]:
    return [reduction_statement(source, "sum", block.inputs[0], partial.axis, block.outputs[0][0])]


def _reduction(step: Instruction, block: Block, source: CSource) -> list[str]:
    axis = step.attributes["axis"]
    axes = (axis,) if isinstance(axis, int) else axis
    return [reduction_statement(source, step.name, block.inputs[0], axes, block.outputs[0])]


def _moves(step: Instruction, block: Block, source: CSource) -> list[str]:
    return [
        copy_statement(source, target, what)
        if isinstance(what, numpy.ndarray)
        else fill_statement(source, target, what)
        for target, what in moves_of(step, block)
    ]


def _gather(step: Instruction, block: Block, source: CSource) -> list[str]:
    x, *positions = block.inputs
    return [gather_statement(source, x, positions, step.attributes["key"], block.outputs[0])]


def _scatter(step: Instruction, block: Block, source: CSource) -> list[str]:
    g, *positions = block.inputs
    if not positions:
        return _moves(step, block, source)
    key, shape, (out,) = step.attributes["key"], step.output.shape, block.outputs
    return scatter_statements(source, g, positions, key, out, shape, block.axis, block.start)


def _add_at(step: Instruction, block: Block, source: CSource) -> list[str]:
    x, g, *positions = block.inputs
    key, shape, (out,) = step.attributes["key"], step.output.shape, block.outputs
    return scatter_statements(source, g, positions, key, out, shape, block.axis, block.start, x)


def _conv(step: Instruction, block: Block, source: CSource) -> list[str]:
    (x, w), (out,) = block.inputs, block.outputs
    return [conv_statement(source, x, w, out, step.attributes)]


def _conv_input(step: Instruction, block: Block, source: CSource) -> list[str]:
    (g, w), (out,) = block.inputs, block.outputs
    return conv_input_statements(source, g, w, out, step.attributes)


def _conv_weight(step: Instruction, block: Block, source: CSource) -> list[str]:
    (x, g), (out,) = block.inputs, block.outputs
    return conv_weight_statements(source, x, g, out, step.attributes)


def _partial(partial: Partial, block: Block, source: CSource) -> list[str]:
    """Compute a thread's observations as if there were no others."""
    own = Block(block.inputs, [block.outputs[0][0]], 1, None)
    if partial.whole.operation not in LOWERINGS:
        raise Unsupported(partial.name)
    return LOWERINGS[partial.whole.operation](partial.whole, own, source)


def _select_maxima(step: Instruction, block: Block, source: CSource) -> list[str]:
    (values, x), (out,) = block.inputs, block.outputs
    return [select_maxima_statement(source, values, x, **step.attributes, out=out)]


def _scatter_to_maxima(step: Instruction, block: Block, source: CSource) -> list[str]:
    (g, x), (out,) = block.inputs, block.outputs
    return scatter_to_maxima_statements(source, g, x, **step.attributes, out=out)


def _windows(step: Instruction, block: Block, source: CSource) -> list[str]:
    (x,), (out,) = block.inputs, block.outputs
    return [windows_statement(source, x, **step.attributes, out=out)]


def _overlap_add(step: Instruction, block: Block, source: CSource) -> list[str]:
    (parts,), (out,) = block.inputs, block.outputs
    return overlap_add_statements(source, parts, **step.attributes, out=out)


LOWERINGS: dict[Operation, Lowering] = {
    Gemm: _gemm,
    Group: _loops(group_statement),
    OnePass: _loops(one_pass_statement),
    Rows: _loops(rows_statement),
    PartialSum: _partial_sum,
    Copy: _copy,
    matmul_: _matmul,
    sum_: _reduction,
    max_: _reduction,
    min_: _reduction,
    argmax_: _reduction,
    argmin_: _reduction,
    concatenate_: _moves,
    pad_: _moves,
    reshape_: _moves,
    gather_: _gather,
    scatter_add_: _scatter,
    add_at_: _add_at,
    Partial: _partial,
    conv_: _conv,
    conv_input_: _conv_input,
    conv_weight_: _conv_weight,
    select_maxima_: _select_maxima,
    scatter_to_maxima_: _scatter_to_maxima,
    windows_: _windows,
    overlap_add_: _overlap_add,
}
