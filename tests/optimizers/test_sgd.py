import numpy
import pytest

import minidl as dl
from tests.optimizers import reference


def plain(value, gradient, rate, l2_factor, t, state):
    return value - rate * gradient


def momentum(value, gradient, rate, l2_factor, t, state):
    state["v"] = 0.8 * state.get("v", 0) + gradient
    return value - rate * state["v"]


def nesterov(value, gradient, rate, l2_factor, t, state):
    state["v"] = 0.8 * state.get("v", 0) + gradient
    return value - rate * (gradient + 0.8 * state["v"])


RULES = {
    "plain": (plain, {"momentum": 0}),
    "momentum": (momentum, {"momentum": 0.8}),
    "nesterov": (nesterov, {"momentum": 0.8, "nesterov": True}),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", reference.OPTIONS)
def test_follows_the_formula(rule, name):
    formula, settings = RULES[rule]
    options = reference.OPTIONS[name]
    history = reference.trained(dl.SGD, learning_rate=0.03, **settings, **options)
    reference.assert_same(history, reference.expected(formula, 0.03, **options))


@pytest.mark.parametrize("rule", RULES)
def test_float32_follows_too(rule):
    formula, settings = RULES[rule]
    history = reference.trained(dl.SGD, "float32", learning_rate=0.03, **settings)
    reference.assert_same(history, reference.expected(formula, 0.03), tolerance=1e-5)


def test_two_steps_by_hand():
    p = dl.Parameter([1.0])
    optimizer = dl.SGD([p], learning_rate=0.5, momentum=0.5)
    for expected in (0.0, -1.5):  # the velocities are 2 and 3
        p.grad = dl.tensor([2.0])
        optimizer.step()
        assert p.tolist() == [expected]


def test_the_originals_settings_are_the_defaults():
    optimizer = dl.SGD([dl.Parameter([1.0])])
    assert optimizer.learning_rate.item() == 0.01
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, False)


def test_without_momentum_there_is_no_state():
    assert dl.SGD([dl.Parameter([1.0])], momentum=0).states == [{}]


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, numpy.nan])
def test_momentum_must_be_a_share(bad):
    with pytest.raises(ValueError, match=f"SGD: momentum must be at least 0 and below 1, got {bad}"):
        dl.SGD([dl.Parameter([1.0])], momentum=bad)


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="SGD: nesterov needs a momentum above 0"):
        dl.SGD([dl.Parameter([1.0])], momentum=0, nesterov=True)
