"""Every primitive that has C, or blocks for threads, agrees with NumPy: whole, in blocks, on any memory."""

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidl.primitives.indexing import SLOT
from minidl.primitives.primitive import Primitive
from minidl.program.cpu.blas import best_blas
from minidl.program.cpu.blocks import block_of
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.calls import Scratch, calls
from minidl.program.cpu.lowering import LOWERINGS, statements
from minidl.program.expressions import Unsupported
from minidl.program.plan.partition import PARTITIONS, partition_of
from minidl.program.program import Instruction, Value
from tests.primitives.test_gradients import BUILT_IN, case
from tests.program.networks import needs_c

LOWERED = sorted({key.name for key in [*LOWERINGS, *PARTITIONS] if isinstance(key, Primitive)})


def placed(array, layout):
    """Return an array with the same elements in other memory: by columns, strided, or in reverse."""
    if layout == "columns":
        return numpy.array(array, order="F")
    if layout == "strided" and array.ndim:
        wide = numpy.zeros((*array.shape[:-1], 2 * array.shape[-1] + 1), array.dtype)
        wide[..., 1::2] = array
        return wide[..., 1::2]
    if layout == "reversed" and array.ndim:
        return numpy.ascontiguousarray(array[::-1])[::-1]
    return array


def computed(step, arrays, parts, kernels):
    """Let each of several threads compute its block, one after another; return the result."""
    out = arrays[step.output]
    out.fill(77)
    source = CSource()
    for index in range(parts):
        block = block_of(step, arrays, index, parts)
        if kernels == "c":
            source.segment(statements(step, block, source))
        else:
            for call in calls(step, block, Scratch()):
                call()
    for call in source.build():
        call()
    return out


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("name", LOWERED)
@given(data=st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.differing_executors])
def test_a_step_and_its_blocks_agree_with_numpy(name, kernels, data):
    primitive = BUILT_IN[name]
    inputs, attributes = data.draw(case(primitive))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    layouts = st.sampled_from(["rows", "columns", "strided", "reversed"])
    inputs = [placed(x.astype(dtype) if x.dtype.kind == "f" else x, data.draw(layouts)) for x in inputs]
    expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    values = [Value(x.shape, x.dtype) for x in inputs]
    step = Instruction(primitive, values, attributes, Value(expected.shape, expected.dtype))
    out = numpy.empty(expected.shape, expected.dtype, order=data.draw(st.sampled_from("CF")))
    arrays = dict(zip(values, inputs, strict=True)) | {step.output: out}
    parts = 3 if partition_of(step, arrays) is not None and data.draw(st.booleans()) else 1
    try:
        result = computed(step, arrays, parts, kernels)
    except Unsupported:
        assert kernels == "c"
        return
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    numpy.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


def program_of(name, inputs, attributes):
    """Return a step, its arrays and what NumPy computes."""
    primitive = BUILT_IN[name]
    expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    values = [Value(x.shape, x.dtype) for x in inputs]
    step = Instruction(primitive, values, attributes, Value(expected.shape, expected.dtype))
    return step, dict(zip(values, inputs, strict=True)) | {step.output: numpy.empty_like(expected)}, expected


RNG = numpy.random.default_rng(0)
LONG, WIDE, FEW, DEEP = (
    RNG.normal(size=shape).astype("float32") for shape in [(3, 5000), (2100, 300), (4097, 8), (9, 70, 33, 5)]
)


@needs_c
@pytest.mark.parametrize("name", ["sum", "max", "min"])
@pytest.mark.parametrize(
    ("x", "axis"),
    [
        *(
            (x, axis)
            for x in (LONG, WIDE, FEW, WIDE.T, FEW[::-1], FEW[:, 2:5])
            for axis in [(0,), (1,), (0, 1)]
        ),
        *((DEEP, axis) for axis in [(0, 1, 2), (1, 2), (2,), (0, 2), (0, 3), (1, 3), (3,), (0, 1, 2, 3)]),
        *((DEEP.transpose(0, 2, 3, 1), axis) for axis in [(1,), (3,), (0, 2), (1, 3)]),
    ],
)
def test_long_reductions_agree_with_numpy(name, x, axis):
    step, arrays, _ = program_of(name, [x], {"axis": axis, "keepdims": False})
    exact = getattr(numpy, name)(x.astype("float64"), axis=axis)
    result = computed(step, arrays, 2 if partition_of(step, arrays) else 1, "c")
    scale = numpy.sqrt(x.size / max(exact.size, 1))
    numpy.testing.assert_allclose(result, exact, rtol=1e-6, atol=1e-6 * scale)


@needs_c
@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
@pytest.mark.parametrize("shape", [(100,), (7, 50), (50, 7)])
@pytest.mark.parametrize("axis", [0, -1])
def test_nan_is_the_extremum_wherever_it_stands(name, shape, axis):
    x = RNG.normal(size=shape).astype("float32")
    x.reshape(-1)[RNG.integers(0, x.size, 3)] = numpy.nan
    axis %= x.ndim
    attributes = {"axis": axis} if name.startswith("arg") else {"axis": (axis,), "keepdims": False}
    step, arrays, expected = program_of(name, [x], attributes)
    numpy.testing.assert_array_equal(computed(step, arrays, 1, "c"), expected)


