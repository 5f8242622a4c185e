"""The pass that makes one matrix product of a sum of many small ones.

The gradient of a recurrent weight is a sum over the steps of a sequence, of products whose inner axis is the
batch: too short to be fast, and each adds to the whole of the weight. Put together along that axis, the
factors give the sum as one product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from minidl import devices
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import concatenate_, reshape_, transpose_
from minidl.program.passes.simplify import drop_dead
from minidl.program.program import Gemm, Instruction, Program, Step, Value

#: Fewer products are not worth the copies.
MIN_TERMS = 4
#: With a longer inner axis, a product is fast by itself.
MAX_INNER = 128


def merge_products(program: Program) -> Program:
    """Replace sums of products ``a1.T @ b1 + a2.T @ b2 + ...`` by ``a.T @ b``, with the rows put together.

    Where the rows of one side are put together for another step, those of the other side are in the same way.
    """
    maker = {value: step for step in program.steps for value in step.outputs}
    wholes = _wholes(program, maker)
    steps: list[Step] = []
    done: set[Step] = set()
    for step in program.steps:
        if step in done:
            continue
        done.add(step)
        lefts = _left_rows(step, maker) if isinstance(step, Gemm) else None
        if lefts is None or not isinstance(step, Gemm):
            steps.append(step)
            continue
        rights = [b for _, b in step.terms]
        whole = wholes.get(frozenset(rights)) or wholes.get(frozenset(lefts)) or _Whole(rights)
        steps += _merged(step, lefts, rights, whole, is_there=whole.step in done)
        done |= {whole.step} if whole.step is not None else set()
    return drop_dead(Program(program.inputs, steps, program.outputs, program.updates))


@dataclass
class _Whole:
    """How rows are put together: matrices, reshaped to these shapes but for the last axis, along an axis."""

    matrices: list[Value]
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    axis: int = 0
    step: Instruction | None = None

    def __post_init__(self) -> None:
        self.shapes = self.shapes or [matrix.shape[:1] for matrix in self.matrices]


def _merged(gemm: Gemm, lefts: list[Value], rights: list[Value], whole: _Whole, is_there: bool) -> list[Step]:
    """Return the steps of one product; ``is_there`` says that the step of a whole has been computed."""
    steps: list[Step] = []
    side = rights if set(whole.matrices) == set(rights) else lefts
    place = {matrix: i for i, matrix in enumerate(side)}
    order = [place[matrix] for matrix in whole.matrices]

    def apply(primitive: Primitive, inputs: list[Value], output: Value, **attributes: Any) -> Value:
        steps.append(Instruction(primitive, inputs, attributes, output, gemm.phase))
        return output

    def together(matrices: list[Value]) -> Value:
        width, dtype = matrices[0].shape[1], matrices[0].dtype
        shapes = [(*shape, width) for shape in whole.shapes]
        length = sum(shape[whole.axis] for shape in shapes)
        shape = (*shapes[0][: whole.axis], length, *shapes[0][whole.axis + 1 :])
        is_whole = whole.step is not None and matrices is side
        output = whole.step.output if is_whole and whole.step is not None else Value(shape, dtype)
        if not (is_whole and is_there):
            parts = [
                apply(reshape_, [matrices[i]], Value(own, dtype), shape=own)
                for i, own in zip(order, shapes, strict=True)
            ]
            apply(concatenate_, parts, output, axis=whole.axis)
        flat = (math.prod(shape[:-1]), width)
        return apply(reshape_, [output], Value(flat, dtype), shape=flat)

    left, right = together(lefts), together(rights)
    left = apply(transpose_, [left], Value(left.shape[::-1], left.dtype), axes=(1, 0))
    return [*steps, Gemm([(left, right)], gemm.output, gemm.phase)]


def _left_rows(gemm: Gemm, maker: dict[Value, Step]) -> list[Value] | None:
    """Return the left factors before they were transposed, if a sum should be one product; else None."""
    (first, other), *_ = gemm.terms
    alike = all((a.shape, b.shape) == (first.shape, other.shape) for a, b in gemm.terms)
    if len(gemm.terms) < MIN_TERMS or not alike or not 0 < other.shape[0] <= MAX_INNER:
        return None
    rows: list[Value] = []
    for a, b in gemm.terms:
        step = maker.get(a)
        if a.dtype != b.dtype or b.dtype != gemm.output.dtype:
            return None
        if a.kind == "constant":
            with devices.current(a.array):
                array = devices.array_module(a.array).ascontiguousarray(a.array.transpose())
            rows.append(Value(a.shape[::-1], a.dtype, "constant", array))
        elif isinstance(step, Instruction) and step.primitive is transpose_:
            rows.append(step.inputs[0])
        else:
            return None
    rights = {b for _, b in gemm.terms}
    return rows if len(set(rows)) == len(rights) == len(rows) else None


def _wholes(program: Program, maker: dict[Value, Step]) -> dict[frozenset[Value], _Whole]:
    """Return how rows are put together, by the matrices that these are before they are reshaped."""
    wholes: dict[frozenset[Value], _Whole] = {}
    for step in program.steps:
        if isinstance(step, Instruction) and step.primitive is concatenate_:
            matrices = [_before_reshape(value, maker) for value in step.inputs]
            keep_rows = all(
                len(matrix.shape) == 2 and matrix.shape[-1:] == part.shape[-1:]
                for matrix, part in zip(matrices, step.inputs, strict=True)
            )
            axis = step.attributes["axis"]
            if keep_rows and axis < len(step.output.shape) - 1 and len(set(matrices)) == len(matrices):
                shapes = [part.shape[:-1] for part in step.inputs]
                wholes[frozenset(matrices)] = _Whole(matrices, shapes, axis, step)
    return wholes


def _before_reshape(value: Value, maker: dict[Value, Step]) -> Value:
    step = maker.get(value)
    while isinstance(step, Instruction) and step.primitive is reshape_:
        (value,) = step.inputs
        step = maker.get(value)
    return value
