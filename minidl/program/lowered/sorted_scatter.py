"""The steps of scatter_add on a GPU, where its order has to be fixed.

Threads that add to the same element, each when it gets there, give other bits in every run. So the places of
all contributions are sorted first, which needs only the positions and can be done early; then each element
of the result adds up its own contributions, in their order. No gradients flow through these: they replace a
scatter_add after the gradients are made.

A *place* is a whole number: the element that is meant, among those that the positions can name, times the
number of contributions, plus the number of the contribution. All places differ, so that their order does not
depend on how they are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from minidl.primitives.indexing import SLOT, scatter_add_
from minidl.primitives.primitive import Primitive
from minidl.program.lowered.selection import Selection

#: How many contributions to one element are added up beforehand, where there are as many.
RUN = 64


def _sort_places(
    xp: Any, *positions: Any, lengths: tuple[int, ...], stretch: int, dtype: Any, out: Any = None
) -> Any:
    shape = numpy.broadcast_shapes(*(array.shape for array in positions))
    inside = [
        xp.remainder(array.astype(numpy.int64), length)
        for array, length in zip(positions, lengths, strict=True)
    ]
    target = inside[0]
    for position, length in zip(inside[1:], lengths[1:], strict=True):
        target = xp.add(xp.multiply(target, length), position)
    target = xp.broadcast_to(target, shape).reshape(-1)
    count = len(target)
    places = xp.add(xp.multiply(target, count), xp.arange(count)).astype(dtype)
    if out is None:
        out = xp.empty(count, dtype)
    for start in range(0, count, stretch):
        out[start : start + stretch] = xp.sort(places[start : start + stretch])
    return out


def _merge_places(xp: Any, places: Any, stretch: int, out: Any = None) -> Any:
    result = xp.sort(places)
    if out is None:
        return result
    xp.copyto(out, result)
    return out


def _sum_runs(
    xp: Any,
    g: Any,
    places: Any,
    *positions: Any,
    key: tuple[Any, ...],
    shape: tuple[Any, ...],
    out: Any = None,
) -> Any:
    selection = Selection(key, shape, [array.shape for array in positions])
    matrix, count = selection.by_place(g), len(places)
    whole = places[: count // RUN * RUN].reshape(-1, RUN)
    element = xp.floor_divide(whole, count)
    runs = matrix[xp.remainder(whole, count)].sum(axis=1, dtype=wide(g.dtype))
    sums = xp.multiply(runs, xp.equal(element[:, :1], element[:, -1:]))
    if out is None:
        return sums.astype(wide(g.dtype))
    xp.copyto(out, sums)
    return out


def _scatter_sorted(
    xp: Any, g: Any, places: Any, *others: Any, key: tuple[Any, ...], shape: tuple[Any, ...], out: Any = None
) -> Any:
    positions, _ = positions_and_sums(others, key)
    return scatter_add_.forward(xp, g, *positions, key=key, shape=shape, out=out)


def positions_and_sums(others: Sequence[Any], key: tuple[Any, ...]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the last inputs of scatter_sorted: the positions, and the sums of runs, if they are given."""
    slots = sum(part is SLOT for part in key)
    return others[:slots], others[slots:]


def wide(dtype: numpy.dtype) -> numpy.dtype:
    """Return the dtype in which contributions are added up."""
    return numpy.dtype(numpy.float32) if dtype == numpy.float16 else dtype


sort_places_: Primitive = Primitive(
    "sort_places",
    _sort_places,
    gradients=(),
    doc="Return the places that arrays of positions name, each stretch of them sorted.",
)
merge_places_: Primitive = Primitive(
    "merge_places",
    _merge_places,
    gradients=(None,),
    doc="Return places sorted, of which each stretch is sorted already.",
)
sum_runs_: Primitive = Primitive(
    "sum_runs",
    _sum_runs,
    gradients=(),
    doc="Return the sum of each RUN sorted contributions that belong to one element, else 0.",
)
scatter_sorted_: Primitive = Primitive(
    "scatter_sorted",
    _scatter_sorted,
    gradients=(),
    doc="Return scatter_add(g, *positions); inputs: g, sorted places, positions and, if there are, run sums.",
)
