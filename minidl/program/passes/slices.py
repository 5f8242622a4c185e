"""The passes about slices: their gradients are joined where they tile an axis, and they are taken first.

The gradient of a slice is an array of zeros with the gradient's elements in their place, and those of all
slices are added up: each as large as the whole, for each gate of an LSTM and each step of a sequence. Where
slices together are all of an axis, and no two overlap, the sum is their gradients side by side.

The gates of an LSTM are slices of a sum of products. Where slices are taken of the summands, the sum is part
of the elementwise work on each gate.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy

from minidl.primitives.elementwise import add
from minidl.primitives.indexing import scatter_add_, slice_
from minidl.primitives.shape import concatenate_, reshape_
from minidl.program.lowered.selection import Selection
from minidl.program.passes.simplify import drop_dead, instructions, readers_of
from minidl.program.program import Instruction, Program, Step, Value


def join_slices(program: Program) -> Program:
    """Replace sums of the gradients of slices that tile an axis by one concatenation.

    Concatenations along the same axis of which it is made become part of it.
    """
    readers, kept = readers_of(program), set(program.results_needed)
    tiles: dict[Value, _Tiles] = {}
    joined: dict[Value, list[Value]] = {}  # the parts of concatenations that this pass made, with one reader
    steps: list[Step] = []
    for step in instructions(program):
        found = _tiles_of(step, tiles)
        if found is None or step.output.size == 0:
            steps.append(step)
        elif not found.fill(step.output.shape):
            tiles[step.output] = found
            steps.append(step)
        else:
            new, parts = _joined(found, step, joined)
            steps += new
            if readers.get(step.output, 0) == 1 and step.output not in kept and len(parts) > 1:
                joined[step.output] = parts
    return drop_dead(Program(program.inputs, steps, program.outputs, program.updates))


def slice_first(program: Program) -> Program:
    """Take slices of the inputs of elementwise instructions, where only slices of the result are read.

    What is computed of these slices must be elementwise, so that all of it becomes one group, and no element
    may be computed twice.
    """
    readers: dict[Value, dict[Step, None]] = {}
    for step in program.steps:
        for value in step.inputs:
            readers.setdefault(value, {})[step] = None
    kept = set(program.results_needed)
    replaced: dict[Step, list[Step]] = {}
    for step in reversed(program.steps):
        if not step.is_elementwise or not isinstance(step, Instruction) or step.output in kept:
            continue
        slices = [part for part in readers.get(step.output, ()) if isinstance(part, Instruction)]
        if len(slices) == len(readers.get(step.output, ())) and _may_come_first(step, slices, readers, kept):
            replaced[step] = []
            for part in slices:
                replaced[part] = _computed_of_slices(step, part)
                for new in replaced[part][:-1]:
                    readers.setdefault(new.inputs[0], {})[new] = None
            for value in dict.fromkeys(step.inputs):
                del readers[value][step]
    steps: list[Step] = []
    waiting = program.steps[::-1]
    while waiting:
        step = waiting.pop()
        if step in replaced:
            waiting += reversed(replaced[step])
        else:
            steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)


def _may_come_first(
    step: Instruction, slices: list[Instruction], readers: dict[Value, dict[Step, None]], kept: set[Value]
) -> bool:
    """Return whether slices, which are all that is read of an elementwise step, may be taken before it."""
    are_slices = all(part.primitive is slice_ and part.output not in kept for part in slices)
    if not slices or not are_slices or sum(part.output.size for part in slices) > step.output.size:
        return False
    is_broadcast = any(value.shape != step.output.shape for value in step.inputs)
    keeps_axes = all(isinstance(cut, slice) for part in slices for cut in part.attributes["key"])
    return (keeps_axes or not is_broadcast) and all(
        reader.is_elementwise and reader.outputs[0].shape == part.output.shape
        for part in slices
        for reader in readers.get(part.output, ())
    )


def _computed_of_slices(step: Instruction, part: Instruction) -> list[Step]:
    """Return slices of a step's inputs, and the step on these, with the output of a slice of the step."""
    steps, operands = list[Step](), list[Value]()
    for value in step.inputs:
        key = part.attributes["key"]
        if value.shape != step.output.shape:
            key = _of_broadcast(key, value.shape, step.output.shape)
        shape = numpy.broadcast_to(numpy.empty(()), value.shape)[key].shape
        operands.append(Value(shape, value.dtype))
        steps.append(Instruction(slice_, [value], {"key": key}, operands[-1], part.phase))
    return [*steps, Instruction(step.primitive, operands, step.attributes, part.output, part.phase)]


