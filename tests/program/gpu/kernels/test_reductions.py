"""Generated reductions agree with NumPy and have the same bits in every run."""

import itertools

import numpy
import pytest

from minidl.program.gpu.kernels.reductions import reduction_kernel
from tests.program.gpu.kernels.running import computed, on, zeros_of

pytestmark = pytest.mark.gpu_source

LAYOUTS = {
    "by rows": lambda x: x,
    "by columns": lambda x: numpy.asfortranarray(x) if x.ndim == 2 else x,
    "every other": lambda x: numpy.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
}


SHAPES = [
    (1,),
    (7,),
    (3, 5),
    (70, 33),
    (5, 1),
    (300, 3),
    (2, 3, 4),
    (40, 6, 70),
    (50_000,),
    (3000, 40),
    (2, 9000),
]


def on_as_it_is(gpu, x):
    """Return an array on the GPU, stored by columns if it is so here."""
    return gpu.asarray(numpy.ascontiguousarray(x.T)).transpose() if x.flags.f_contiguous else on(gpu, x)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["sum", "max", "min"])
def test_reductions_agree_with_numpy(gpu, name, layout, rng):
    made = []
    for shape, dtype in itertools.product(SHAPES, ("float32", "float64", "int64")):
        x = LAYOUTS[layout](rng.uniform(-9, 9, shape).astype(dtype))
        axes = [c for n in range(1, x.ndim + 1) for c in itertools.combinations(range(x.ndim), n)]
        for axis in axes[:: 1 if dtype == "float32" else 3]:
            expected = getattr(numpy, name)(x.astype("float64"), axis=axis)
            out = gpu.asarray(numpy.full(expected.shape, 77, dtype))
            kernel = reduction_kernel(name, on_as_it_is(gpu, x), axis, out, zeros_of(gpu))
            made.append((shape, axis, kernel, out, expected))
    computed(gpu, [[kernel] for _, _, kernel, _, _ in made])
    assert any(len(kernel.arrays) == 4 for _, _, kernel, _, _ in made)
    for shape, axis, kernel, out, expected in made:
        scale = numpy.sqrt(kernel.arrays[0].size) * 9
        tolerance = 1e-6 * scale if out.dtype == numpy.float32 else 1e-13 * scale
        numpy.testing.assert_allclose(
            gpu.asnumpy(out), expected, rtol=1e-6, atol=tolerance, err_msg=f"{shape} over {axis}"
        )


def test_sums_of_bools_and_float16_are_wide_enough(gpu):
    ones = numpy.ones((3000, 3), bool)
    count, wide = gpu.asarray(numpy.zeros(3, "int64")), gpu.asarray(numpy.zeros((), "float16"))
    halves = gpu.asarray(numpy.full(60_000, 0.5, "float16"))
    kernels = [
        reduction_kernel("sum", gpu.asarray(ones), (0,), count, zeros_of(gpu)),
        reduction_kernel("sum", halves, (0,), wide, zeros_of(gpu)),
    ]
    computed(gpu, [kernels])  # in one launch
    assert gpu.asnumpy(count).tolist() == [3000] * 3
    assert gpu.asnumpy(wide) == numpy.float16(30_000)


def test_a_maximum_that_is_nan_is_found(gpu):
    x = numpy.zeros((300, 40), "float32")
    x[123, 4] = numpy.nan
    out = gpu.asarray(numpy.zeros(40, "float32"))
    computed(gpu, [[reduction_kernel("max", gpu.asarray(x), (0,), out, zeros_of(gpu))]])
    assert numpy.isnan(gpu.asnumpy(out)).nonzero()[0].tolist() == [4]


def test_sums_have_the_same_bits_whatever_block_comes_first(strict_gpu, rng, monkeypatch):
    x = strict_gpu.asarray(rng.normal(size=(5000, 70)).astype("float32"))
    out = strict_gpu.asarray(numpy.zeros(70, "float32"))
    kernel = reduction_kernel("sum", x, (0,), out, zeros_of(strict_gpu))
    assert kernel.blocks > 50
    computed(strict_gpu, [[kernel]])
    first = out.host.copy()
    out.host[:] = 0
    monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    computed(strict_gpu, [[kernel]])  # a second time: the counters are ready again
    numpy.testing.assert_array_equal(out.host, first)
