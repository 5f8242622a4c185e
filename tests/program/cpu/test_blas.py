"""Direct calls of BLAS: every layout, and the number of threads."""

import numpy
import pytest

from minidl.program.cpu.blas import best_blas, length_at_a_time, matmul_call
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.statements import gemm_statement
from tests.program.networks import needs_c, trained_step


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


def test_products_are_cut_if_their_pieces_are_small_and_not_too_narrow():
    assert length_at_a_time(800, 20, 200, is_transposed=False) == 200  # 250 * 20 * 200 is the limit
    assert length_at_a_time(200, 20, 800, is_transposed=True) == 50
    assert length_at_a_time(100, 20, 200, is_transposed=False) == 100  # small as it is
    assert length_at_a_time(800, 400, 200, is_transposed=False) == 800  # pieces would be 12 wide
    assert length_at_a_time(103, 20, 800, is_transposed=True) == 35


@needs_c
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("columns", [797, 800])
def test_pieces_of_a_product_are_all_of_it(columns, add, dtype, rng, monkeypatch):
    blas = best_blas()
    if blas is None:
        pytest.skip("there is neither OpenBLAS nor MKL here")
    monkeypatch.setattr(blas, "has_small_products", True)
    a, b = (rng.normal(size=shape).astype(dtype) for shape in [(20, 200), (200, columns)])
    for transposed in (False, True):
        for make_out in (numpy.ascontiguousarray, numpy.asfortranarray):
            out = make_out(numpy.ones((20, columns), dtype))
            right = numpy.asfortranarray(b) if transposed else b
            source = CSource()
            statement = gemm_statement(source, a, right, out, add)
            assert statement.startswith("for (int64_t j = 0;")
            source.segment([statement])
            (call,) = source.build()
            call()
            numpy.testing.assert_allclose(out, a @ b + (1 if add else 0), rtol=1e-4, atol=1e-4)
