"""Generated kernels of windows agree with NumPy, in every order of blocks, and compile for real GPUs."""

import itertools

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from minidl.primitives.windows import overlap_add_, scatter_to_maxima_, select_maxima_, windows_
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.windows import (
    fold_kernel,
    gather_from_maxima_kernel,
    number_of_maxima_kernel,
    pack_kernel,
    scatter_to_maxima_kernel,
    select_maxima_kernel,
)
from tests.primitives.test_convolution import convolutions
from tests.program.gpu.kernels.running import compile_for_gpus, computed, examples, on

pytestmark = pytest.mark.gpu_source

SHARED = examples(6)
DTYPES = ("float16", "float32", "float64", "int64", "uint8", "bool")


@pytest.fixture(params=["forwards", "backwards"])
def order(request, monkeypatch):
    if request.param == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")


def numbers(draw, shape, dtype, ties=False):
    """Whole numbers, so that sums are exact in every order, in memory that is strided at times."""
    rng = numpy.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = (
        rng.integers(-3, 3, (*shape[:-1], 2 * shape[-1]))
        if ties
        else rng.permutation(2 * int(numpy.prod(shape))).reshape(*shape[:-1], -1)
    )
    x = wide.astype(dtype)
    return x[..., ::-2] if draw(st.booleans()) else x[..., : shape[-1]].copy()


def empty(gpu, shape, dtype):
    return gpu.asarray(numpy.full(shape, 77).astype(dtype))


def widened(x, padding):
    return numpy.pad(x, ((0, 0), *padding, (0, 0)))


def settings_of(where):
    before = tuple(pair[0] for pair in where["padding"])
    return where["stride"], before, where["dilation"]


@given(data=st.data())
@SHARED
def test_packed_windows_are_those_of_numpy(gpu, order, data):
    """By groups, of any channels: where the elements of several channels are moved at once, too."""
    made = []
    for dtype in DTYPES * 2:
        x, w, where = data.draw(convolutions())
        inside, groups = data.draw(st.sampled_from([w.shape[-2], 4, 6, 8, 16])), where["groups"]
        x = numbers(data.draw, (*x.shape[:-1], groups * inside), dtype)
        axes, window = len(where["stride"]), w.shape[:-2]
        expected = windows_.forward(
            numpy, widened(x, where["padding"]), window, where["stride"], where["dilation"]
        )
        expected = numpy.moveaxis(expected.reshape(*expected.shape[:-1], groups, inside), -2, 0)
        first = data.draw(st.integers(0, expected.shape[2] - 1) | st.none())
        expected = expected[:, :, first:]
        out = empty(gpu, expected.shape, dtype)
        made.append((pack_kernel(on(gpu, x), out, *settings_of(where), first), out, expected))
        assert out.ndim == 2 * axes + 3
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


