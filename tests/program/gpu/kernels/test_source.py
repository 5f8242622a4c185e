"""Generated CUDA agrees with NumPy: run on the CPU through tests/cuda_on_cpu.h, or on a GPU.

Many kernels are compiled together, because compiling is what takes time here.
"""

import itertools

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidl.primitives.primitive import Primitive
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.elementwise import (
    advance_kernel,
    copy_kernel,
    draw_kernel,
    group_kernel,
)
from minidl.program.gpu.kernels.reductions import reduction_kernel
from minidl.program.gpu.kernels.source import THREADS, launch_name
from minidl.program.program import Instruction, Value
from minidl.random import philox
from tests.primitives.test_gradients import BUILT_IN, FLOAT32_ONLY, case

pytestmark = pytest.mark.gpu_source

ELEMENTWISE = {name: primitive for name, primitive in BUILT_IN.items() if primitive.kind == "elementwise"}
SHARED = settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])


def computed(gpu, launches):
    """Run launches: lists of kernels on arrays of the GPU."""
    module = gpu.RawModule(code=cuda_source.source(launches))
    for number, kernels in enumerate(launches):
        arrays = tuple(array for kernel in kernels for array in kernel.arrays)
        blocks = sum(kernel.blocks for kernel in kernels)
        if blocks:
            module.get_function(launch_name(number))((blocks,), (THREADS,), arrays)


def kernel_of(gpu, primitive, inputs, attributes):
    """Return the kernel of one primitive, the array of its result, and what NumPy computes."""
    with numpy.errstate(all="ignore"):
        expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    values = [Value(x.shape, x.dtype) for x in inputs]
    member = Instruction(primitive, values, attributes, Value(expected.shape, expected.dtype))
    out = gpu.asarray(numpy.full(expected.shape, 77).astype(expected.dtype))
    places = dict(zip(values, (on(gpu, x) for x in inputs), strict=True)) | {member.output: out}
    return group_kernel([member], [member.output], places, expected.shape), out, expected


def on(gpu, array):
    """Return a NumPy array on the GPU, with its strides."""
    if array.ndim == 0 or array.size == 0:
        return gpu.asarray(array)
    base = array[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)]
    step = base.strides[-1] // base.itemsize
    wide = numpy.zeros((*base.shape[:-1], base.shape[-1] * max(step, 1)), array.dtype)
    wide[..., :: max(step, 1)] = base
    keys = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)
    return gpu.asarray(wide)[..., :: max(step, 1)][keys]


def check(gpu, cases, tolerance):
    """Compute [(label, primitive, inputs, attributes)] in one go and compare with NumPy."""
    made = [
        (label, *kernel_of(gpu, primitive, inputs, attributes))
        for label, primitive, inputs, attributes in cases
    ]
    computed(gpu, [[kernel] for _, kernel, _, _ in made])
    for label, _, out, expected in made:
        numpy.testing.assert_allclose(
            gpu.asnumpy(out), expected, rtol=tolerance, atol=tolerance, err_msg=label, equal_nan=True
        )
        assert out.dtype == expected.dtype


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-2), ("float32", 3e-6), ("float64", 1e-12)])
@given(data=st.data())
@SHARED
def test_every_elementwise_primitive_agrees_with_numpy(gpu, dtype, tolerance, data):
    cases = []
    for name, primitive in ELEMENTWISE.items():
        inputs, attributes = data.draw(case(primitive))
        if name not in FLOAT32_ONLY:
            inputs = [x.astype(dtype, order="K") if x.dtype.kind == "f" else x for x in inputs]
        cases.append((name, primitive, inputs, attributes))
    check(gpu, cases, tolerance)


