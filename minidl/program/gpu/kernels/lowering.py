"""How the kernels of a step are made: the primitives that have any, beside elementwise ones and draws."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy

from minidl.devices import Array
from minidl.primitives.indexing import gather_, scatter_add_, slice_
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import argmax_, max_, min_, sum_
from minidl.primitives.shape import concatenate_, pad_, reshape_
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.elementwise import copy_kernel, fill_kernel
from minidl.program.gpu.kernels.indexing import (
    gather_kernel,
    merge_places_kernel,
    place_kernel,
    scatter_kernel,
    sort_places_kernel,
    sum_runs_kernel,
)
from minidl.program.gpu.kernels.reductions import reduction_kernel
from minidl.program.gpu.kernels.source import Kernel
from minidl.program.lowered.sorted_scatter import (
    merge_places_,
    positions_and_sums,
    scatter_sorted_,
    sort_places_,
    sum_runs_,
)
from minidl.program.program import Instruction

#: Gives memory of zeros to a kernel that needs some between its blocks.
Zeros = Callable[[int, numpy.dtype], Array]

Lowering = Callable[[Instruction, list[Array], Array, Zeros], list[Kernel]]


def _reduction(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    (x,), axis = inputs, step.attributes["axis"]
    if x.size == 0 and step.primitive is sum_:
        return [fill_kernel(out, 0)]
    axes = (axis,) if isinstance(axis, int) else axis
    return [reduction_kernel(step.name, x, axes, out, zeros)]


def _concatenation(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    axis = step.attributes["axis"]
    ends = list(itertools.accumulate(part.shape[axis] for part in inputs))
    before = (slice(None),) * axis
    places = [out[(*before, slice(start, end))] for start, end in zip([0, *ends], ends, strict=False)]
    return list(map(copy_kernel, places, inputs))


def _reshaped(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    return [copy_kernel(out.reshape(inputs[0].shape), inputs[0])]  # it is not a view


def _picked(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    x, *positions = inputs
    return [gather_kernel(x, positions, step.attributes["key"], out)]


def _placed(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    g, *positions = inputs
    if positions and g.size:
        raise Unsupported("scatter_add in no order")  # one that the pass order_scatters could not replace
    return [fill_kernel(out, 0)] if positions else [place_kernel(g, step.attributes["key"], 0, out)]


def _padded(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    (x,), widths = inputs, step.attributes["widths"]
    key = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))
    return [place_kernel(x, key, step.attributes["value"], out)]


def _places_sorted(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    return [sort_places_kernel(inputs, step.attributes["lengths"], step.attributes["stretch"], out)]


def _places_merged(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    return [merge_places_kernel(inputs[0], step.attributes["stretch"], out)]


def _runs_summed(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    g, places, *positions = inputs
    return [sum_runs_kernel(g, places, [p.shape for p in positions], **step.attributes, out=out)]


def _scattered(step: Instruction, inputs: list[Array], out: Array, zeros: Zeros) -> list[Kernel]:
    g, places, *others = inputs
    key = step.attributes["key"]
    positions, sums = positions_and_sums(others, key)
    return [scatter_kernel(g, places, sums[0] if sums else None, [p.shape for p in positions], key, out)]


#: What makes the kernels of a step from the arrays of its inputs and of its output. A maker raises
#: Unsupported where it has none.
LOWERINGS: dict[Primitive, Lowering] = {
    sum_: _reduction,
    max_: _reduction,
    min_: _reduction,
    argmax_: _reduction,
    concatenate_: _concatenation,
    reshape_: _reshaped,
    slice_: _picked,
    gather_: _picked,
    scatter_add_: _placed,
    pad_: _padded,
    sort_places_: _places_sorted,
    merge_places_: _places_merged,
    sum_runs_: _runs_summed,
    scatter_sorted_: _scattered,
}
