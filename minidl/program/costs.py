"""What a step costs: floating-point operations, bytes, and a rough measure to share work by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.linear_algebra import matmul_
from minidl.program.program import Gemm, Group, OnePass, Operation, Partial, Rows

if TYPE_CHECKING:
    from minidl.program.plan.tasks import Task

#: The floating-point operations of steps, where they are not one for each element of the largest value.
FLOPS: dict[Operation, Callable[[Any], int]] = {
    Gemm: lambda gemm: sum(2 * a.size * b.shape[1] for a, b in gemm.terms),
    **dict.fromkeys((Group, Rows), lambda group: sum(map(flops, group.members))),
    OnePass: lambda group: sum(map(flops, group.members)) + sum(s.value.size for s in group.sums),
    matmul_: lambda step: 2 * step.output.size * step.inputs[0].shape[-1],
    conv_: lambda step: _convolution(step.output, step.inputs[1]),
    conv_input_: lambda step: _convolution(*step.inputs),
    conv_weight_: lambda step: _convolution(step.inputs[1], step.output),
    Partial: lambda partial: flops(partial.whole),
}


def _convolution(result: Any, weight: Any) -> int:
    return int(2 * result.size * math.prod(weight.shape[:-1]))


#: The steps that are matrix products, whose speed is measured in operations per second.
PRODUCTS: tuple[Operation, ...] = (Gemm, matmul_)

#: How many operations of a matrix product take about as long as passing over one element in memory.
FLOPS_PER_ELEMENT = 32

#: The work of steps, where it is not the number of elements read and written.
WORK: dict[Operation, Callable[[Any], float]] = {
    Gemm: lambda gemm: flops(gemm) / FLOPS_PER_ELEMENT,
    **dict.fromkeys((Group, Rows, OnePass), lambda group: float(flops(group))),
    **{p: lambda step: flops(step) / FLOPS_PER_ELEMENT for p in (matmul_, conv_, conv_input_, conv_weight_)},
    Partial: lambda partial: work(partial.whole),
}


def flops(step: Task) -> int:
    """Return the floating-point operations of a step; an elementwise operation counts as one."""
    if step.operation in FLOPS:
        return FLOPS[step.operation](step)
    return 0 if step.is_view else max(value.size for value in [*step.inputs, *step.outputs])


def bytes_moved(step: Task) -> int:
    """Return the bytes that a step reads and writes, each value once; views move nothing."""
    if step.is_view:
        return 0
    return sum(value.nbytes for value in dict.fromkeys([*step.inputs, *step.writes]))


def work(step: Task) -> float:
    """Return a rough measure of the time of a step, in elements passed over once."""
    if step.operation in WORK:
        return WORK[step.operation](step)
    return float(sum(value.size for value in [*step.inputs, *step.outputs]))
