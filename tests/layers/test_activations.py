import numpy
import pytest
import scipy.special

import minidl as dl
from minidl.checks import check_gradients

ACTIVATIONS = {
    "ReLU": (dl.ReLU, lambda x: numpy.maximum(x, 0)),
    "Sigmoid": (dl.Sigmoid, scipy.special.expit),
    "Tanh": (dl.Tanh, numpy.tanh),
    "Softmax": (dl.Softmax, lambda x: scipy.special.softmax(x, axis=-1)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(5,), (0, 3), (4, 3), (2, 3, 4)])
def test_values(name, shape, rng):
    activation, reference = ACTIVATIONS[name]
    x = rng.normal(scale=3, size=shape)
    numpy.testing.assert_allclose(activation()(x).numpy(), reference(x), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("size", [100, 1000])
def test_large_inputs_saturate_without_warnings(name, size):
    activation, reference = ACTIVATIONS[name]
    x = numpy.float32([[-size, 0, size]])
    numpy.testing.assert_allclose(activation()(x).numpy(), reference(x), rtol=1e-6, atol=1e-43)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients(name, rng):
    x = rng.uniform(0.1, 2, size=(3, 4)) * rng.choice([-1, 1], size=(3, 4))  # away from the kink
    check_gradients(ACTIVATIONS[name][0](), x, order=2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_has_no_parameters_and_prints_its_name(name):
    layer = ACTIVATIONS[name][0]()
    assert layer.parameters() == []
    assert repr(layer) == f"{name}()"


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_softmax_along_an_axis(axis, rng):
    x = rng.normal(size=(2, 3, 4))
    layer = dl.Softmax(axis)
    numpy.testing.assert_allclose(layer(x).numpy(), scipy.special.softmax(x, axis=axis), rtol=1e-12)
    check_gradients(layer, x[:, :2, :2], order=2)
    assert repr(layer) == f"Softmax(axis={axis})"


@pytest.mark.parametrize(("axis", "shape"), [(2, (4, 3)), (1, ()), (-3, (4, 3))])
def test_softmax_refuses_an_axis_that_is_not_there(axis, shape):
    with pytest.raises(ValueError, match=rf"(?i)softmax.* {axis} .*{len(shape)} dimensions"):
        dl.Softmax(axis)(dl.ones(shape))
