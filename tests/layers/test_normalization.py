"""Normalisation layers: statistics, modes and what is refused. Values against PyTorch: tests/oracle."""

import numpy
import pytest

import minidl as dl


def test_batch_norm_in_training_has_mean_0_and_variance_1_of_each_channel(rng):
    x = rng.normal(3, 5, size=(8, 4, 4, 3)).astype("float32")
    y = dl.BatchNorm(3)(x).numpy()
    numpy.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    numpy.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_running_statistics_move_towards_the_unbiased_ones(compiled, rng):
    layer = dl.BatchNorm(2, momentum=0.25).astype("float64")
    call = dl.compile(lambda x: layer(x)) if compiled else layer
    mean, variance = numpy.zeros(2), numpy.ones(2)
    for _ in range(3):
        x = rng.normal(2, 3, size=(5, 2))
        call(dl.tensor(x))
        mean = 0.75 * mean + 0.25 * x.mean(0)
        variance = 0.75 * variance + 0.25 * x.var(0, ddof=1)
    numpy.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    numpy.testing.assert_allclose(layer.running_variance.numpy(), variance, rtol=1e-12)


def test_evaluation_uses_the_running_statistics_and_leaves_them(rng):
    layer = dl.BatchNorm(3)
    layer(rng.normal(1, 2, size=(16, 3)).astype("float32"))
    state = layer.state_dict()
    x = rng.normal(size=(1, 3)).astype("float32")
    y = layer.eval()(x).numpy()
    expected = (x - state["running_mean"]) / numpy.sqrt(state["running_variance"] + 1e-5)
    numpy.testing.assert_allclose(y, expected, rtol=1e-5)
    for name, value in layer.state_dict().items():
        numpy.testing.assert_array_equal(value, state[name])


def test_a_batch_of_one_value_for_each_channel_is_refused_in_training():
    with pytest.raises(ValueError, match=r"BatchNorm\(3\) needs at least two values of each channel"):
        dl.BatchNorm(3)(dl.ones((1, 3)))
    assert dl.BatchNorm(3)(dl.ones((1, 2, 3))).shape == (1, 2, 3)
    assert dl.BatchNorm(3).eval()(dl.ones((1, 3))).shape == (1, 3)


def test_group_norm_from_one_group_to_one_for_each_channel(rng):
    x = rng.normal(size=(2, 3, 5, 4))
    instance = (x - x.mean((1, 2), keepdims=True)) / numpy.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    numpy.testing.assert_allclose(dl.group_norm(x, 4).numpy(), instance, rtol=1e-9, atol=1e-12)
    whole = (x - x.mean((1, 2, 3), keepdims=True)) / numpy.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-5)
    numpy.testing.assert_allclose(dl.group_norm(x, 1).numpy(), whole, rtol=1e-9, atol=1e-12)


def test_gains_and_biases_are_not_regularised():
    for layer in (dl.BatchNorm(3), dl.LayerNorm(3), dl.RMSNorm(3), dl.GroupNorm(1, 3)):
        assert {p.l2_factor for p in layer.parameters()} == {0}


def test_printed_forms():
    assert repr(dl.BatchNorm(3)) == "BatchNorm(3)"
    assert repr(dl.BatchNorm(3, 0.2, 1e-3)) == "BatchNorm(3, momentum=0.2, epsilon=0.001)"
    assert repr(dl.LayerNorm(3, bias=False)) == "LayerNorm(3, bias=False)"
    assert repr(dl.GroupNorm(2, 4)) == "GroupNorm(2, 4)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: dl.BatchNorm(0),
        lambda: dl.BatchNorm(3, momentum=0),
        lambda: dl.LayerNorm(0),
        lambda: dl.RMSNorm(-1),
        lambda: dl.GroupNorm(3, 4),
        lambda: dl.GroupNorm(0, 4),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="Norm"):
        make()
    with pytest.raises(ValueError, match="cannot be cut into 3 groups"):
        dl.group_norm(dl.ones((2, 4)), 3)
