"""What the tests of the checks build wrong layers and functions from, and read reports with."""

import itertools

import numpy
import pytest

import minidl as dl
from minidl.checks import GradientError, check_gradients, check_layer
from minidl.primitives.primitive import elementwise

_numbers = itertools.count()


class Broken(dl.Layer):
    """A layer whose forward is a function (self, x)."""

    def __init__(self, function, **attributes):
        self.function = function
        vars(self).update(attributes)

    def forward(self, x):
        return self.function(self, x)


def parameter(*shape, seed=1):
    return dl.Parameter(numpy.random.default_rng(seed).uniform(0.5, 1.5, shape).astype("float32"))


def named(base):
    return f"{base}_{next(_numbers)}"


def multiply_with(rule_a, rule_b):
    return elementwise(
        named("scale"), lambda xp, a, b, out=None: xp.multiply(a, b, out=out), gradients=(rule_a, rule_b)
    )


def message_of(function, *inputs, **options):
    with pytest.raises(GradientError) as caught:
        check_gradients(function, *inputs, **options)
    return str(caught.value)


def doubled_in_backward():
    """Return x * 1, whose gradient rule is 2."""
    return elementwise(
        named("copy"),
        lambda xp, x, out=None: xp.multiply(x, 1, out=out),
        gradients=(lambda g, out, x: 2 * g,),
    )


def outcomes(layer, shape, **options):
    """Return the outcome of each test of check_layer by its title."""
    return {row.test: row.outcome for row in check_layer(layer, shape, **options).rows}