@needs_c
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_transposed_memory_is_copied_tile_by_tile(order):
    x = RNG.normal(size=(19, 45, 70)).transpose(order)
    step, arrays, expected = program_of("concatenate", [x, x], {"axis": 1})
    numpy.testing.assert_array_equal(computed(step, arrays, 2, "c"), expected)


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("place", [-11, 10])
@pytest.mark.parametrize("name", ["gather", "scatter_add"])
def test_a_position_outside_is_refused_as_in_numpy(name, place, kernels):
    places = numpy.array([3, place])
    if name == "gather":
        x, attributes = numpy.ones((10, 4)), {"key": (SLOT,)}
    else:
        x, attributes = numpy.ones((2, 4)), {"key": (SLOT,), "shape": (10, 4)}
    inside = numpy.array([3, 0])
    step, arrays, _ = program_of(name, [x, inside], attributes)
    arrays[step.inputs[1]] = places
    with pytest.raises(IndexError):
        computed(step, arrays, 2, kernels)
    arrays[step.inputs[1]] = inside  # nothing is left behind of it
    computed(step, arrays, 2, kernels)


@needs_c
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_group_is_computed_over_any_broadcast(dtype):
    """Per channel, per head, of permuted and reversed memory, in place of a state."""
    import minidl as dl

    arrays = [RNG.normal(size=shape).astype(dtype) for shape in [(6, 20, 17, 8), (8,), (6, 1, 17, 1)]]
    permuted = RNG.normal(size=(6, 17, 8, 20)).astype(dtype)

    def function(x, channel, column, y):
        z = x * channel + column
        return dl.tanh(z + y.transpose(0, 3, 1, 2)[:, ::-1]) * z, z.transpose(0, 3, 1, 2) + 1

    inputs = [dl.tensor(a) for a in (*arrays, permuted)]
    expected = function(*inputs)
    for kernels in ("numpy", "c"):
        for ours, theirs in zip(dl.compile(function, kernels=kernels)(*inputs), expected, strict=True):
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
            assert ours.dtype == numpy.dtype(dtype)


@needs_c
@pytest.mark.parametrize(("padding", "dilation"), [(((1, 1), (1, 1)), (1, 1)), (((0, 0), (2, 3)), (2, 1))])
@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_of_many_blocks_agree_with_numpy(monkeypatch, padding, dilation, channels):
    monkeypatch.setattr("minidl.program.cpu.convolution.BLOCK", 500)
    monkeypatch.setattr("minidl.program.cpu.convolution.MIN_ROWS", 20)
    x = RNG.normal(size=(5, 9, 11, channels)).astype("float32")
    w = RNG.normal(size=(3, 2, channels, 4)).astype("float32")
    where = {"stride": (1, 1), "padding": padding, "dilation": dilation, "groups": 1}
    step, arrays, expected = program_of("conv", [x, w], where)
    numpy.testing.assert_allclose(computed(step, arrays, 2, "c"), expected, rtol=2e-5, atol=2e-5)
    g = expected
    for name, inputs, more in [
        ("conv_input", [g, w], {"lengths": x.shape[1:3]}),
        ("conv_weight", [x, g], {"window": w.shape[:2]}),
    ]:
        step, arrays, expected = program_of(name, inputs, where | more)
        parts = 2 if name == "conv_input" else 1
        numpy.testing.assert_allclose(computed(step, arrays, parts, "c"), expected, rtol=2e-5, atol=1e-4)


@needs_c
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(64, 32, 64), (37, 33, 41), (24, 150, 47)])
@pytest.mark.parametrize("stack", [(2, 3), (1, 1)])
def test_stacks_of_products_with_a_transposed_factor_agree_with_numpy(stack, sizes, dtype, monkeypatch):
    """OpenBLAS is slow for them, so the factor is written by rows first."""
    blas = best_blas()
    if blas is None:
        pytest.skip("there is neither OpenBLAS nor MKL here")
    monkeypatch.setattr(blas, "has_small_products", True)
    rows, inner, columns = sizes
    a = RNG.normal(size=(*stack, rows, inner)).astype(dtype)
    # The heads of an attention: their columns lie side by side.
    heads = RNG.normal(size=(stack[0], columns, stack[1], inner)).astype(dtype).transpose(0, 2, 3, 1)
    for b in (heads, heads[:1]):
        step, arrays, expected = program_of("matmul", [a, b], {})
        block = block_of(step, arrays, 0, 1)
        assert f"t[{inner * columns}];" in statements(step, block, CSource())[0]
        tolerance = 1e-4 if dtype == "float32" else 1e-11
        numpy.testing.assert_allclose(
            computed(step, arrays, 1, "c"), expected, rtol=tolerance, atol=tolerance
        )
