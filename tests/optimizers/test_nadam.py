import numpy
import pytest

import minidl as dl
from tests.optimizers import reference


def rule(beta1=0.9, beta2=0.999, epsilon=1e-8, momentum_decay=0.004):
    """Return algorithm 2 of the paper, with its schedule of the momentum."""

    def momentum(t):
        return beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(value, gradient, rate, l2_factor, t, state):
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * gradient
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * gradient**2
        product = numpy.prod([momentum(i) for i in range(1, t + 1)])
        m_hat = momentum(t + 1) * state["m"] / (1 - product * momentum(t + 1))
        g_hat = (1 - momentum(t)) * gradient / (1 - product)
        v_hat = state["v"] / (1 - beta2**t)
        return value - rate * (m_hat + g_hat) / (numpy.sqrt(v_hat) + epsilon)

    return update


@pytest.mark.parametrize("name", reference.OPTIONS)
@pytest.mark.parametrize("settings", [{}, {"beta1": 0.5, "momentum_decay": 0.5, "epsilon": 0.1}], ids=str)
def test_follows_the_formula(name, settings):
    options = reference.OPTIONS[name]
    history = reference.trained(dl.Nadam, learning_rate=0.01, **settings, **options)
    reference.assert_same(history, reference.expected(rule(**settings), 0.01, **options))


def test_float32_follows_too():
    history = reference.trained(dl.Nadam, "float32", learning_rate=0.01)
    reference.assert_same(history, reference.expected(rule(), 0.01), tolerance=1e-5)


def test_what_it_does_not_take():
    with pytest.raises(ValueError, match="momentum_decay must not be negative, got -1"):
        dl.Nadam([dl.Parameter([1.0])], momentum_decay=-1)
    with pytest.raises(TypeError, match="amsgrad: it is an option of Adam"):
        dl.Nadam([dl.Parameter([1.0])], amsgrad=True)
