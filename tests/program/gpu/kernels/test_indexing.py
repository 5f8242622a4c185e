"""Generated kernels of indexing agree with NumPy, in every order of blocks, and never leave an array."""

import itertools

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.primitives.indexing import SLOT
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.elementwise import fill_kernel
from minidl.program.gpu.kernels.indexing import (
    gather_kernel,
    merge_places_kernel,
    place_kernel,
    replace_kernel,
    scatter_kernel,
    sort_places_kernel,
    sum_runs_kernel,
)
from minidl.program.gpu.kernels.reductions import reduction_kernel
from minidl.program.lowered.selection import Selection
from minidl.program.lowered.sorted_scatter import RUN
from tests.program.gpu.kernels.running import compile_for_gpus, computed, examples, on, zeros_of
from tests.program.lowered.keys import filled, selections

pytestmark = pytest.mark.gpu_source

SHARED = examples(6)
DTYPES = ("float16", "float32", "float64", "int64", "bool")


@pytest.fixture(params=["forwards", "backwards"])
def order(request, monkeypatch):
    if request.param == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")


def numbers(draw, shape, dtype):
    """Whole numbers, so that sums are exact in every order, in memory that is strided at times."""
    rng = numpy.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    wide = rng.integers(-9, 9, (*shape[:-1], 2 * shape[-1]) if shape else ())
    x = wide.astype(dtype)
    return x[..., ::-2] if shape and draw(st.booleans()) else x[..., : shape[-1]].copy() if shape else x


def empty(gpu, shape, dtype):
    return gpu.asarray(numpy.full(shape, 77).astype(dtype))


