"""Matrix products by direct calls of cuBLAS: every layout, accumulation, and inside CUDA graphs.

The tests marked `gpu` are the experiment that decides whether cuBLAS, called around CuPy, can be captured:
`pytest -m gpu tests/program/test_cublas_gpu.py`.
"""

import numpy
import pytest

from minidl.program.gpu import cublas, executor
from minidl.program.gpu.cublas import Cublas, CublasError
from minidl.program.gpu.gemm_operands import stack_fits


@pytest.fixture
def products(gpu):
    if executor.library() is None:
        pytest.skip("there is no cuBLAS on this machine")
    return Cublas(gpu)


def layouts(gpu, matrix):
    """Yield a matrix stored by rows, by columns, and as part of a larger one."""
    yield gpu.asarray(numpy.ascontiguousarray(matrix))
    yield gpu.asarray(numpy.ascontiguousarray(matrix.T)).transpose()
    wide = numpy.full((matrix.shape[0] + 2, matrix.shape[1] + 3), 99, matrix.dtype)
    wide[1:-1, 2:-1] = matrix
    yield gpu.asarray(wide)[1:-1, 2:-1]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("shape", [(5, 4, 3), (128, 784, 392), (1, 7, 1), (1, 1, 5), (6, 1, 1)])
def test_every_layout(gpu, products, rng, shape, dtype, tolerance):
    n, k, m = shape
    a, b = rng.normal(size=(n, k)).astype(dtype), rng.normal(size=(k, m)).astype(dtype)
    expected = a.astype("float64") @ b
    scale = abs(expected).max() + 1
    for x in layouts(gpu, a):
        for y in layouts(gpu, b):
            out = gpu.asarray(numpy.full((n, m), numpy.nan, dtype))
            products.gemm(x, y, out, add=False)  # what was there, even NaN, does not matter
            numpy.testing.assert_allclose(gpu.asnumpy(out), expected, rtol=0, atol=tolerance * scale)
            products.gemm(x, y, out, add=True)
            numpy.testing.assert_allclose(gpu.asnumpy(out), 2 * expected, rtol=0, atol=2 * tolerance * scale)


def test_which_products_there_are(gpu, products):
    for dtype, there in (("float16", True), ("float64", True), ("int64", False), ("uint16", False)):
        assert products.computes(gpu.asarray(numpy.ones((2, 2), dtype))) == there


def test_products_are_captured_and_replayed(gpu, products, rng):
    a, b = (gpu.asarray(rng.normal(size=(64, 64)).astype("float32")) for _ in range(2))
    out = gpu.asarray(numpy.zeros((64, 64), "float32"))
    products.gemm(a, b, out, add=False)  # loads the kernels
    once = gpu.asnumpy(out)
    stream = gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.get_current_stream().synchronize()
    out.fill(7)
    gpu.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        products.gemm(a, b, out, add=False)
        products.gemm(a, b, out, add=True)
        graph = stream.end_capture()
    assert (gpu.asnumpy(out) == 7).all()  # capturing computes nothing
    for _ in range(3):
        graph.launch()
        numpy.testing.assert_allclose(gpu.asnumpy(out), 2 * once, rtol=1e-5, atol=1e-5)
    a.fill(0)
    graph.launch()
    assert (gpu.asnumpy(out) == 0).all()  # the same memory is read anew
    products.gemm(a, b, out, add=False)  # and calls outside the graph go on


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-2), ("float32", 1e-5), ("float64", 1e-13)])
def test_stacks_are_captured_and_replayed(gpu, products, rng, dtype, tolerance):
    a, b = rng.normal(size=(2, 3, 5, 4)).astype(dtype), rng.normal(size=(2, 3, 4, 6)).astype(dtype)
    by_columns = gpu.asarray(b.swapaxes(-1, -2).copy()).transpose((0, 1, 3, 2))
    cases = [
        (gpu.asarray(a), gpu.asarray(b), a @ b),
        (gpu.asarray(a), by_columns, a @ b),
        (gpu.asarray(a)[:, :, 1:, :3], gpu.asarray(b)[:, :, :3], a[:, :, 1:, :3] @ b[:, :, :3]),
        (gpu.asarray(a[0, 0]), gpu.asarray(b), a[0, 0] @ b),  # one for all
        (gpu.asarray(a)[:, 1:2], gpu.asarray(b[0, 0]), a[:, 1:2] @ b[0, 0]),
    ]
    calls = []
    for x, y, expected in cases:
        assert all(stack_fits(stack, expected.shape[:-2]) for stack in (x, y))
        out = gpu.asarray(numpy.full(expected.shape, numpy.nan, dtype))
        calls.append((products.stacked(x, y, out), out, expected))
        calls[-1][0]()  # loads the kernels
        numpy.testing.assert_allclose(gpu.asnumpy(out), expected, rtol=tolerance, atol=tolerance)
        out.fill(7)
    stream = gpu.cuda.Stream(non_blocking=True)
    gpu.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        for call, _, _ in calls:
            call()
        graph = stream.end_capture()
    assert all((gpu.asnumpy(out) == 7).all() for _, out, _ in calls)
    graph.launch()
    for _, out, expected in calls:
        numpy.testing.assert_allclose(gpu.asnumpy(out), expected, rtol=tolerance, atol=tolerance)


def test_a_failure_names_the_call(gpu, products, monkeypatch):
    class Broken:
        def cublasSetStream_v2(self, *arguments):
            return 1

    monkeypatch.setattr(cublas, "library", Broken)
    x = gpu.asarray(numpy.ones((2, 2), "float32"))
    products.stream = None
    with pytest.raises(CublasError, match="cublasSetStream_v2 failed with status 1"):
        products.gemm(x, x, x, add=False)
