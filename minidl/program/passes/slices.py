"""The pass that joins the gradients of slices, where these tile an axis.

The gradient of a slice is an array of zeros with the gradient's elements in their place, and those of all
slices are added up: each as large as the whole, for each gate of an LSTM and each step of a sequence. Where
slices together are all of an axis, and no two overlap, the sum is their gradients side by side.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from minidl.primitives.elementwise import add
from minidl.primitives.indexing import scatter_add_
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