@given(data=st.data())
@SHARED
def test_gathers_agree_with_numpy(gpu, order, data):
    made = []
    for dtype in DTYPES * 2:
        shape, key, positions = data.draw(selections(outside=True))
        x = numbers(data.draw, shape, dtype)
        selection = Selection(key, shape, [p.shape for p in positions])
        # Outside of its axis, a position comes round.
        inside = [p % numpy.int64(n) for p, n in zip(positions, selection.lengths, strict=True)]
        expected = x[filled(key, inside)]
        out = empty(gpu, expected.shape, dtype)
        kernel = gather_kernel(on(gpu, x), [on(gpu, p) for p in positions], key, out)
        made.append((kernel, out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made if kernel.blocks]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


@given(data=st.data())
@SHARED
def test_basic_keys_are_filled_in_place(gpu, order, data):
    made = []
    for dtype in DTYPES * 2:
        shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
        key = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
        key = key if isinstance(key, tuple) else (key,)
        expected = numpy.full(shape, 3).astype(dtype)
        g = numbers(data.draw, expected[key].shape, dtype)
        expected[key] = g
        out = empty(gpu, shape, dtype)
        made.append((place_kernel(on(gpu, g), key, 3, out), out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


@given(data=st.data())
@SHARED
def test_assignments_agree_with_numpy(gpu, order, data):
    """Of equal positions the last one counts; values are broadcast."""
    made = []
    for dtype in DTYPES * 2:
        shape, key, positions = data.draw(selections(outside=True))
        selection = Selection(key, shape, [p.shape for p in positions])
        inside = [p % numpy.int64(n) for p, n in zip(positions, selection.lengths, strict=True)]
        expected = numbers(data.draw, shape, dtype)
        x = expected.copy()
        of = tuple(n if data.draw(st.booleans()) else 1 for n in selection.shape)
        value = numbers(data.draw, of[data.draw(st.integers(0, len(of))) :] if 0 not in of else of, dtype)
        for place in numpy.ndindex(selection.spread):  # NumPy does not promise which of equal ones counts
            one = [numpy.broadcast_to(p, selection.spread)[place] for p in inside]
            at = (slice(None),) * selection.at + place
            expected[filled(key, one)] = numpy.broadcast_to(value, selection.shape)[at]
        out = empty(gpu, shape, dtype)
        arrays = on(gpu, x), on(gpu, value), [on(gpu, p) for p in positions]
        made.append((replace_kernel(*arrays, key, out), out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made if kernel.blocks]])
    for kernel, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernel.code)


def scatter(gpu, g, positions, key, shape, stretch=256, dtype="int64"):
    """Return the kernels of a scatter_add in the order of their launches, and the array of its result."""
    selection = Selection(key, shape, [p.shape for p in positions])
    places, merged = (gpu.zeros(selection.count, dtype) for _ in range(2))
    columns = int(numpy.prod(selection.basic_lengths))
    sums = empty(gpu, (selection.count // RUN, columns), "float32" if g.dtype == numpy.float16 else g.dtype)
    out, g = empty(gpu, shape, g.dtype), on(gpu, g)
    positions, shapes = [on(gpu, p) for p in positions], [p.shape for p in positions]
    kernels = [
        sort_places_kernel(positions, selection.lengths, stretch, places),
        merge_places_kernel(places, stretch, merged),
        sum_runs_kernel(g, merged, shapes, key, shape, sums),
        scatter_kernel(g, merged, sums if sums.size else None, shapes, key, out),
    ]
    return kernels, out


def scattered(g, positions, key, shape):
    """Return what NumPy computes."""
    out = numpy.zeros(shape, g.dtype)
    lengths = Selection(key, shape, [p.shape for p in positions]).lengths
    positions = [p % numpy.int64(n) for p, n in zip(positions, lengths, strict=True)]
    numpy.add.at(out, filled(key, positions), g)
    return out


def check_scatters(gpu, made):
    """Compute [(kernels, out, expected)] in one launch for each stage."""
    stages = zip(*(kernels for kernels, _, _ in made), strict=True)
    launches = ([kernel for kernel in stage if kernel.blocks] for stage in stages)
    computed(gpu, [launch for launch in launches if launch])
    for kernels, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected, err_msg=kernels[-1].code)


@given(data=st.data())
@SHARED
def test_scatters_agree_with_numpy(gpu, order, data):
    made = []
    for dtype in DTYPES * 2:
        drawn = selections(empty=False, outside=True).filter(lambda drawn: drawn[2])
        shape, key, positions = data.draw(drawn)
        g = numbers(data.draw, Selection(key, shape, [p.shape for p in positions]).shape, dtype)
        kind = data.draw(st.sampled_from(["int32", "int64"]))
        kernels, out = scatter(gpu, g, positions, key, shape, dtype=kind)
        made.append((kernels, out, scattered(g, positions, key, shape)))
    check_scatters(gpu, made)


def test_large_scatters_agree_with_numpy(gpu, order, rng):
    """Several stretches, runs that fill up and runs that end in between, and all in one place."""
    rows, columns = rng.integers(-3, 3, (40, 1)), rng.integers(0, 5, (1, 35)).astype("int8")
    cases = [
        ((SLOT,), (100, 3), [rng.integers(-100, 100, 1500)]),
        ((SLOT,), (4, 2), [rng.integers(0, 4, 1500).astype("int32")]),
        ((SLOT,), (4, 2), [numpy.full(1500, 3)]),
        ((SLOT, SLOT), (300, 7), [numpy.arange(300), rng.integers(0, 7, 300)]),
        ((SLOT, SLOT), (3, 5), [rows, columns]),
        ((slice(None, None, -2), SLOT, None), (5, 9), [numpy.repeat([4, 0], [RUN, 3 * RUN])]),
        ((SLOT, slice(None), SLOT), (3, 2, 5), [rows, columns]),
        ((1, ..., SLOT), (2, 3, 4), [rng.integers(0, 4, 257)]),
    ]
    made = []
    for dtype in ("float32", "int64"):
        for key, shape, positions in cases:
            spread = Selection(key, shape, [p.shape for p in positions]).shape
            g = rng.integers(-9, 9, spread).astype(dtype)
            kernels, out = scatter(gpu, g, positions, key, shape)
            made.append((kernels, out, scattered(g, positions, key, shape)))
    check_scatters(gpu, made)


def test_sums_have_the_same_bits_in_every_run(gpu, rng, monkeypatch):
    positions, g = rng.integers(0, 9, 2000), rng.normal(size=(2000, 3)).astype("float32")
    results = []
    for _ in range(3):
        kernels, out = scatter(gpu, g, [positions], (SLOT,), (9, 3))
        computed(gpu, [[kernel] for kernel in kernels])
        results.append(gpu.asnumpy(out).tobytes())
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    assert len(set(results)) == 1
    exact = scattered(g.astype("float64"), [positions], (SLOT,), (9, 3))
    numpy.testing.assert_allclose(gpu.asnumpy(out), exact, atol=1e-4)


def test_half_precision_is_added_up_in_single_precision(gpu):
    g = numpy.full(5000, 0.25, "float16")
    kernels, out = scatter(gpu, g, [numpy.zeros(5000, "int64")], (SLOT,), (2,))
    computed(gpu, [[kernel] for kernel in kernels])
    assert gpu.asnumpy(out).tolist() == [1250, 0]  # in float16, 512 + 0.25 is 512


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(data=st.data())
@SHARED
def test_argmax_and_argmin_agree_with_numpy(gpu, order, name, data):
    made = []
    for dtype in ("float16", "float32", "float64", "int32", "uint8", "bool"):
        shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=50))
        x = numbers(data.draw, shape, dtype)
        axis = data.draw(st.integers(0, x.ndim - 1))
        if dtype.startswith("float") and data.draw(st.booleans()):
            x.reshape(-1)[data.draw(st.integers(0, x.size - 1)) :: 7] = numpy.nan
        expected = getattr(numpy, name)(x, axis)
        out = empty(gpu, expected.shape, "int64")
        kernel = reduction_kernel(name, on(gpu, x), (axis,), out, zeros_of(gpu))
        made.append((kernel, out, expected))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for _, out, expected in made:
        numpy.testing.assert_array_equal(gpu.asnumpy(out), expected)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_argmax_and_argmin_of_long_rows_are_the_first(gpu, order, rng, name):
    few = rng.integers(0, 4, (2, 20_000)).astype("float32")
    with_nan = few.copy()
    with_nan[:, [19_000, 5003, 5004]] = numpy.nan
    made = []
    for x, axis in ((few, 1), (with_nan, 1), (few.T.copy(), 0)):
        out = empty(gpu, (2,), "int64")
        kernel = reduction_kernel(name, gpu.asarray(x), (axis,), out, zeros_of(gpu))
        assert len(kernel.arrays) == 4  # several blocks share a row
        made.append((kernel, out, getattr(numpy, name)(x, axis)))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for _, out, expected in made:
        assert gpu.asnumpy(out).tolist() == expected.tolist()


