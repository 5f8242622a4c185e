"""Every step that threads share: its blocks, computed one after another, make up the whole."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.primitives.convolution import conv_weight_
from minidl.primitives.elementwise import add, divide, exp, relu
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import max_, sum_
from minidl.primitives.windows import scatter_to_maxima_, select_maxima_
from minidl.program.cpu.blocks import block_of
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.calls import Scratch, calls
from minidl.program.cpu.lowering import LOWERINGS, statements
from minidl.program.plan.partition import PARTITIONS, partition_of
from minidl.program.plan.tasks import Copy
from minidl.program.program import Gemm, Group, Instruction, OnePass, Partial, PartialSum, Rows, Value
from tests.program.networks import needs_c


def value(*shape):
    return Value(shape, numpy.dtype("float64"))


def gemm(rows, columns):
    return Gemm(
        [(value(rows, 4), value(4, columns)), (value(rows, 3), value(3, columns))], value(rows, columns)
    )


def product_with_itself(rows, columns):
    x = value(rows, rows)
    return Gemm([(x, x)], value(rows, rows))


def group(rows, columns):
    x, bias, column = value(rows, columns), value(columns), value(rows, 1)
    inner, powers, out = (value(rows, columns) for _ in range(3))
    members = [
        Instruction(add, [x, bias], {}, inner),
        Instruction(exp, [inner], {}, powers),
        Instruction(add, [powers, column], {}, out),
    ]
    return Group(members, [inner, out])


def rows(rows, columns):
    x, bias, column = value(rows, columns), value(columns), value(rows, 1)
    inner, powers, out, last = (value(rows, columns) for _ in range(4))
    largest, shifted, total = (value(rows, 1) for _ in range(3))
    along = {"axis": (1,), "keepdims": True}
    members = [
        Instruction(add, [x, bias], {}, inner),
        Instruction(max_, [inner], along, largest),
        Instruction(add, [largest, column], {}, shifted),
        Instruction(exp, [inner], {}, powers),
        Instruction(add, [powers, shifted], {}, out),
        Instruction(sum_, [out], along, total),
        Instruction(divide, [powers, total], {}, last),
    ]
    return Rows(members, [inner, last, total])


def sums_beside_a_group(rows, columns):
    step = group(rows, columns)
    (inner, out), powers = step.outputs, step.members[1].output
    sums = [
        PartialSum(inner, (0,), 0, value(3, 1, columns)),
        PartialSum(powers, (0, 1), 0, value(3, 1, 1)),
    ]
    return OnePass(step.members, [out, *(partial.output for partial in sums)], sums)


def pooling_around_a_group(rows, columns):
    shape, where = (rows, 4, 6, columns), {"window": (2, 3), "stride": (2, 3)}
    x, g, scale = value(*shape), value(rows, 2, 2, columns), value(columns)
    before, placed, scaled, result = (value(*shape) for _ in range(4))
    selected = value(rows, 2, 2, columns)
    members = [
        Instruction(relu, [x], {}, before),
        Instruction(scatter_to_maxima_, [g, before], where, placed),
        Instruction(add, [placed, scale], {}, scaled),
        Instruction(add, [scaled, before], {}, result),
        Instruction(select_maxima_, [result, result], where, selected),
    ]
    total = PartialSum(scaled, (0, 1, 2), 0, value(3, 1, 1, 1, columns))
    return OnePass(members, [result, selected, total.output], [total])


def copy(rows, columns):
    return Copy(value(rows, columns), value(rows, columns))


def partial_sum(rows, columns):
    return PartialSum(value(rows, columns), (0,), 0, value(3, 1, columns))


def partial_weight_gradient(rows, columns):
    x, g, weight = value(rows, columns, 3), value(rows, columns - 2, 4), value(3, 3, 4)
    where = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1}
    whole = Instruction(conv_weight_, [x, g], {"window": (3,), **where}, weight)
    return Partial(whole, value(3, *weight.shape))


#: For each operation in PARTITIONS, functions that make a step, of this number of rows and columns. Those of
#: primitives are tested in cpu/test_lowering.py.
STEPS = {
    Gemm: [gemm, product_with_itself],
    Group: [group],
    OnePass: [sums_beside_a_group, pooling_around_a_group],
    Rows: [rows],
    Copy: [copy],
    PartialSum: [partial_sum],
    Partial: [partial_weight_gradient],
}


def test_every_step_that_can_be_shared_is_tested_here():
    assert set(STEPS) == {operation for operation in PARTITIONS if not isinstance(operation, Primitive)}


def computed(step, arrays, parts, kernels):
    """Let each of several threads compute its block, one after another; return what was written."""
    for out in step.writes:
        arrays[out].fill(77)
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
    return {out: arrays[out] for out in step.writes}


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("make", [make for makes in STEPS.values() for make in makes])
@given(rows=st.integers(6, 12), columns=st.integers(6, 12), by_columns=st.booleans(), seed=st.integers(0, 99))
def test_blocks_make_up_the_whole(make, kernels, rows, columns, by_columns, seed):
    step = make(rows, columns)
    if kernels == "c" and step.operation not in LOWERINGS:
        return
    rng = numpy.random.default_rng(seed)
    arrays = {}
    for x in [*step.inputs, *step.writes]:
        order = "F" if by_columns and len(x.shape) == 2 else "C"
        arrays[x] = numpy.array(rng.normal(size=x.shape), order=order)
    if step.operation in (PartialSum, Partial):
        arrays[step.output] = numpy.empty(step.output.shape)
    parts = 3
    assert partition_of(step, arrays) is not None
    expected = {step.state: arrays[step.value]} if step.operation is Copy else step.evaluate(numpy, arrays)
    for out, ours in computed(step, arrays, parts, kernels).items():
        numpy.testing.assert_allclose(ours, expected[out], rtol=1e-12, atol=1e-12)
