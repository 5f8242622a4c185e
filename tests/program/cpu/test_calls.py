"""Steps as calls of NumPy and BLAS: what they compute, where calls differ from the primitive's forward."""

import numpy
import pytest

import minidl as dl

RNG = numpy.random.default_rng(0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("shape", [(64, 28, 28, 8), (40, 3), (5, 2000), (7, 1), (3, 4, 5), (9,), (0, 4)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_of_rows(shape, dtype, keepdims, threads):
    x = (RNG.normal(size=shape) * 10 + 1).astype(dtype)
    axis = tuple(range(max(len(shape) - 1, 1)))
    f = dl.compile(lambda x: (x * 1).sum(axis=axis, keepdims=keepdims), kernels="numpy", threads=threads)
    expected = numpy.sum(x, axis=axis, keepdims=keepdims, dtype="float64" if x.dtype.kind == "f" else None)
    result = f(x).numpy()
    assert result.dtype == (numpy.int64 if dtype == "int32" else dtype)
    numpy.testing.assert_allclose(result, expected, rtol=2e-5 if dtype == "float32" else 1e-12, atol=1e-2)


def test_sums_of_rows_of_special_values():
    x = RNG.normal(size=(50, 4)).astype("float32")
    x[3, 0], x[4, 1], x[5, 2], x[6, 2] = numpy.nan, numpy.inf, numpy.inf, -numpy.inf
    with numpy.errstate(all="ignore"):
        expected = x.sum(axis=0)
        result = dl.compile(lambda x: (x * 1).sum(axis=0), kernels="numpy")(x)
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("view", [lambda x: x[:, ::2], lambda x: x[::-1], lambda x: x.T])
def test_sums_of_rows_that_do_not_lie_side_by_side(view):
    x = RNG.normal(size=(60, 60)).astype("float32")
    f = dl.compile(lambda x: view(x * 1).sum(axis=0), kernels="numpy")
    numpy.testing.assert_allclose(f(x).numpy(), view(x).sum(axis=0), rtol=1e-4, atol=1e-5)
