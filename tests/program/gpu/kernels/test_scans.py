"""Generated running sums and orders agree with NumPy, and compile for real GPUs."""

import itertools

import numpy
import pytest

from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.scans import MAX_SORTED, argsort_kernel, cumsum_kernel
from tests.program.gpu.kernels.running import compile_for_gpus, computed, on

pytestmark = pytest.mark.gpu_source

SHAPES = [(1,), (7,), (3, 5), (70, 33), (2, 3, 4), (5000,), (40, 6, 70), (3, 2000)]
DTYPES = ("float16", "float32", "float64", "int64", "uint8", "bool")


@pytest.fixture(params=["forwards", "backwards"])
def order(request, monkeypatch):
    if request.param == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")


def cases(rng):
    """Yield arrays with equal elements, some of them strided, and each of their axes."""
    dtypes = itertools.cycle(DTYPES)
    for number, (shape, dtype) in enumerate(zip([*SHAPES, *SHAPES], dtypes, strict=False)):
        x = rng.integers(0, 5, (*shape[:-1], 2 * shape[-1])).astype(dtype)
        x = x[..., ::-2] if number % 3 == 0 else x[..., : shape[-1]].copy()
        if x.dtype.kind == "f" and number % 2:
            x[..., 1::3] = numpy.nan
        for axis in range(x.ndim):
            yield x, axis


def test_running_sums_agree_with_numpy(gpu, order, rng):
    made = []
    for x, axis in cases(rng):
        x = numpy.nan_to_num(x) if x.dtype.kind == "f" else x
        expected = numpy.cumsum(x.astype("float32") if x.dtype == numpy.float16 else x, axis).astype(
            "float16" if x.dtype == numpy.float16 else numpy.cumsum(x, axis).dtype
        )
        out = gpu.asarray(numpy.full(x.shape, 77).astype(expected.dtype))
        made.append((cumsum_kernel(on(gpu, x), axis, out), out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


def test_orders_agree_with_numpy(gpu, order, rng):
    """Equal elements stay in their order, and NaN comes last."""
    made = []
    for x, axis in cases(rng):
        if x.shape[axis] <= MAX_SORTED:
            out = gpu.asarray(numpy.full(x.shape, 77))
            made.append((argsort_kernel(on(gpu, x), axis, out), out, numpy.argsort(x, axis, kind="stable")))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


def test_long_axes_and_complex_numbers_are_not_sorted_so(strict_gpu):
    for x in (strict_gpu.zeros(MAX_SORTED + 1), strict_gpu.zeros(3, "complex64")):
        with pytest.raises(Unsupported):
            argsort_kernel(x, 0, strict_gpu.zeros(x.shape, "int64"))


def test_the_cuda_compiler_takes_running_sums_and_orders(strict_gpu):
    kernels = []
    for dtype, shape, axis in zip(DTYPES, ((40,), (3, 70), (2, 9, 5)) * 2, (0, -1, 1) * 2, strict=True):
        x = strict_gpu.zeros(shape, dtype)
        place = axis % x.ndim
        kernels.append(argsort_kernel(x, place, strict_gpu.zeros(shape, "int64")))
        total = numpy.cumsum(x.host, axis).dtype
        kernels.append(cumsum_kernel(x, place, strict_gpu.zeros(shape, total)))
    compile_for_gpus(cuda_source.source([kernels]))
