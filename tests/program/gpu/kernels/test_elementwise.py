"""Generated elementwise kernels agree with NumPy: run on the CPU through tests/cuda_on_cpu.h, or on a GPU."""

import itertools

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.primitives.primitive import Primitive
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.elementwise import (
    copy_kernel,
    group_kernel,
)
from minidl.program.program import Instruction, Value
from tests.primitives.test_gradients import BUILT_IN, FLOAT32_ONLY, case
from tests.program.gpu.kernels.running import ELEMENTWISE, computed, examples, kernel_of

pytestmark = pytest.mark.gpu_source

SHARED = examples(4)


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
            "clip",
            *FLOAT32_ONLY,
            *("bitwise_and", "bitwise_or", "bitwise_xor"),
        ):  # below, or for whole numbers
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
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        for dtype in ("int64", "int32", "uint8", "bool"):
            cases.append((f"{name} {dtype}", BUILT_IN[name], [signed.astype(dtype), small.astype(dtype)], {}))
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


def test_what_has_no_expression_is_unsupported():
    primitive = Primitive.__new__(Primitive)
    primitive.name, primitive.expression, primitive.forward = "strange", None, lambda xp, x, out=None: x
    value, out = Value((3,), numpy.dtype("float32")), Value((3,), numpy.dtype("float32"))
    x = numpy.ones(3, "float32")
    with pytest.raises(Unsupported, match="strange"):
        group_kernel([Instruction(primitive, [value], {}, out)], [out], {value: x, out: x}, (3,))
    with pytest.raises(Unsupported, match="complex64"):
        copy_kernel(x, x.astype("complex64"))
