"""Segments of C: steps with the same code share a function, and parts are compiled side by side."""

import numpy
import pytest

import minidl as dl
from minidl.program.cpu import c_code, executor
from minidl.program.cpu.c_code import CSource
from tests.program.networks import needs_c


def doubling(source, x, y, n=3):
    pointers = f"float *x = {source.address(x)}, *y = {source.address(y)};"
    return f"{{ {pointers} for (int i = 0; i < {n}; i++) y[i] = 2 * x[i]; }}"


@needs_c
@pytest.mark.parametrize("cores", [1, 3])
def test_statements_that_differ_in_addresses_share_a_function(cores, monkeypatch):
    monkeypatch.setattr(c_code, "MIN_UNIT", 1)
    monkeypatch.setattr(c_code, "available_cores", lambda: cores)
    arrays = [numpy.arange(4, dtype="float32"), *numpy.zeros((6, 4), "float32")]
    source = CSource()
    same = [doubling(source, *arrays[i : i + 2]) for i in range(3)]
    others = [doubling(source, *arrays[i : i + 2], n=i) for i in (1, 2)]
    assert [source.segment(same), source.segment(others)] == [0, 1]
    assert len(source.functions) == 3
    first, second = source.build()
    first()
    numpy.testing.assert_array_equal(arrays[3], [0, 8, 16, 0])
    assert not arrays[4].any()
    arrays[2][:] = 5
    second()
    numpy.testing.assert_array_equal([arrays[2], arrays[3]], [[0, 5, 5, 5], [0, 10, 16, 0]])


@needs_c
def test_the_steps_of_a_recurrence_share_functions(monkeypatch):
    sources = []

    class Kept(CSource):
        def __init__(self):
            super().__init__()
            sources.append(self)

    monkeypatch.setattr(executor, "CSource", Kept)

    weight = dl.tensor(numpy.eye(6, dtype="float32"))

    def loss(x):
        h = x[:, 0]
        for t in range(1, x.shape[1]):
            h = dl.tanh(x[:, t] @ weight + h @ weight)
        return h

    for steps in (10, 20):
        dl.compile(loss, kernels="c", threads=1)(numpy.ones((8, steps, 6), "float32"))
    few, many = (len(source.functions) for source in sources)
    assert 2 <= many == few


@needs_c
def test_a_step_that_finds_a_position_outside_ends_its_segment_with_an_error():
    arrays = numpy.arange(8, dtype="float32").reshape(2, 4)
    source = CSource()
    source.segment(
        [f"if (((float *) {source.address(arrays)})[1] == 1) return 1;", doubling(source, *arrays)]
    )
    (call,) = source.build()
    with pytest.raises(IndexError, match="outside of the axis"):
        call()
    numpy.testing.assert_array_equal(arrays[1], [4, 5, 6, 7])
    arrays[0][1] = 2
    call()
    numpy.testing.assert_array_equal(arrays[1], [0, 4, 4, 7])
