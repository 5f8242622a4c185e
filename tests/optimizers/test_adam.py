import numpy
import pytest

import minidl as dl
from tests.optimizers import reference


def rule(beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0, amsgrad=False):
    """Return the algorithm as it stands in the papers."""

    def update(value, gradient, rate, l2_factor, t, state):
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * gradient
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * gradient**2
        m_hat = state["m"] / (1 - beta1**t)
        v = state["v"]
        if amsgrad:
            v = state["largest"] = numpy.maximum(state.get("largest", 0), v)
        v_hat = v / (1 - beta2**t)
        decayed = value - rate * weight_decay * l2_factor * value
        return decayed - rate * m_hat / (numpy.sqrt(v_hat) + epsilon)

    return update


SETTINGS = [
    {},
    {"beta1": 0.5, "beta2": 0.9, "epsilon": 0.1},
    {"beta1": 0, "beta2": 0},
    {"amsgrad": True, "beta2": 0.9},
]


@pytest.mark.parametrize("name", reference.OPTIONS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_follows_the_formula(name, settings):
    options = reference.OPTIONS[name]
    history = reference.trained(dl.Adam, learning_rate=0.01, **settings, **options)
    reference.assert_same(history, reference.expected(rule(**settings), 0.01, **options))


@pytest.mark.parametrize("name", reference.OPTIONS)
@pytest.mark.parametrize("settings", [{"weight_decay": 0.5}, {"weight_decay": 0, "beta1": 0.5}], ids=str)
def test_adamw_follows_the_formula(name, settings):
    options = reference.OPTIONS[name]
    history = reference.trained(dl.AdamW, learning_rate=0.01, **settings, **options)
    reference.assert_same(history, reference.expected(rule(**settings), 0.01, **options))


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.AdamW])
def test_follows_a_schedule(optimizer):
    decay = {"weight_decay": 0.5} if optimizer is dl.AdamW else {}
    schedule = dl.schedules.Cosine(0.02, steps=30)
    history = reference.trained(optimizer, learning_rate=schedule, **decay)
    reference.assert_same(history, reference.expected(rule(**decay), lambda step: cosine(0.02, step / 30)))


def cosine(rate, progress):
    return rate * (1 + numpy.cos(numpy.pi * min(progress, 1))) / 2


@pytest.mark.parametrize(("optimizer", "decay"), [(dl.Adam, 0), (dl.AdamW, 0.01)])
def test_float32_follows_too(optimizer, decay):
    history = reference.trained(optimizer, "float32", learning_rate=0.01)
    reference.assert_same(history, reference.expected(rule(weight_decay=decay), 0.01), tolerance=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_first_step_has_the_length_of_the_learning_rate(scale):
    p = dl.Parameter([1.0, 1.0, 1.0])
    optimizer = dl.Adam([p], learning_rate=0.1, epsilon=1e-12)
    p.grad = dl.tensor([scale, -scale, 0.0])
    optimizer.step()
    numpy.testing.assert_allclose(p.numpy(), [0.9, 1.1, 1.0], rtol=1e-5)


def test_epsilon_is_outside_the_root_and_not_scaled_by_the_corrections():
    p = dl.Parameter([0.0])
    optimizer = dl.Adam([p], learning_rate=1.0, epsilon=3.0)
    p.grad = dl.tensor([1.0])
    optimizer.step()  # m_hat = v_hat = 1
    assert p.item() == pytest.approx(-1 / 4)


def test_adamw_lets_weights_decay_and_biases_not():
    weight, bias = dl.Parameter([[2.0]]), dl.Parameter([2.0])
    optimizer = dl.AdamW([weight, bias], learning_rate=0.1, weight_decay=0.5)
    weight.grad, bias.grad = dl.zeros((1, 1)), dl.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2 * (1 - 0.1 * 0.5))
    assert bias.item() == 2


def test_the_originals_settings_are_the_defaults():
    optimizer = dl.Adam([dl.Parameter([1.0])])
    assert optimizer.learning_rate.item() == 0.001
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.l2) == (0.9, 0.999, 1e-8, 0)


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.AdamW])
@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("bad", [-0.1, 1, numpy.nan])
def test_betas_must_be_shares(optimizer, name, bad):
    message = f"{optimizer.__name__}: {name} must be at least 0 and below 1, got {bad}"
    with pytest.raises(ValueError, match=message):
        optimizer([dl.Parameter([1.0])], **{name: bad})


@pytest.mark.parametrize("bad", [-0.1, numpy.nan])
def test_weight_decay_must_not_be_negative(bad):
    with pytest.raises(ValueError, match=f"AdamW: weight_decay must not be negative, got {bad}"):
        dl.AdamW([dl.Parameter([1.0])], weight_decay=bad)
