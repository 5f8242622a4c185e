import functools

import numpy
import pytest

import minidl as dl
from minidl.checks import GradientError, check_gradients
from tests.checks.mistakes import message_of, parameter


class Everything(dl.Layer):
    """A layer with all that can be changed: Parameters, state, generators, modes, lists."""

    def __init__(self, bad):
        self.dense, self.drop = dl.Dense(3, 3, seed=0), dl.Dropout(0.5, seed=1)
        self.mean, self.calls, self.log = dl.zeros(3), 0, [[]]
        self.array = numpy.zeros(2)
        self.bad = bad

    def forward(self, x):
        self.calls += 1
        self.log[0].append(self.calls)
        self.array += 1
        if self.calls > 3 and self.bad == "raises":
            raise OverflowError
        self.mean.assign(self.mean * 0.5 + x.detach().mean(axis=0))
        y = self.drop(self.dense(x))
        return y + self.mean if self.bad == "wrong" else y


@pytest.mark.parametrize("bad", ["", "wrong", "raises"])
def test_nothing_is_changed(bad, rng):
    layer = Everything(bad)
    layer.dense.weight.grad = dl.ones((3, 3))
    layer.dense.train(False)
    layer.drop.generator.numpy.random(3)
    arrays = {name: x.data for name, x in layer.named_tensors()}
    values = {name: array.copy() for name, array in arrays.items()}
    gradient, log, inner = layer.dense.weight.grad, layer.log, layer.log[0]
    drawn = layer.drop.generator.state_dict()
    assigned = layer.dense.weight.assigned_at
    try:
        check_gradients(layer, rng.normal(size=(2, 3)), order=2)
    except (GradientError, OverflowError):
        assert bad
    for name, x in layer.named_tensors():
        assert x.data is arrays[name]
        numpy.testing.assert_array_equal(x.data, values[name])
    assert layer.dense.weight.grad is gradient
    assert layer.dense.bias.grad is None
    assert (layer.training, layer.dense.training, layer.drop.training) == (True, False, True)
    assert layer.drop.generator.state_dict() == drawn
    assert layer.log is log
    assert layer.log[0] is inner
    assert (layer.calls, layer.log) == (0, [[]])
    numpy.testing.assert_array_equal(layer.array, 0)
    assert layer.dense.weight.assigned_at == assigned


def test_a_compiled_step_replays_on_after_a_check(rng):
    layer, x = dl.Dense(3, 2, seed=0), rng.normal(size=(2, 3)).astype("float32")
    predict = dl.compile(lambda x: layer(x))
    expected = predict(x).numpy()
    recorded = predict.programs[0]
    check_gradients(layer, x)
    numpy.testing.assert_array_equal(predict(x).numpy(), expected)
    assert predict.programs[0] is recorded


def test_a_step_that_never_gets_to_a_result_leaves_no_trace():
    layer = dl.Dense(3, 2, seed=0)
    with pytest.raises(ValueError, match=r"takes inputs \(batch, \.\.\., 3\)"):
        check_gradients(layer, numpy.ones((2, 4)))
    assert layer.weight.dtype == "float32"


def test_parameters_in_closures_methods_and_partials_are_found(rng):
    layer, x = dl.Dense(3, 2, seed=0), rng.normal(size=(4, 3))
    free = parameter(2)
    names = lambda function: [c.name for c in check_gradients(function, x).comparisons]
    assert names(lambda x: layer(x) * free) == ["input 0", "free", "layer.weight", "layer.bias"]
    assert names(layer.forward) == ["input 0", "weight", "bias"]
    assert names(functools.partial(layer)) == ["input 0", "weight", "bias"]
    holder = {"key": [free]}
    assert names(lambda x: dl.tanh(x[:, :2]) * holder["key"][0]) == ["input 0", "holder.key.0"]
    held = [free].__iter__().__next__

    def out_of_sight(x):
        return x[:, :2] * functools.reduce(lambda a, b: a, [held.__self__.__reduce__()[1][0][0]])

    assert names(out_of_sight) == ["input 0", "parameter 0"]


def test_a_compiled_method(rng):
    class Curve(dl.Layer):
        def __init__(self):
            self.gain = parameter(3)

        @dl.compile
        def curve(self, x):
            return dl.sin(x) * self.gain

    layer = Curve()
    check_gradients(layer.curve, rng.normal(size=(4, 3)))
    assert len(Curve.curve.programs) == 0  # it was compiled anew for the check


def test_a_state_that_stops_the_gradient(rng):
    assert "'detach' stops the gradient" in message_of(Everything("wrong"), rng.normal(size=(2, 3)))
