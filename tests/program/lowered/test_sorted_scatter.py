"""Sorted places and the sums of runs."""

import numpy
import pytest

from minidl.primitives.indexing import SLOT
from minidl.program.lowered.sorted_scatter import RUN, merge_places_, scatter_sorted_, sort_places_, sum_runs_


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
