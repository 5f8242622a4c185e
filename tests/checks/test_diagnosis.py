import numpy
import pytest

import minidl as dl
from minidl.checks import GradientError, check_gradients
from minidl.primitives.primitive import Primitive, elementwise
from tests.checks.mistakes import message_of, named
from tests.networks import TiedAutoencoder


def test_a_rule_that_stands_at_the_wrong_place():
    """The rule of input 1 is that of input 0, and does not even fit where it stands."""
    join = Primitive(
        named("join"),
        lambda xp, a, b, out=None: xp.add(a, b.T, out=out),
        gradients=(lambda g, out, a, b: 2 * g, lambda g, out, a, b: g),
    )
    with pytest.raises(GradientError, match="the rules of inputs 0 and 1 are exchanged"):
        check_gradients(join, numpy.ones((2, 3)), numpy.ones((3, 2)))


def test_a_rule_that_cannot_be_compared_is_no_explanation():
    """The rule of input 1 fits input 0, but is wrong at its own place only because it fails there."""

    def for_b(g, out, a, b):
        if b.shape == (2, 3):
            raise ArithmeticError
        return -g

    shift = elementwise(
        named("shift"),
        lambda xp, a, b, out=None: xp.subtract(a, b, out=out),
        gradients=(lambda g, out, a, b: -g, for_b),
    )
    with pytest.raises(GradientError, match="wrong sign"):
        check_gradients(lambda a: shift(a, numpy.ones((1, 3))), numpy.ones((2, 3)))


@pytest.mark.slow
def test_a_mistake_in_the_whole_autoencoder_is_found_and_named(rng):
    network = TiedAutoencoder(784, 784, 392, 196)

    class Untied(dl.Layer):
        def __init__(self):
            self.network = network

        def forward(self, x):
            z = network.encoder(x)
            for layer, bias in reversed(list(zip(network.dense[1:], network.biases[1:], strict=True))):
                z = dl.relu(z @ layer.weight.T + bias)
            return dl.sigmoid(z @ network.dense[0].weight.detach().T + network.biases[0])

    images = rng.uniform(size=(4, 784))
    untied = Untied()
    message = message_of(lambda x: dl.mean_squared_error(untied(x), images, "sum"), images, sample=4)
    assert message.startswith("untied.network.encoder.0.weight (784, 784): ")
    assert "'detach' stops the gradient" in message
    assert "one of 2 uses" in message
    assert "encoder.2.weight" not in message