def _of_broadcast(key: tuple[slice, ...], own: tuple[int, ...], whole: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the slices of a value that, broadcast, are what a key gives of it broadcast to a shape."""
    cuts = [*key, *(slice(None),) * (len(whole) - len(key))][len(whole) - len(own) :]
    lengths = whole[len(whole) - len(own) :]
    return tuple(
        cut if n == length else slice(None) for cut, n, length in zip(cuts, own, lengths, strict=True)
    )


@dataclass
class _Tiles:
    """Arrays that lie on parts of an axis, which do not overlap, in an array of zeros; sorted."""

    axis: int
    parts: list[tuple[range, Value]]

    def fill(self, shape: tuple[int, ...]) -> bool:
        """Return whether nothing of the axis is left."""
        return sum(len(part) for part, _ in self.parts) == shape[self.axis]


def _tiles_of(step: Instruction, tiles: dict[Value, _Tiles]) -> _Tiles | None:
    """Return what a step adds up, if it is the gradients of slices along one axis."""
    if step.primitive is scatter_add_ and len(step.inputs) == 1:
        return _tile(step)
    if step.primitive is not add or not all(value in tiles for value in step.inputs):
        return None
    first, second = (tiles[value] for value in step.inputs)
    if first.axis != second.axis or step.inputs[0].shape != step.inputs[1].shape:
        return None
    parts = sorted(first.parts + second.parts, key=lambda item: item[0].start)
    overlap = any(a.stop > b.start for (a, _), (b, _) in itertools.pairwise(parts))
    return None if overlap else _Tiles(first.axis, parts)


def _tile(step: Instruction) -> _Tiles | None:
    (g,), shape = step.inputs, step.output.shape
    selection = Selection(step.attributes["key"], shape)
    ranges = [
        selection.slices.get(axis, range(selection.fixed.get(axis, 0), selection.fixed.get(axis, 0) + 1))
        for axis in range(len(shape))
    ]
    partial = [axis for axis, part in enumerate(ranges) if part != range(shape[axis])] or [0]
    (axis, *others) = partial
    if others or not shape or ranges[axis].step != 1 or not ranges[axis] or g.dtype != step.output.dtype:
        return None
    return _Tiles(axis, [(ranges[axis], g)])


def _joined(
    tiles: _Tiles, step: Instruction, joined: dict[Value, list[Value]]
) -> tuple[list[Step], list[Value]]:
    """Return the steps that put arrays side by side, as the output of a step, and what is put there."""
    shape, steps = step.output.shape, list[Step]()
    parts: list[Value] = []
    for part, value in tiles.parts:
        own = (*shape[: tiles.axis], len(part), *shape[tiles.axis + 1 :])
        if value in joined and _along(joined[value], tiles.axis, own):
            parts += joined[value]
        elif value.shape == own and len(tiles.parts) > 1:
            parts.append(value)
        else:
            output = step.output if len(tiles.parts) == 1 else Value(own, value.dtype)
            steps.append(Instruction(reshape_, [value], {"shape": own}, output, step.phase))
            parts.append(output)
    if len(tiles.parts) > 1:
        steps.append(Instruction(concatenate_, parts, {"axis": tiles.axis}, step.output, step.phase))
    return steps, parts


def _along(parts: list[Value], axis: int, shape: tuple[int, ...]) -> bool:
    """Return whether arrays side by side along an axis are one of this shape."""
    whole = [(*part.shape[:axis], shape[axis], *part.shape[axis + 1 :]) for part in parts]
    fits = all(len(part.shape) == len(shape) and own == shape for part, own in zip(parts, whole, strict=True))
    return fits and sum(part.shape[axis] for part in parts) == shape[axis]
