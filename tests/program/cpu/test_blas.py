"""Direct calls of BLAS: every layout, and the number of threads."""

import numpy
import pytest

from minidl.program.cpu.blas import best_blas, matmul_call
from tests.program.networks import trained_step


def test_blas_threads_are_left_as_they_were():
    blas = best_blas()
    if blas is None:
        pytest.skip("there is neither OpenBLAS nor MKL here")
    before = blas.get_threads()
    trained_step()
    assert blas.get_threads() == before


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("add", [False, True])
def test_matmul_call_takes_every_layout(dtype, add, rng):
    for make_a in (
        lambda x: x,
        lambda x: numpy.asfortranarray(x),
        lambda x: numpy.repeat(x, 2, axis=1)[:, ::2],
    ):
        for make_out in (numpy.ascontiguousarray, numpy.asfortranarray):
            a = make_a(rng.integers(-3, 4, (5, 4)).astype(dtype))
            b = make_a(rng.integers(-3, 4, (4, 3)).astype(dtype))
            out = make_out(numpy.ones((5, 3), dtype))
            matmul_call(a, b, out, add)()
            numpy.testing.assert_array_equal(out, a @ b + (1 if add else 0))
