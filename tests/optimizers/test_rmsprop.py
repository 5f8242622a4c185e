import numpy
import pytest

import minidl as dl
from tests.optimizers import reference


def rule(decay, epsilon):
    def update(value, gradient, rate, l2_factor, t, state):
        state["v"] = decay * state.get("v", 0) + (1 - decay) * gradient**2
        return value - rate * gradient / (numpy.sqrt(state["v"]) + epsilon)

    return update


@pytest.mark.parametrize("name", reference.OPTIONS)
@pytest.mark.parametrize(("decay", "epsilon"), [(0.9, 1e-8), (0.5, 0.1), (0, 1e-3)])
def test_follows_the_formula(name, decay, epsilon):
    options = reference.OPTIONS[name]
    history = reference.trained(dl.RMSProp, learning_rate=0.01, decay=decay, epsilon=epsilon, **options)
    reference.assert_same(history, reference.expected(rule(decay, epsilon), 0.01, **options))


def test_float32_follows_too():
    history = reference.trained(dl.RMSProp, "float32", learning_rate=0.01)
    reference.assert_same(history, reference.expected(rule(0.9, 1e-8), 0.01), tolerance=1e-5)


def test_the_first_step_by_hand():
    p = dl.Parameter([1.0, 1.0, 1.0])
    optimizer = dl.RMSProp([p], learning_rate=0.1)
    p.grad = dl.tensor([1e-3, -1e3, 0.0])
    optimizer.step()  # of the length rate / sqrt(1 - decay), whatever the gradient
    length = 0.1 / numpy.sqrt(0.1)
    numpy.testing.assert_allclose(p.numpy(), [1 - length, 1 + length, 1], rtol=1e-4)


def test_the_originals_settings_are_the_defaults():
    optimizer = dl.RMSProp([dl.Parameter([1.0])])
    assert optimizer.learning_rate.item() == 0.001
    assert (optimizer.decay, optimizer.epsilon) == (0.9, 1e-8)


@pytest.mark.parametrize("bad", [-0.1, 1, numpy.nan])
def test_decay_must_be_a_share(bad):
    with pytest.raises(ValueError, match=f"RMSProp: decay must be at least 0 and below 1, got {bad}"):
        dl.RMSProp([dl.Parameter([1.0])], decay=bad)
