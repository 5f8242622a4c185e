"""What a key picks, worked out on shapes, is what NumPy picks."""

import numpy
from hypothesis import given

from minidl.program.lowered.selection import Selection
from tests.program.lowered.keys import filled, selections


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
