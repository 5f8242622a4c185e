"""The passes on scatter_add with positions, one for each kind of machine.

On a GPU, the order in which it adds is fixed; see program/lowered/sorted_scatter.py. On a CPU, it adds to
what its result is to be added to, so that no array of zeros is filled.
"""

from __future__ import annotations

import math

import numpy

from minidl.primitives.elementwise import add
from minidl.primitives.indexing import scatter_add_
from minidl.program.lowered.add_at import add_at_
from minidl.program.lowered.selection import Selection
from minidl.program.lowered.sorted_scatter import (
    RUN,
    merge_places_,
    scatter_sorted_,
    sort_places_,
    sum_runs_,
    wide,
)
from minidl.program.passes.simplify import instructions, readers_of
from minidl.program.program import Instruction, Program, Step, Value

#: From this number of contributions on, runs of those to one element are added up first. Fewer are soon
#: added one by one, and a launch is saved.
MIN_FOR_RUNS = 4 * RUN

#: How many places are sorted by comparing all with all, at least. It costs about as much as a launch.
MIN_STRETCH = 1024


def add_to_sums(program: Program) -> Program:
    """Replace the sum of something and a scatter_add, which nothing else reads, by a step that adds to it."""
    readers, kept = readers_of(program), set(program.results_needed)
    scatters: dict[Value, Instruction] = {}
    replaced: set[Step] = set()
    steps: list[Step] = []
    for step in program.steps:
        if not isinstance(step, Instruction):
            steps.append(step)
            continue
        has_positions = step.primitive is scatter_add_ and step.inputs[1:]
        if has_positions and readers.get(step.output) == 1 and step.output not in kept:
            scatters[step.output] = step
        last = next((value for value in reversed(step.inputs) if value in scatters), None)
        if step.primitive is add and last is not None:
            (other,) = [value for value in step.inputs if value is not last]
            if other.shape == last.shape and other.dtype == last.dtype:
                scatter = scatters.pop(last)
                replaced.add(scatter)
                step = Instruction(
                    add_at_, [other, *scatter.inputs], scatter.attributes, step.output, step.phase
                )
        steps.append(step)
    steps = [step for step in steps if step not in replaced]
    return Program(program.inputs, steps, program.outputs, program.updates)


def order_scatters(program: Program) -> Program:
    """Replace each scatter_add with positions by steps that sort and add: the same bits in every run.

    Sorting needs only the positions. So it waits for nothing that is computed, and starts together with
    other steps; equal positions are sorted once.
    """
    steps: list[Step] = []
    for step in instructions(program):
        steps += _ordered(step) if step.primitive is scatter_add_ and step.inputs[1:] else [step]
    return Program(program.inputs, steps, program.outputs, program.updates)


def _ordered(step: Instruction) -> list[Instruction]:
    g, *positions = step.inputs
    selection = Selection(step.attributes["key"], step.output.shape, [value.shape for value in positions])
    count, targets = selection.count, math.prod(selection.lengths)
    if not g.size or not step.output.size or selection.shape != g.shape:
        return [step]
    if count >= 2**30 or targets * count >= 2**62:  # beyond the numbers that places are
        return [step]
    dtype = numpy.dtype(numpy.int32 if targets * count < 2**31 else numpy.int64)
    stretch, phase = _stretch(count), step.phase
    places = Value((count,), dtype)
    attributes = {"lengths": selection.lengths, "stretch": stretch, "dtype": dtype}
    steps = [Instruction(sort_places_, positions, attributes, places, phase)]
    if count > stretch:
        merged = Value((count,), dtype)
        steps.append(Instruction(merge_places_, [places], {"stretch": stretch}, merged, phase))
        places = merged
    inputs = [g, places, *positions]
    if count >= MIN_FOR_RUNS:
        sums = Value((count // RUN, math.prod(selection.basic_lengths)), wide(g.dtype))
        steps.append(Instruction(sum_runs_, inputs, step.attributes, sums, phase))
        inputs = [*inputs, sums]
    return [*steps, Instruction(scatter_sorted_, inputs, step.attributes, step.output, phase)]


def _stretch(count: int) -> int:
    """Return how many places are sorted by comparing all with all.

    The rest is bisection of all other stretches. What is compared in shared memory is some ten times as fast
    as a step of a bisection, so that both take about as long if the stretch is some roots of the count.
    """
    return max(MIN_STRETCH, 1 << math.ceil(math.log2(8 * math.sqrt(count))))
