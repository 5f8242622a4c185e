"""Work on more than two axes, done on matrices."""

import numpy

import minidl as dl


def test_empty_arrays_of_many_axes_stay_empty():
    step = dl.compile(lambda x: (x * 2 + x.sum(), x.sum()))
    results = step(numpy.zeros((2, 0, 3)))
    assert [result.shape for result in results] == [(2, 0, 3), ()]
