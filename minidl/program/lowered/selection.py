"""What a key picks from an array, axis by axis: NumPy's rules of indexing, worked out on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy

from minidl.primitives.indexing import SLOT


class Selection:
    """A key, applied to an array of some shape and to arrays of positions of some shapes.

    An axis of the array is sliced, fixed at an integer, or indexed by an array of positions. The
    result has an axis for each slice and each None, in order, and at one place among them the axes to which
    the arrays of positions broadcast.

    Attributes
    ----------
    slices : the positions, as a ``range``, that a slice takes of an axis
    fixed : the position at which an integer fixes an axis
    indexed : the axes indexed by arrays, in the order of the arrays
    spread : the shape to which the arrays broadcast
    basic : for each other axis of the result the axis that it is a slice of, or None for a new one
    at : how many of these come before the axes of ``spread``
    """

    def __init__(
        self, key: tuple[Any, ...], shape: Sequence[int], position_shapes: Sequence[Sequence[int]] = ()
    ):
        self.slices: dict[int, range] = {}
        self.fixed: dict[int, int] = {}
        self.indexed: list[int] = []
        self.spread = numpy.broadcast_shapes(*map(tuple, position_shapes))
        self.basic: list[int | None] = []
        self.at = _place_of_spread(key, len(shape), position_shapes)
        self._shape = tuple(shape)
        axis = 0
        for part in _without_ellipsis(key, len(shape)):
            if part is None:
                self.basic.append(None)
                continue
            if part is SLOT:
                self.indexed.append(axis)
            elif isinstance(part, slice):
                self.slices[axis] = range(shape[axis])[part]
                self.basic.append(axis)
            else:
                self.fixed[axis] = part % shape[axis]
            axis += 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        lengths = self.basic_lengths
        return (*lengths[: self.at], *self.spread, *lengths[self.at :])

    @property
    def basic_lengths(self) -> tuple[int, ...]:
        """The lengths of the result's axes without those of the positions."""
        return tuple(1 if axis is None else len(self.slices[axis]) for axis in self.basic)

    @property
    def count(self) -> int:
        """How many places the arrays of positions name; 1 if there are none."""
        return math.prod(self.spread)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of the axes indexed by arrays."""
        return tuple(self._shape[axis] for axis in self.indexed)

    def result_axis(self, axis: int) -> int:
        """Return which axis of the result is a slice of an axis of the array."""
        place = self.basic.index(axis)
        return place if place < self.at else place + len(self.spread)

    def by_place(self, g: Any) -> Any:
        """Return an array of the result's shape as a matrix: a row for each place, the rest in its order."""
        start, end = self.at, self.at + len(self.spread)
        axes = (*range(start, end), *range(start), *range(end, g.ndim))
        return g.transpose(axes).reshape(self.count, math.prod(self.basic_lengths))


def _without_ellipsis(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """Return a key with a slice, an integer or a slot for each axis, and None for new ones."""
    missing = (slice(None),) * (ndim - sum(part is not None and part is not Ellipsis for part in key))
    places = [i for i, part in enumerate(key) if part is Ellipsis]
    if not places:
        return (*key, *missing)
    return (*key[: places[0]], *missing, *key[places[0] + 1 :])


def _place_of_spread(key: tuple[Any, ...], ndim: int, position_shapes: Sequence[Sequence[int]]) -> int:
    """Return how many axes of the result come before those of the positions.

    NumPy's rule has corners, so NumPy is asked: by an array of which all axes have length 1, and positions
    of which all have length 2.
    """
    arrays = (numpy.zeros((2,) * len(shape), numpy.int64) for shape in position_shapes)

    def small(part: Any) -> Any:
        if part is SLOT:
            return next(arrays)
        return slice(None) if isinstance(part, slice) else 0 if isinstance(part, int) else part

    shape = numpy.zeros((1,) * ndim)[tuple(map(small, key))].shape
    return shape.index(2) if 2 in shape else 0