def test_sixteen_bytes_are_moved_at_once(gpu):
    x = gpu.asarray(numpy.arange(2 * 5 * 5 * 8, dtype="float32").reshape(2, 5, 5, 8))
    cases = [
        (x, 1, "int4"),
        (x, 2, "int4"),
        (x, 8, "unsigned int"),  # groups of one channel
        (x[..., 1:], 1, "unsigned int"),
        (x[..., 2:], 1, "unsigned long long"),
        (x[..., ::2], 1, "unsigned int"),
    ]
    for images, groups, kind in cases:
        columns = empty(gpu, (groups, 2, 4, 4, 2, 2, images.shape[-1] // groups), "float32")
        kernel = pack_kernel(images, columns, (1, 1), (0, 0), (1, 1))
        assert f"(({kind} *) a0)" in kernel.code
        computed(gpu, [[kernel]])
        expected = windows_.forward(numpy, gpu.asnumpy(images), (2, 2), (1, 1), (1, 1))
        expected = numpy.moveaxis(expected.reshape(2, 4, 4, 2, 2, groups, -1), -2, 0)
        numpy.testing.assert_array_equal(gpu.asnumpy(columns), expected)


@given(data=st.data())
@SHARED
def test_windows_are_added_up_as_in_numpy(gpu, order, data):
    made = []
    for dtype in ("float16", "float32", "float64", "int64") * 3:
        x, w, where = data.draw(convolutions())
        groups, inside = where["groups"], w.shape[-2]
        lengths = widened(x, where["padding"]).shape[1:-1]
        parts = windows_.forward(
            numpy, widened(x, where["padding"]), w.shape[:-2], where["stride"], where["dilation"]
        )
        parts = numbers(data.draw, parts.shape, dtype) % numpy.array(9, dtype)
        whole = overlap_add_.forward(numpy, parts, lengths, where["stride"], where["dilation"])
        inner = (
            slice(None),
            *(slice(a, a + n) for (a, _), n in zip(where["padding"], x.shape[1:-1], strict=True)),
        )
        expected = whole[inner]
        first = None
        if data.draw(st.booleans()):  # the rows from one on
            first = (data.draw(st.integers(0, x.shape[1] - 1)), 0)
            expected = expected[:, first[0] :]
        out = empty(gpu, expected.shape, dtype)
        grouped = on(gpu, parts).reshape(*parts.shape[:-1], groups, inside)
        made.append((fold_kernel(grouped, out, *settings_of(where), first), out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


def test_a_block_of_windows_begins_at_any_row(gpu):
    """Rows 2 and 3 of the windows reach rows 2 to 5 of the images, which are computed from them alone."""
    parts = numpy.arange(1 * 4 * 2 * 3 * 2 * 1.0).reshape(1, 4, 2, 3, 2, 1)
    whole = numpy.zeros((1, 4, 2, 3, 2, 1))
    whole[:, 2:] = parts[:, 2:]
    expected = overlap_add_.forward(numpy, whole, (6, 3), (1, 1), (1, 1))[:, 4:6]
    out = empty(gpu, (1, 2, 3, 1), "float64")
    rows = gpu.asarray(parts[:, 2:, ..., None, :].copy())
    computed(gpu, [[fold_kernel(rows, out, (1, 1), (0, 0), (1, 1), (4, 2))]])
    numpy.testing.assert_array_equal(gpu.asnumpy(out), expected)


def test_half_precision_is_added_up_in_single_precision(gpu):
    parts = numpy.full((1, 64, 64, 1), 0.5, "float16")  # the middle element is in 64 windows
    parts[0, 63, 0] = 2048  # in float16, 2048 + 0.5 is 2048
    out = empty(gpu, (1, 127, 1), "float16")
    computed(gpu, [[fold_kernel(gpu.asarray(parts[..., None, :]), out, (1,), (0,), (1,))]])
    assert gpu.asnumpy(out)[0, 63, 0] == 2080  # 2079.5, rounded once


# --- max pooling ----------------------------------------------------------------------------------


@st.composite
def pools(draw):
    """The shape of images, windows that fit and the distance between them; some elements are in none."""
    axes = draw(st.integers(1, 3))
    several = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))
    window, stride, count, more = several(1, 3), several(1, 4), several(1, 4), several(0, 3)
    lengths = [
        (n - 1) * s + k + min(extra, s - 1)
        for n, s, k, extra in zip(count, stride, window, more, strict=True)
    ]
    return (draw(st.integers(1, 3)), *lengths, draw(st.integers(1, 4))), window, stride


def pool_kernels(gpu, values, g, x, window, stride):
    """Return the kernels of max pooling and of its gradient, by stages, and what they write."""
    own = values is x
    y = select_maxima_.forward(numpy, values, x, window, stride)
    back = scatter_to_maxima_.forward(numpy, g, x, window, stride)
    outs = [empty(gpu, a.shape, a.dtype) for a in (y, back)]
    chosen = empty(gpu, g.shape, "int32")
    there, values, g = on(gpu, x), on(gpu, values), on(gpu, g)
    stages = [[select_maxima_kernel(None if own else values, there, window, stride, outs[0])], []]
    if all(k <= s for k, s in zip(window, stride, strict=True)):
        stages[0].append(scatter_to_maxima_kernel(g, there, window, stride, outs[1]))
    else:
        with pytest.raises(Unsupported):
            scatter_to_maxima_kernel(g, there, window, stride, outs[1])
    stages[0].append(number_of_maxima_kernel(there, window, stride, chosen))
    again = empty(gpu, back.shape, back.dtype)
    stages[1].append(gather_from_maxima_kernel(g, chosen, window, stride, again))
    pairs = [(outs[0], y), (again, back)] + ([(outs[1], back)] if len(stages[0]) == 3 else [])
    return stages, pairs


@given(data=st.data())
@SHARED
def test_max_pooling_agrees_with_numpy(gpu, order, data):
    made = []
    for dtype in ("float16", "float32", "float64", "int64", "uint8") * 2:
        shape, window, stride = data.draw(pools())
        x = numbers(data.draw, shape, dtype, ties=data.draw(st.booleans()))
        if x.dtype.kind == "f" and data.draw(st.booleans()):
            x = x.copy()
            x.reshape(-1)[data.draw(st.integers(0, x.size - 1)) :: 5] = numpy.nan
        values = x if data.draw(st.booleans()) else numbers(data.draw, shape, dtype)
        g = numbers(data.draw, select_maxima_.forward(numpy, x, x, window, stride).shape, dtype)
        made.append(pool_kernels(gpu, values, g % numpy.array(9, dtype), x, window, stride))
    launches = [[k for stages, _ in made for k in stages[i]] for i in (0, 1)]
    computed(gpu, launches)
    for _, pairs in made:
        for out, expected in pairs:
            numpy.testing.assert_array_equal(gpu.asnumpy(out), expected)


def test_the_first_of_equal_elements_gets_the_gradient(gpu):
    x, g = numpy.zeros((1, 4, 4, 1), "float32"), numpy.arange(1, 5, dtype="float32").reshape(1, 2, 2, 1)
    stages, pairs = pool_kernels(gpu, x, g, x, (2, 2), (2, 2))
    computed(gpu, stages)
    assert gpu.asnumpy(pairs[-1][0])[0, :, :, 0].tolist() == [[1, 0, 2, 0], [0] * 4, [3, 0, 4, 0], [0] * 4]


def test_maxima_of_complex_numbers_are_unsupported(strict_gpu):
    x = strict_gpu.asarray(numpy.ones((1, 2, 1), "complex64"))
    with pytest.raises(Unsupported):
        select_maxima_kernel(None, x, (2,), (1,), strict_gpu.asarray(numpy.ones((1, 1, 1), "complex64")))


# --- NVIDIA's compiler ----------------------------------------------------------------------------


def test_large_images_are_indexed_with_64_bits():
    x = numpy.broadcast_to(numpy.float32(1), (2**20, 64, 64, 1))
    out = numpy.broadcast_to(numpy.float32(1), (2**20, 32, 32, 1))
    assert "long long start" in select_maxima_kernel(None, x, (2, 2), (2, 2), out).code
    assert "int start" in select_maxima_kernel(None, x[:9], (2, 2), (2, 2), out[:9]).code
    few = numpy.broadcast_to(numpy.float32(1), (2**20, 1, 1, 1))  # it is the images that are large
    assert "int start" in select_maxima_kernel(None, few, (1, 1), (9, 9), few).code
    large = as_strided(few, (2, 2**15, 2**15, 1), (2**32, 2**17, 4, 4))  # never read
    assert "long long start" in select_maxima_kernel(None, large, (1, 1), (2**14,) * 2, few[:8]).code


def test_the_cuda_compiler_takes_the_kernels_of_windows(strict_gpu, rng):
    kernels = []
    for dtype, channels, groups in itertools.product(
        ("float16", "float32", "float64", "uint8"), (3, 16), (1, 2)
    ):
        x = strict_gpu.zeros((2, 9, 8, channels * groups), dtype)
        columns = strict_gpu.zeros((groups, 2, 5, 4, 3, 2, channels), dtype)
        for first in (None, 2):
            kernels.append(pack_kernel(x, columns, (2, 2), (1, 0), (1, 1), first))
        parts = columns.transpose((1, 2, 3, 4, 5, 0, 6))
        for first in (None, (3, 1)):
            kernels.append(fold_kernel(parts, x, (2, 2), (1, 0), (1, 1), first))
        for window, stride in (((2, 2), (2, 2)), ((3, 2), (1, 2)), ((2, 3), (3, 4))):
            out = select_maxima_.forward(numpy, x.host, x.host, window, stride)
            g = strict_gpu.asarray(out)
            stages, _ = pool_kernels(strict_gpu, x.host, g.host, x.host, window, stride)
            kernels += [kernel for stage in stages for kernel in stage]
            other = strict_gpu.zeros(x.shape, dtype)
            kernels.append(select_maxima_kernel(other, x, window, stride, g))
    compile_for_gpus(cuda_source.source([kernels[i : i + 40] for i in range(0, len(kernels), 40)]))
