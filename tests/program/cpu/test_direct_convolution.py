"""Convolutions that add up products in registers agree with NumPy: any memory, stride and border."""

import itertools

import numpy
import pytest

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.program.cpu import c_code, direct_convolution
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.convolution import conv_input_statements, conv_statement, conv_weight_statements
from minidl.program.expressions import Unsupported
from tests.program.networks import needs_c

pytestmark = needs_c

#: window, stride, padding, dilation
WHERE = [
    ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    ((2, 3), (2, 1), ((0, 1), (2, 0)), (1, 1)),
    ((3, 2), (1, 2), ((2, 2), (1, 1)), (1, 2)),
    ((1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((2, 2), (1, 1), ((2, 3), (3, 2)), (1, 1)),
    ((3, 3), (1, 1), ((0, 0), (0, 0)), (2, 1)),
]
#: shape of x, output channels
SIZES = [
    ((3, 7, 9, 3), 8),
    ((2, 14, 14, 8), 16),
    ((1, 5, 6, 20), 24),
    ((2, 9, 31, 1), 8),
    ((2, 12, 11, 16), 32),
]


@pytest.fixture(autouse=True)
def everything_is_direct(monkeypatch):
    def refuse():
        raise AssertionError("a convolution that should be direct is packed")

    monkeypatch.setattr("minidl.program.cpu.convolution._require_blas", refuse)


@pytest.fixture(params=["native", "common", "bands"])
def machine(request, monkeypatch):
    """The vectors of this processor; those of processors without AVX-512; images that do not fit."""
    if request.param == "common":
        monkeypatch.setattr(c_code, "_HEADER", "#undef __AVX512F__\n" + c_code._HEADER)
    elif request.param == "bands":
        monkeypatch.setattr(direct_convolution, "BAND", 300)


class Cases:
    """Statements that are compiled and run together, each with the result that NumPy has."""

    def __init__(self):
        self.source, self.pairs = CSource(), []

    def add(self, lower, *inputs, **attributes):
        primitive = {
            conv_statement: conv_,
            conv_input_statements: conv_input_,
            conv_weight_statements: conv_weight_,
        }[lower]
        with numpy.errstate(invalid="ignore"):
            expected = primitive.forward(numpy, *inputs, **attributes)
        out = numpy.full(expected.shape, 77, expected.dtype)
        statements = lower(self.source, *inputs, out, attributes)
        self.source.segment([statements] if isinstance(statements, str) else statements)
        self.pairs.append((out, expected))
        return expected

    def check(self, **tolerance):
        for call in self.source.build():
            call()
        for ours, numpys in self.pairs:
            numpy.testing.assert_allclose(ours, numpys, **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_direct_convolutions_agree_with_numpy(machine, dtype):
    random = numpy.random.default_rng(0)
    cases = Cases()
    for ((shape, channels), layout), (window, stride, padding, dilation) in itertools.chain(
        zip(itertools.product(SIZES, ["contiguous", "strided"]), itertools.cycle(WHERE)),
        zip(itertools.product(SIZES[:2], ["strided"]), reversed(WHERE)),  # noqa: B905
        itertools.product([(SIZES[0], "contiguous")], WHERE),
    ):
        x = random.normal(size=shape).astype(dtype)
        if layout == "strided":
            wide = numpy.zeros((shape[0], shape[1], 2 * shape[2], shape[3] + 3), dtype)
            wide[:, :, ::2, 1:-2] = x
            x = wide[:, :, ::2, 1:-2][..., ::-1]
        w = random.normal(size=(*window, shape[-1], channels)).astype(dtype)
        where = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 1}
        y = cases.add(conv_statement, x, w, **where)
        g = random.normal(size=y.shape).astype(dtype)
        cases.add(conv_weight_statements, x, g, **where, window=window)
        if max(stride) == 1 and shape[-1] % 8 == 0:
            cases.add(conv_input_statements, g, w, **where, lengths=shape[1:-1])
    close = {"rtol": 1e-4, "atol": 1e-3} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}
    cases.check(**close)


def test_a_direct_convolution_over_one_axis_and_of_no_images():
    x, w = numpy.arange(2 * 9 * 3.0).reshape(2, 9, 3), numpy.ones((4, 3, 8))
    where = {"stride": (2,), "padding": ((1, 2),), "dilation": (1,), "groups": 1}
    cases = Cases()
    for images in (x, x[:0]):
        y = cases.add(conv_statement, images, w, **where)
        cases.add(conv_weight_statements, images, y, **where, window=(4,))
    cases.check(rtol=1e-11)


def test_infinities_and_nan_stay_in_their_windows():
    x = numpy.zeros((1, 6, 6, 1), "float32")
    x[0, 0, 0, 0], x[0, 5, 5, 0] = numpy.inf, numpy.nan
    w = numpy.ones((3, 3, 1, 8), "float32")
    where = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    cases = Cases()
    cases.add(conv_statement, x, w, **where)
    cases.check()


def test_many_weights_and_odd_channels_are_left_to_blas():
    def lower(channels, outputs):
        x, w = numpy.ones((2, 8, 8, channels)), numpy.ones((3, 3, channels, outputs))
        where = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        conv_statement(CSource(), x, w, numpy.empty((2, 8, 8, outputs)), where)

    lower(8, 8)
    for channels, outputs in [(8, 10), (512, 512)]:
        with pytest.raises((AssertionError, Unsupported)):
            lower(channels, outputs)