SPECIAL = [-numpy.inf, -100.0, -1.5, -1.0, -0.0, 0.0, 1e-30, 0.5, 1.0, 100.0, numpy.inf, numpy.nan]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_come_out_as_in_numpy(gpu, dtype):
    grid = numpy.array(list(itertools.product(SPECIAL, SPECIAL)), dtype)
    a, b = grid[:, 0].copy(), grid[:, 1].copy()
    cases = []
    for name, primitive in ELEMENTWISE.items():
        if name in (
            "cast",
            "where",
            "relu_backward",
            "clip",
            *FLOAT32_ONLY,
        ):  # below, or 0 * infinity is not what is meant
            continue
        inputs = [a, b][: len(primitive.gradients)]
        cases.append((name, primitive, inputs, {}))
    cases.append(("where", BUILT_IN["where"], [a > 0, a, b], {}))
    cases.append(("clip", BUILT_IN["clip"], [a], {"low": -1.0, "high": numpy.inf}))
    cases.append(("round_off", BUILT_IN["round_off"], [a.astype("float32")], {"bits": 7}))
    check(gpu, cases, 2e-6)


def test_zero_keeps_its_sign(gpu):
    zeros = numpy.array([-0.0, 0.0], "float32")
    for name, expected in (
        ("absolute", [False, False]),
        ("negative", [False, True]),
        ("sqrt", [True, False]),
    ):
        kernel, out, _ = kernel_of(gpu, BUILT_IN[name], [zeros], {})
        computed(gpu, [[kernel]])
        assert numpy.signbit(gpu.asnumpy(out)).tolist() == expected, name


def test_whole_numbers_and_bools(gpu):
    signed, small = numpy.array([-7, -1, 0, 1, 3, 2**31 - 1]), numpy.array([0, 1, 2, 0, 3, 2], "int64")
    exact = numpy.array([3**33 + 2, 5, 7, 2, 10, 3]), numpy.array([1, 20, 2, 62, 18, 39])
    bools = numpy.array([True, True, False]), numpy.array([True, False, False])
    cases = [("power", BUILT_IN["power"], exact, {}), ("power", BUILT_IN["power"], (signed, small), {})]
    for name in ("add", "subtract", "multiply", "maximum", "minimum", "equal", "less", "greater_equal"):
        for dtype in ("int64", "int32", "uint8"):
            inputs = [signed.astype(dtype), small.astype(dtype)]
            cases.append((f"{name} {dtype}", BUILT_IN[name], inputs, {}))
    for name in ("add", "multiply", "maximum", "not_equal"):
        cases.append((f"{name} bool", BUILT_IN[name], bools, {}))
    for name in ("absolute", "sign", "negative", "relu"):
        cases.append((name, BUILT_IN[name], [signed], {}))
    cases.append(("bool times float", BUILT_IN["multiply"], [bools[0], numpy.float32([2, 3, 4])], {}))
    check(gpu, cases, 0)


def test_casts(gpu):
    values = numpy.array([0, 1, 2, 100])
    kinds = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")
    cases = [
        (f"{a} to {b}", BUILT_IN["cast"], [values.astype(a)], {"dtype": numpy.dtype(b)})
        for a in kinds
        for b in kinds
    ]
    cases.append(
        ("NaN", BUILT_IN["cast"], [numpy.float32([numpy.nan, 0.5, 0])], {"dtype": numpy.dtype(bool)})
    )
    check(gpu, cases, 0)


def zeros_of(gpu):
    kept = []

    def zeros(count, dtype):
        kept.append(gpu.zeros(count, dtype))
        return kept[-1]

    return zeros


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
@pytest.mark.parametrize("name", ["sum", "max"])
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


def test_copies_broadcast_and_convert(gpu, rng):
    x = rng.normal(size=(6, 5))
    targets = [gpu.asarray(numpy.zeros((4, 5, 6), "float32")), gpu.asarray(numpy.zeros((6, 5)))]
    kernels = [
        copy_kernel(targets[0], gpu.asarray(x).transpose()),
        copy_kernel(targets[1], gpu.asarray(x[:1])),
    ]
    computed(gpu, [kernels])
    assert (gpu.asnumpy(targets[0]) == x.T.astype("float32")).all()
    assert (gpu.asnumpy(targets[1]) == x[:1]).all()


def test_equal_kernels_share_their_code(strict_gpu):
    kernels = [
        kernel_of(strict_gpu, BUILT_IN["add"], [numpy.ones(3), numpy.ones(3)], {})[0] for _ in range(5)
    ]
    text = cuda_source.source([kernels[:3], kernels[3:]])
    assert text.count("static __device__ void step_") == 1
    assert text.count("__global__") == 2