def test_many_reductions_share_the_memory_of_a_launch(gpu, rng):
    """As many as would need 90 KB, if each had memory of its own; CUDA has 48."""
    x = rng.integers(-9, 9, (45, 60)).astype("float64")
    made = []
    for i in range(45):
        part, out = gpu.asarray(x)[i:, i:], empty(gpu, 60 - i, "float64")
        made.append((reduction_kernel("sum", part, (0,), out, zeros_of(gpu)), out, x[i:, i:].sum(axis=0)))
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for _, out, expected in made:
        assert (gpu.asnumpy(out) == expected).all()


def test_a_result_that_is_not_numpys_is_unsupported(strict_gpu):
    x, p = (strict_gpu.asarray(numpy.zeros(shape, "int64")) for shape in ((3, 4, 5), (2,)))
    out = strict_gpu.asarray(numpy.zeros((4, 2), "int64"))
    with pytest.raises(Unsupported):
        gather_kernel(x, [p], (0, slice(None), SLOT), out)  # NumPy's is (2, 4)
    none = strict_gpu.asarray(numpy.zeros((0, 4)))
    with pytest.raises(Unsupported):
        gather_kernel(none, [p], (SLOT,), strict_gpu.asarray(numpy.zeros((2, 4))))


def test_the_cuda_compiler_takes_the_kernels_of_indexing(strict_gpu, rng):
    stages, kernels = [[], [], [], []], []
    cases = [((SLOT, slice(None)), (6, 5)), ((slice(3, 0, -1), None, SLOT), (4, 6)), ((SLOT, 2), (6, 3))]
    for (key, shape), dtype in itertools.product(cases, DTYPES):
        for kind in ("int8", "int64", "uint32"):
            positions = [rng.integers(0, 6, 300).astype(kind)]
            g = numpy.zeros(Selection(key, shape, [(300,)]).shape, dtype)
            made, _ = scatter(
                strict_gpu, g, positions, key, shape, dtype="int32" if kind == "int8" else "int64"
            )
            for stage, kernel in zip(stages, made, strict=True):
                stage.append(kernel)
            x, out = (strict_gpu.zeros(of, dtype) for of in (shape, g.shape))
            kernels.append(gather_kernel(x, [strict_gpu.asarray(p) for p in positions], key, out))
    for dtype, fill in itertools.product((*DTYPES, "uint8"), (0, 0.5)):
        source, out = strict_gpu.zeros((2, 3), dtype), strict_gpu.zeros((4, 9), dtype)
        kernels.append(place_kernel(source, (slice(1, 3), slice(8, 1, -3)), fill, out))
        kernels.append(fill_kernel(out, fill))
    for dtype, shape in itertools.product(("float16", "float64", "uint8", "bool"), ((3, 4), (2, 9000))):
        x, out = strict_gpu.zeros(shape, dtype), strict_gpu.zeros(shape[:1], "int64")
        kernels.append(reduction_kernel("argmax", x, (1,), out, zeros_of(strict_gpu)))
        kernels.append(reduction_kernel("argmin", x, (1,), out, zeros_of(strict_gpu)))
        value, other = strict_gpu.zeros((1,), dtype), strict_gpu.zeros(shape, dtype)
        places = strict_gpu.zeros(5, "int32")
        kernels.append(replace_kernel(x, value, [places], (slice(None), SLOT), other))
        kernels.append(replace_kernel(x, value, [], (0, slice(None, None, 2)), other))
    for i in range(45):
        x, out = strict_gpu.zeros((45, 70 + i)), strict_gpu.zeros(70 + i)
        kernels.append(reduction_kernel("sum", x, (0,), out, zeros_of(strict_gpu)))
    compile_for_gpus(cuda_source.source([*stages, kernels[:60], kernels[60:]]))
