"""Blocks of a convolution cover all windows, and each element of the images once."""

import itertools

import numpy
from hypothesis import given
from hypothesis import strategies as st

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.program.plan.convolution import Form
from minidl.program.program import Instruction, Value
from tests.primitives.test_convolution import convolutions

FLOAT = numpy.dtype("float64")


def forms(x, w, g, where):
    """Return the forms of the three steps of one convolution."""
    x, w, g = (Value(array.shape, FLOAT) for array in (x, w, g))
    steps = [
        Instruction(conv_, [x, w], where, g),
        Instruction(conv_input_, [g, w], where | {"lengths": x.shape[1:-1]}, x),
        Instruction(conv_weight_, [x, g], where | {"window": w.shape[:-2]}, w),
    ]
    return [Form.of(step) for step in steps]


def places(images, rows):
    return list(itertools.product(range(images.start, images.stop), range(rows.start, rows.stop)))


@given(case=convolutions(), elements=st.sampled_from([1, 10, 100, 1000, 10**6]))
def test_blocks_cover_everything_once(case, elements):
    x, w, where = case
    g = conv_.forward(numpy, x, w, **where)
    form, *others = forms(x, w, g, where)
    assert others == [form, form]
    assert form.size == w.size // w.shape[-1]
    everything = list(itertools.product(range(len(x)), range(g.shape[1])))
    blocks = list(form.blocks(elements))
    assert [place for block in blocks for place in places(block.images, block.rows)] == everything
    everything = list(itertools.product(range(len(x)), range(x.shape[1])))
    blocks = list(form.input_blocks(elements))
    assert [place for block in blocks for place in places(block.images, block.band)] == everything
    for block in blocks:
        reached = {
            j
            for j, k in itertools.product(range(g.shape[1]), range(w.shape[0]))
            if j * form.stride[0] + k * form.dilation[0] - form.before[0]
            in range(block.band.start, block.band.stop)
        }
        assert reached <= set(range(block.rows.start, block.rows.stop))


@given(case=convolutions())
def test_blocks_are_of_about_the_size_that_is_wanted(case):
    x, w, where = case
    g = conv_.forward(numpy, x, w, **where)
    form, *_ = forms(x, w, g, where)
    row = form.groups * form.size * int(numpy.prod(form.counts[1:]))
    for block in form.blocks(2 * row):
        windows = len(places(block.images, block.rows))
        assert windows <= 2
    assert len(list(form.blocks(10**9))) == len(list(form.input_blocks(10**9))) == 1


def test_a_pointwise_convolution_packs_nothing():
    x, w, g = numpy.ones((2, 4, 5, 3)), numpy.ones((1, 1, 3, 6)), numpy.ones((2, 4, 5, 6))
    where = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    assert all(form.is_pointwise for form in forms(x, w, g, where))
    for changed in ({"stride": (1, 2)}, {"padding": ((0, 0), (0, 1))}, {"padding": ((1, 0), (0, 0))}):
        g = conv_.forward(numpy, x, w, **(where | changed))
        assert not any(form.is_pointwise for form in forms(x, w, g, where | changed))