def test_large_arrays_are_indexed_with_64_bits():
    line = Value((2**31,), numpy.dtype("uint8"))
    array = numpy.broadcast_to(numpy.uint8(1), line.shape)
    member = Instruction(BUILT_IN["negative"], [line], {}, Value(line.shape, line.dtype))
    big = group_kernel([member], [member.output], {line: array, member.output: array}, line.shape)
    small = group_kernel([member], [member.output], {line: array[:9], member.output: array[:9]}, (9,))
    assert "long long i" in big.code
    assert "int i" in small.code


def test_what_has_no_expression_is_unsupported():
    primitive = Primitive.__new__(Primitive)
    primitive.name, primitive.expression, primitive.forward = "strange", None, lambda xp, x, out=None: x
    value, out = Value((3,), numpy.dtype("float32")), Value((3,), numpy.dtype("float32"))
    x = numpy.ones(3, "float32")
    with pytest.raises(Unsupported, match="strange"):
        group_kernel([Instruction(primitive, [value], {}, out)], [out], {value: x, out: x}, (3,))
    with pytest.raises(Unsupported, match="complex64"):
        copy_kernel(x, x.astype("complex64"))


# --- with the real compiler -----------------------------------------------------------------------

#: What CuPy tells the compiler in every case.
AS_CUPY = {"ftz": True, "device_as_default_execution_space": True}


def compile_for_gpus(*codes, architectures=("sm_80", "sm_90")):
    """Compile CUDA source for real GPUs, which needs none; skip the test where there is no compiler."""
    core = pytest.importorskip(
        "cuda.core", reason="needs NVIDIA's compiler: pip install -e '.[nvrtc]'", exc_type=ImportError
    )
    for arch in architectures:
        options = core.ProgramOptions(arch=arch, std="c++17", **AS_CUPY)
        for code in codes:
            code = code.replace("#include <cuda_fp16.h>", HALVES)
            assert core.Program(code, "c++", options).compile("cubin").code


def test_the_cuda_compiler_takes_every_kernel(strict_gpu, rng):
    kernels = []
    attributes = {
        "clip": {"low": -1, "high": numpy.inf},
        "cast": {"dtype": numpy.dtype("int32")},
        "round_off": {"bits": 10},
    }
    for name, primitive in ELEMENTWISE.items():
        for dtype in ("float32",) if name in FLOAT32_ONLY else ("float16", "float32", "float64"):
            inputs = [rng.uniform(0.5, 1, (3, 4)).astype(dtype) for _ in primitive.gradients]
            inputs = [inputs[0] > 0.7, *inputs[1:]] if name == "where" else inputs
            kernels.append(kernel_of(strict_gpu, primitive, inputs, attributes.get(name, {}))[0])
    for name, dtype in itertools.product(("sum", "max"), ("float16", "float32", "float64", "int64", "uint8")):
        for axis in ((0,), (1,), (0, 1)):
            x = strict_gpu.asarray(numpy.ones((3000, 70), dtype))
            out = strict_gpu.asarray(numpy.zeros((3000, 70), dtype).sum(axis=axis))
            kernels.append(reduction_kernel(name, x, axis, out, zeros_of(strict_gpu)))
    state = strict_gpu.zeros(2, "uint64")
    kernels.append(advance_kernel(state, 3))
    for name, dtype in itertools.product(("random_uniform", "random_normal"), ("float32", "float64")):
        kernels.append(draw_kernel(name, state, 7, strict_gpu.zeros(9, dtype)))
    text = cuda_source.source([kernels[i : i + 20] for i in range(0, len(kernels), 20)])
    compile_for_gpus(text, philox.source())


#: What this code uses of cuda_fp16.h, for the compiler alone comes without CUDA's headers.
HALVES = """
struct __half { unsigned short bits; };
__device__ inline float __half2float(__half h) {
    float value; asm("{ cvt.f32.f16 %0, %1; }" : "=f"(value) : "h"(h.bits)); return value;
}
__device__ inline __half __float2half(float value) {
    __half h; asm("{ cvt.rn.f16.f32 %0, %1; }" : "=h"(h.bits) : "f"(value)); return h;
}
"""
