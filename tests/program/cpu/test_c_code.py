"""Every elementwise primitive as C agrees with its NumPy forward, special values included."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as dl
from minidl.program.cpu import c_code, kernel_cache
from minidl.program.cpu.statements import group_statement
from minidl.program.program import Group
from minidl.program.recorder import Recorder
from tests.primitives.test_gradients import BUILT_IN, FLOAT32_ONLY, case, primitives

needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")


def evaluated_as_c(primitive, inputs, attributes):
    """Return the result of one primitive, computed by a generated C function."""
    tensors = [dl.tensor(x) for x in inputs]
    recorder = Recorder(tensors)
    dl.autodiff.mode.recorder = recorder
    try:
        out = primitive(*tensors, **attributes)
    finally:
        dl.autodiff.mode.recorder = None
    program = recorder.finish([out])
    places = dict(zip(program.inputs, (x.data for x in tensors), strict=True))
    places |= {v: v.array for v in program.values() if v.kind == "constant"}
    places[program.outputs[0]] = result = numpy.full(out.shape, 77).astype(out.dtype)
    source = c_code.CSource()
    source.segment([group_statement(source, Group(program.steps, program.outputs), places, out.shape)])
    (call,) = source.build()
    call()
    return result


@needs_c
@primitives(kind="elementwise")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@settings(max_examples=3)
def test_c_agrees_with_numpy(primitive, dtype, data):
    if primitive.expression is None:
        pytest.skip("it has no expression: NumPy computes it")
    inputs, attributes = data.draw(case(primitive))
    if primitive.name not in FLOAT32_ONLY:
        inputs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]
    expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    tolerance = 1e-6 if dtype == "float32" else 1e-12
    result = evaluated_as_c(primitive, inputs, attributes)
    numpy.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


SPECIAL = numpy.array(
    [-numpy.inf, -100.0, -1.0, -0.0, 0.0, 1e-30, 1.0, 100.0, numpy.inf, numpy.nan], "float32"
)


@needs_c
@pytest.mark.parametrize(
    "name", ["relu", "sigmoid", "tanh", "exp", "absolute", "maximum", "minimum", "sqrt", "floor"]
)
def test_special_values_come_out_as_in_numpy(name):
    primitive = BUILT_IN[name]
    inputs = [SPECIAL, SPECIAL[::-1].copy()][: len(primitive.gradients)]
    with numpy.errstate(all="ignore"):
        expected = primitive.forward(numpy, *inputs)
        result = evaluated_as_c(primitive, inputs, {})
    numpy.testing.assert_allclose(result, expected, rtol=2e-6)


@needs_c
def test_attributes_go_into_the_source_as_numbers_alone():
    """A number's class may say anything about itself."""

    class Liar(float):
        def __repr__(self):
            return '0); system("exit"); (0'

        def hex(self):
            return repr(self)

    x = dl.Tensor(numpy.linspace(-1, 1, 5, dtype="float32"))
    low, high = Liar(-0.1), Liar(0.3)
    result = dl.compile(lambda x: dl.clip(x, low, high), kernels="c")(x)
    numpy.testing.assert_allclose(result.numpy(), numpy.clip(x.numpy(), -0.1, 0.3), rtol=1e-6)


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="unknown kernels 'fortran'"):
        dl.compile(lambda x: x * 2, kernels="fortran")(dl.ones(3))
