"""What a key picks, worked out on shapes, is what NumPy picks."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.primitives.indexing import SLOT
from minidl.program.lowered.selection import Selection
from minidl.program.lowered.sorted_scatter import RUN, merge_places_, scatter_sorted_, sort_places_, sum_runs_

KINDS = ("int64", "int32", "int8", "uint8")


@st.composite
def selections(draw, most_arrays=3, empty=True, outside=False):
    """Draw (shape, key, positions): what can stand in x[...], with slots for the arrays of positions."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    kinds = draw(st.lists(st.sampled_from("asi"), min_size=len(shape), max_size=len(shape)))
    kinds = [kind if kinds[:i].count("a") < most_arrays else "s" for i, kind in enumerate(kinds)]
    count = kinds.count("a")
    spread: list = []
    if count:
        drawn = hnp.mutually_broadcastable_shapes(
            num_shapes=count, max_dims=2, min_side=0 if empty else 1, max_side=3
        )
        spread = list(draw(drawn).input_shapes)
    key, positions = [], []
    for kind, length in zip(kinds, shape, strict=True):
        if kind == "a":
            dtype = draw(st.sampled_from(KINDS))
            least = 0 if dtype == "uint8" else -length
            bounds = st.integers(
                *((0 if dtype == "uint8" else -100), 100) if outside else (least, length - 1)
            )
            positions.append(draw(hnp.arrays(dtype, spread.pop(0), elements=bounds)))
            key.append(SLOT)
        else:
            key.append(draw(st.slices(length) if kind == "s" else st.integers(-length, length - 1)))
    if draw(st.booleans()):  # an ellipsis in place of some axes, or of none
        start = draw(st.integers(0, len(key)))
        end = start
        while end < len(key) and isinstance(key[end], slice) and draw(st.booleans()):
            end += 1
        key[start:end] = [Ellipsis]
    for _ in range(draw(st.integers(0, 2))):
        key.insert(draw(st.integers(0, len(key))), None)
    return shape, tuple(key), positions


def filled(key, positions):
    remaining = iter(positions)
    return tuple(next(remaining) if part is SLOT else part for part in key)


@given(selections())
def test_the_shape_is_numpys(drawn):
    shape, key, positions = drawn
    expected = numpy.zeros(shape)[filled(key, positions)].shape
    assert Selection(key, shape, [p.shape for p in positions]).shape == expected


@given(selections(empty=False))
def test_each_place_has_a_row(drawn):
    shape, key, positions = drawn
    x = numpy.arange(numpy.prod(shape)).reshape(shape)
    selection = Selection(key, shape, [p.shape for p in positions])
    rows = selection.by_place(x[filled(key, positions)])
    for number, row in enumerate(rows):
        place = [numpy.broadcast_to(p, selection.spread).reshape(-1)[number] for p in positions]
        one = x[filled(key, place)] if positions else x[key]
        assert sorted(row) == sorted(numpy.ravel(one))


@pytest.mark.parametrize("stretch", [1000, 7])
def test_places_are_sorted_by_element_and_then_by_contribution(rng, stretch):
    rows, columns = rng.integers(-5, 5, (20, 1)), rng.integers(0, 3, (1, 4)).astype("uint8")
    attributes = {"lengths": (5, 3), "stretch": stretch, "dtype": numpy.dtype("int32")}
    places = sort_places_.forward(numpy, rows, columns, **attributes)
    merged = merge_places_.forward(numpy, places, stretch=stretch)
    elements = ((rows % 5) * 3 + columns).reshape(-1)
    order = numpy.argsort(elements, kind="stable")
    assert (merged == elements[order] * 80 + order).all()
    assert all((numpy.diff(places[i : i + stretch]) > 0).all() for i in range(0, 80, stretch))


def test_runs_of_one_element_are_summed(rng):
    positions = numpy.repeat([3, 1], [100, 2 * RUN])
    g = rng.random((len(positions), 2))
    attributes = {"lengths": (5,), "stretch": 1000, "dtype": numpy.dtype("int64")}
    places = sort_places_.forward(numpy, positions, **attributes)
    over = {"key": (SLOT,), "shape": (5, 2)}
    sums = sum_runs_.forward(numpy, g, places, positions, **over)
    expected = [g[100 : 100 + RUN].sum(axis=0), g[100 + RUN :].sum(axis=0), g[:RUN].sum(axis=0)]
    numpy.testing.assert_allclose(sums, expected)
    result = scatter_sorted_.forward(numpy, g, places, positions, sums, **over)
    numpy.testing.assert_allclose(result[[1, 3]], [g[100:].sum(axis=0), g[:100].sum(axis=0)])
