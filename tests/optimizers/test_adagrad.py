import numpy
import pytest

import minidl as dl
from tests.optimizers import reference


def rule(initial=0.0, epsilon=1e-10):
    def update(value, gradient, rate, l2_factor, t, state):
        state["v"] = state.get("v", initial) + gradient**2
        return value - rate * gradient / (numpy.sqrt(state["v"]) + epsilon)

    return update


@pytest.mark.parametrize("name", reference.OPTIONS)
@pytest.mark.parametrize("settings", [{}, {"initial": 0.5, "epsilon": 0.1}], ids=str)
def test_follows_the_formula(name, settings):
    options = reference.OPTIONS[name]
    history = reference.trained(dl.Adagrad, learning_rate=0.1, **settings, **options)
    reference.assert_same(history, reference.expected(rule(**settings), 0.1, **options))


def test_the_first_step_has_the_length_of_the_learning_rate():
    p = dl.Parameter([1.0, 1.0, 1.0])
    p.grad = dl.tensor([1e-3, -1e3, 0.0])
    dl.Adagrad([p], 0.1).step()
    numpy.testing.assert_allclose(p.numpy(), [0.9, 1.1, 1.0], rtol=1e-5)


def test_the_sum_begins_at_a_number_that_is_not_negative():
    with pytest.raises(ValueError, match="initial must not be negative, got -1"):
        dl.Adagrad([dl.Parameter([1.0])], initial=-1)
