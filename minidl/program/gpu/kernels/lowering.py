"""How each step becomes kernels: the table LOWERINGS. Steps that are not in it are calls of a library.

A new operation joins it with one function, which returns the kernels of a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.cumulative import cumsum_
from minidl.primitives.indexing import gather_, scatter_add_, set_items_, slice_
from minidl.primitives.random import random_normal, random_uniform
from minidl.primitives.reduction import argmax_, argmin_, max_, min_, sum_
from minidl.primitives.shape import concatenate_, pad_, reshape_
from minidl.primitives.sorting import argsort_
from minidl.primitives.windows import do_overlap, overlap_add_, scatter_to_maxima_, select_maxima_, windows_
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.elementwise import (
    advance_kernel,
    copy_kernel,
    draw_kernel,
    fill_kernel,
    group_kernel,
    is_literal,
)
from minidl.program.gpu.kernels.grouped import (
    grouped_conv_input_kernel,
    grouped_conv_kernel,
    grouped_conv_weight_kernel,
    is_of_small_groups,
)
from minidl.program.gpu.kernels.indexing import (
    gather_kernel,
    merge_places_kernel,
    place_kernel,
    replace_kernel,
    scatter_kernel,
    sort_places_kernel,
    sum_runs_kernel,
)
from minidl.program.gpu.kernels.reductions import reduction_kernel
from minidl.program.gpu.kernels.rows import rows_kernel
from minidl.program.gpu.kernels.scans import argsort_kernel, cumsum_kernel
from minidl.program.gpu.kernels.source import Kernel
from minidl.program.gpu.kernels.windows import (
    fold_kernel,
    pack_kernel,
    scatter_to_maxima_kernel,
    select_maxima_kernel,
)
from minidl.program.lowered.sorted_scatter import (
    merge_places_,
    positions_and_sums,
    scatter_sorted_,
    sort_places_,
    sum_runs_,
)
from minidl.program.plan.convolution import Form
from minidl.program.plan.tasks import Advance, Copy, Task
from minidl.program.program import Group, Instruction, Operation, Rows, Value
from minidl.random.generator import Generator


@dataclass(frozen=True)
class Operands:
    """What the kernels of a program work on.

    Attributes
    ----------
    arrays : of every value
    zeros : gives memory of zeros, of a length and dtype, to a kernel that needs some between its blocks
    stream_state : the state, on the GPU, of a Generator's stream
    draws : where in its stream each random step, by ``id``, begins
    """

    arrays: Mapping[Value, Array]
    zeros: Callable[[int, numpy.dtype], Array]
    stream_state: Callable[[Generator], Array]
    draws: Mapping[int, int]

    def of(self, step: Instruction) -> tuple[list[Array], Array]:
        """Return the arrays of the inputs and of the output of a step."""
        return [self.arrays[value] for value in step.inputs], self.arrays[step.output]


#: Returns the kernels of a step; one of no elements has no blocks. Raises Unsupported where it has none.
Lowering = Callable[[Any, Operands], list[Kernel]]


def has_kernels(task: Task) -> bool:
    """Return whether there may be generated kernels for a step, which do not wait for each other."""
    holds = CONDITIONS.get(task.operation, lambda step: True)
    return task.operation in LOWERINGS and holds(task)


def kernels_of(task: Task, operands: Operands) -> list[Kernel]:
    """Return the kernels of a step.

    Raises
    ------
    Unsupported
        There are none for this operation, or for arrays like these.
    """
    if not has_kernels(task):
        raise Unsupported(task.name)
    return LOWERINGS[task.operation](task, operands)


def _group(group: Group, operands: Operands) -> list[Kernel]:
    values = dict.fromkeys([*group.inputs, *group.outputs])
    places = {value: operands.arrays[value] for value in values if not is_literal(value)}
    return [group_kernel(group.members, group.outputs, places, group.shape)]


def _rows(rows: Rows, operands: Operands) -> list[Kernel]:
    values = dict.fromkeys([*rows.inputs, *rows.outputs])
    return [rows_kernel(rows, {value: operands.arrays[value] for value in values if not is_literal(value)})]


def _copy(copy: Copy, operands: Operands) -> list[Kernel]:
    return [copy_kernel(copy.state.array, operands.arrays[copy.value])]


def _advance(advance: Advance, operands: Operands) -> list[Kernel]:
    return [advance_kernel(operands.stream_state(advance.stream), advance.count)]


def _draw(step: Instruction, operands: Operands) -> list[Kernel]:
    state = operands.stream_state(step.attributes["generator"])
    return [draw_kernel(step.name, state, operands.draws[id(step)], operands.arrays[step.output])]


def _reduction(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    axis = step.attributes["axis"]
    axes = (axis,) if isinstance(axis, int) else axis
    return [reduction_kernel(step.name, x, axes, out, operands.zeros)]


def _sum(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    return _reduction(step, operands) if x.size else [fill_kernel(out, 0)]


def _concatenation(step: Instruction, operands: Operands) -> list[Kernel]:
    inputs, out = operands.of(step)
    axis = step.attributes["axis"]
    ends = list(itertools.accumulate(part.shape[axis] for part in inputs))
    before = (slice(None),) * axis
    places = [out[(*before, slice(start, end))] for start, end in zip([0, *ends], ends, strict=False)]
    return list(map(copy_kernel, places, inputs))


def _reshaped(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    return [copy_kernel(out.reshape(x.shape), x)]  # it is not a view


def _picked(step: Instruction, operands: Operands) -> list[Kernel]:
    (x, *positions), out = operands.of(step)
    return [gather_kernel(x, positions, step.attributes["key"], out)]


def _placed(step: Instruction, operands: Operands) -> list[Kernel]:
    (g, *positions), out = operands.of(step)
    if positions and g.size:
        raise Unsupported("scatter_add in no order")  # one that the pass order_scatters could not replace
    return [fill_kernel(out, 0)] if positions else [place_kernel(g, step.attributes["key"], 0, out)]


def _replaced(step: Instruction, operands: Operands) -> list[Kernel]:
    (x, value, *positions), out = operands.of(step)
    return [replace_kernel(x, value, positions, step.attributes["key"], out)]


def _running_sum(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    return [cumsum_kernel(x, step.attributes["axis"], out)]


def _sorted(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    return [argsort_kernel(x, step.attributes["axis"], out)]


def _padded(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    widths = step.attributes["widths"]
    key = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))
    return [place_kernel(x, key, step.attributes["value"], out)]


def _places_sorted(step: Instruction, operands: Operands) -> list[Kernel]:
    positions, out = operands.of(step)
    return [sort_places_kernel(positions, step.attributes["lengths"], step.attributes["stretch"], out)]


def _places_merged(step: Instruction, operands: Operands) -> list[Kernel]:
    (places,), out = operands.of(step)
    return [merge_places_kernel(places, step.attributes["stretch"], out)]


def _runs_summed(step: Instruction, operands: Operands) -> list[Kernel]:
    (g, places, *positions), out = operands.of(step)
    return [sum_runs_kernel(g, places, [p.shape for p in positions], **step.attributes, out=out)]


def _scattered(step: Instruction, operands: Operands) -> list[Kernel]:
    (g, places, *others), out = operands.of(step)
    key = step.attributes["key"]
    positions, sums = positions_and_sums(others, key)
    return [scatter_kernel(g, places, sums[0] if sums else None, [p.shape for p in positions], key, out)]


def _windows(step: Instruction, operands: Operands) -> list[Kernel]:
    (x,), out = operands.of(step)
    stride, dilation = step.attributes["stride"], step.attributes["dilation"]
    columns = out.reshape(1, *out.shape)
    return [pack_kernel(x, columns, stride, (0,) * len(stride), dilation)]


def _overlap_add(step: Instruction, operands: Operands) -> list[Kernel]:
    (parts,), out = operands.of(step)
    stride, dilation = step.attributes["stride"], step.attributes["dilation"]
    if not parts.size:
        return [fill_kernel(out, 0)]
    whole = parts[..., None, :]  # one group
    return [fold_kernel(whole, out, stride, (0,) * len(stride), dilation)]


def _select_maxima(step: Instruction, operands: Operands) -> list[Kernel]:
    (values, x), out = operands.of(step)
    own = None if step.inputs[0] is step.inputs[1] else values
    return [select_maxima_kernel(own, x, **step.attributes, out=out)]


def _scatter_to_maxima(step: Instruction, operands: Operands) -> list[Kernel]:
    (g, x), out = operands.of(step)
    return [scatter_to_maxima_kernel(g, x, **step.attributes, out=out)]


def _do_not_overlap(step: Instruction) -> bool:
    return not do_overlap(step.attributes["window"], step.attributes["stride"])


def _grouped_conv(step: Instruction, operands: Operands) -> list[Kernel]:
    (x, w), out = operands.of(step)
    return [grouped_conv_kernel(x, w, out, Form.of(step))]


def _grouped_conv_input(step: Instruction, operands: Operands) -> list[Kernel]:
    (g, w), out = operands.of(step)
    return [grouped_conv_input_kernel(g, w, out, Form.of(step))]


def _grouped_conv_weight(step: Instruction, operands: Operands) -> list[Kernel]:
    (x, g), out = operands.of(step)
    if not x.size:
        return [fill_kernel(out, 0)]
    return [grouped_conv_weight_kernel(x, g, out, Form.of(step), operands.zeros)]


def _is_of_small_groups(step: Instruction) -> bool:
    return is_of_small_groups(Form.of(step))


#: What has to hold of a step, besides, so that it has kernels of its own; calls.py has all others.
CONDITIONS: dict[Operation, Callable[[Any], bool]] = {
    conv_: _is_of_small_groups,
    conv_input_: _is_of_small_groups,
    conv_weight_: _is_of_small_groups,
    scatter_to_maxima_: _do_not_overlap,
}

LOWERINGS: dict[Operation, Lowering] = {
    Group: _group,
    Rows: _rows,
    Copy: _copy,
    Advance: _advance,
    random_uniform: _draw,
    random_normal: _draw,
    sum_: _sum,
    max_: _reduction,
    min_: _reduction,
    argmax_: _reduction,
    argmin_: _reduction,
    concatenate_: _concatenation,
    reshape_: _reshaped,
    slice_: _picked,
    gather_: _picked,
    scatter_add_: _placed,
    set_items_: _replaced,
    cumsum_: _running_sum,
    argsort_: _sorted,
    pad_: _padded,
    sort_places_: _places_sorted,
    merge_places_: _places_merged,
    sum_runs_: _runs_summed,
    scatter_sorted_: _scattered,
    windows_: _windows,
    overlap_add_: _overlap_add,
    select_maxima_: _select_maxima,
    scatter_to_maxima_: _scatter_to_maxima,
    conv_: _grouped_conv,
    conv_input_: _grouped_conv_input,
    conv_weight_: _grouped_conv_weight,
}
