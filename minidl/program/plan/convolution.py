"""What a convolution's step works on, in elements, and in which blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.program.program import Instruction

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Windows that are computed together: of some images, those of some rows (of the first middle axis).

    ``band`` are the rows of the images that a block of the gradient of the input computes; a block of the
    others reads what its windows cover.
    """

    images: slice
    rows: slice
    band: slice


@dataclass(frozen=True)
class Form:
    """A convolution over middle axes; `x` is (batch, *lengths, channels), its result (batch, *counts, ...).

    Attributes
    ----------
    before : the border before each axis
    inside, outside : the channels of each group, of `x` and of the result
    """

    batch: int
    lengths: Lengths
    counts: Lengths
    window: Lengths
    stride: Lengths
    before: Lengths
    dilation: Lengths
    groups: int
    inside: int
    outside: int

    @classmethod
    def of(cls, step: Instruction) -> Form:
        """Return the form of a step that is one of CONVOLUTIONS."""
        first, second = step.inputs
        x, w, g = {
            conv_: (first, second, step.output),
            conv_input_: (step.output, second, first),
            conv_weight_: (first, step.output, second),
        }[step.primitive]
        groups = step.attributes["groups"]
        return cls(
            x.shape[0],
            *(x.shape[1:-1], g.shape[1:-1], w.shape[:-2]),
            step.attributes["stride"],
            tuple(pair[0] for pair in step.attributes["padding"]),
            step.attributes["dilation"],
            *(groups, w.shape[-2], w.shape[-1] // groups),
        )

    @property
    def size(self) -> int:
        """The elements of a window, of one group."""
        return math.prod(self.window) * self.inside

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel is a window of its own, so that nothing has to be packed."""
        return (
            max(self.window) == max(self.stride) == 1 and not any(self.before) and self.lengths == self.counts
        )

    def blocks(self, elements: int) -> Iterator[Block]:
        """Yield blocks that cover all windows, of about this many elements: whole images, or rows of one."""
        for images, rows in self._parts(self.counts[0], self.counts, elements):
            yield Block(images, rows, slice(0, self.lengths[0]))

    def input_blocks(self, elements: int) -> Iterator[Block]:
        """Yield blocks that cover the images, each with all the windows that reach it.

        Blocks of one image have some windows in common, which are computed for each of them: so each element
        is written once.
        """
        reach, whole = (self.window[0] - 1) * self.dilation[0], slice(0, self.lengths[0])
        for images, band in self._parts(self.lengths[0], self.counts, elements):
            if band == whole:
                yield Block(images, slice(0, self.counts[0]), band)
                continue
            first = -((reach - band.start - self.before[0]) // self.stride[0])
            last = (band.stop - 1 + self.before[0]) // self.stride[0]
            start = min(max(first, 0), self.counts[0])
            yield Block(images, slice(start, max(min(last + 1, self.counts[0]), start)), band)

    def _parts(self, length: int, counts: Lengths, elements: int) -> Iterator[tuple[slice, slice]]:
        """Yield slices of the images and of rows, parts of nearly equal size."""
        per_image = max(math.prod(counts) * self.size * self.groups, 1)
        if per_image <= elements:
            for images in _even(self.batch, elements // per_image):
                yield images, slice(0, length)
        else:
            for image in range(self.batch):
                for rows in _even(length, max(length * elements // per_image, 1)):
                    yield slice(image, image + 1), rows


def _even(length: int, most: int) -> Iterator[slice]:
    """Yield slices of a length, as few as possible of at most some elements, and nearly equal."""
    step = -(-length // max(-(-length // most), 1))
    return (slice(start, min(start + step, length)) for start in range(0, length, max(step, 1)))
