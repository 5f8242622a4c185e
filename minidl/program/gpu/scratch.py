"""Memory that a step needs while it runs: results that nobody reads, so that the plan gives it a place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.windows import do_overlap, scatter_to_maxima_
from minidl.program.gpu.kernels.grouped import is_of_small_groups
from minidl.program.lowered.sorted_scatter import wide
from minidl.program.plan.convolution import Block, Form
from minidl.program.program import Instruction, Operation, Program, Step, Value

#: Bytes of packed windows that a convolution has at a time: they stay in the L2 cache of a large GPU.
PACKED_BYTES = 32 << 20


@dataclass(eq=False, repr=False)
class WithScratch(Instruction):
    """An instruction, and the memory that it needs while it runs."""

    scratch: list[Value] = field(default_factory=list)

    @property
    def outputs(self) -> list[Value]:
        """The result, and the memory."""
        return [self.output, *self.scratch]


def with_scratch(program: Program) -> Program:
    """Return a program whose steps have the memory that they need."""
    steps = [_with_scratch(step) if step.operation in SCRATCH else step for step in program.steps]
    return Program(program.inputs, steps, program.outputs, program.updates)


def _with_scratch(step: Step) -> Step:
    assert isinstance(step, Instruction)
    needed = SCRATCH[step.operation](step)
    if not needed:
        return step
    scratch = [Value((count,), numpy.dtype(dtype)) for count, dtype in needed]
    return WithScratch(step.primitive, step.inputs, step.attributes, step.output, step.phase, scratch)


def blocks_of(step: Instruction, form: Form) -> list[Block]:
    """Return the blocks in which a convolution is computed; one that packs nothing has a single block."""
    if form.is_pointwise:
        rows = slice(0, form.counts[0])
        return [Block(slice(0, form.batch), rows, rows)]
    elements = PACKED_BYTES // packed_dtype(step).itemsize
    return list(form.input_blocks(elements) if step.primitive is conv_input_ else form.blocks(elements))


def packed_dtype(step: Instruction) -> numpy.dtype:
    """Return the dtype of packed windows; those that are added up are wide enough for a sum."""
    dtype = step.output.dtype
    return wide(dtype) if step.primitive is conv_input_ else dtype


def block_length(form: Form, block: Block) -> int:
    """Return how many windows a block has."""
    images, rows = block.images.stop - block.images.start, block.rows.stop - block.rows.start
    return int(images * rows * math.prod(form.counts[1:]))


def _of_convolution(step: Instruction) -> list[tuple[int, numpy.dtype]]:
    """Return the packed windows, and for a weight in float16 the sum of several blocks."""
    form = Form.of(step)
    if is_of_small_groups(form) or not all(value.size for value in (*step.inputs, step.output)):
        return []
    blocks, needed = blocks_of(step, form), []
    if not form.is_pointwise:
        most = max((block_length(form, block) for block in blocks), default=0)
        needed.append((most * form.size * form.groups, packed_dtype(step)))
    if step.primitive is conv_weight_ and len(blocks) > 1 and step.output.dtype == numpy.float16:
        needed.append((step.output.size, wide(step.output.dtype)))
    return needed


def _of_pooling(step: Instruction) -> list[tuple[int, numpy.dtype]]:
    """Return the numbers of the largest elements, where windows overlap."""
    overlap = do_overlap(step.attributes["window"], step.attributes["stride"])
    return [(step.inputs[0].size, numpy.dtype(numpy.int32))] if overlap else []


#: What steps need: numbers of elements, and their dtypes.
SCRATCH: dict[Operation, Callable[[Instruction], list[tuple[int, numpy.dtype]]]] = {
    conv_: _of_convolution,
    conv_input_: _of_convolution,
    conv_weight_: _of_convolution,
    scatter_to_maxima_: _of_pooling,
}
