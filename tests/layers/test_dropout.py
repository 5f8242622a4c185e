import copy

import numpy
import pytest

import minidl as dl
from minidl.checks import check_gradients


def test_drops_a_share_and_scales_up_the_rest():
    y = dl.Dropout(0.2, seed=0)(dl.full((500, 400), 3)).numpy()
    dropped = y == 0
    numpy.testing.assert_allclose(y[~dropped], 3 / 0.8, rtol=1e-6)
    assert dropped.mean() == pytest.approx(0.2, abs=0.005)
    assert y.mean() == pytest.approx(3, rel=0.01)
    assert dropped.any(axis=0).all()  # no row or column is dropped, or kept, as a whole
    assert dropped.any(axis=1).all()


def test_passes_its_input_in_evaluation_mode():
    x = dl.ones((2, 3))
    assert dl.Dropout(0.9).eval()(x) is x
    assert dl.Dropout(0)(x) is x


def test_draws_anew_each_time():
    layer, x = dl.Dropout(0.5, seed=0), dl.ones((10, 10))
    assert (layer(x).numpy() != layer(x).numpy()).any()


def test_one_seed_gives_one_sequence():
    x = dl.ones((10, 10))
    first, second = dl.Dropout(0.5, seed=3), dl.Dropout(0.5, seed=3)
    for _ in range(3):
        numpy.testing.assert_array_equal(first(x).numpy(), second(x).numpy())


def test_layers_may_share_a_generator():
    generator, x = dl.Generator(0), dl.ones((10, 10))
    first, second = dl.Dropout(0.5, seed=generator), dl.Dropout(0.5, seed=generator)
    assert (first(x).numpy() != second(x).numpy()).any()
    twins = copy.deepcopy([first, second])
    assert twins[0].generator is twins[1].generator
    numpy.testing.assert_array_equal(twins[0](x).numpy(), first(x).numpy())


def test_evaluation_draws_nothing():
    layer, twin, x = dl.Dropout(0.5, seed=0), dl.Dropout(0.5, seed=0), dl.ones((10, 10))
    layer.eval()(x)
    numpy.testing.assert_array_equal(layer.train()(x).numpy(), twin(x).numpy())


def test_the_gradient_passes_where_the_input_did():
    x = dl.tensor(numpy.full((20, 20), 2.0), requires_grad=True)
    y = dl.Dropout(0.25, seed=0)(x)
    y.sum().backward()
    numpy.testing.assert_allclose(x.grad.numpy(), y.numpy() / 2)


def test_gradients(rng):
    check_gradients(lambda x: dl.Dropout(0.4, seed=0)(x), rng.normal(size=(3, 4)), order=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_keeps_shape_and_dtype(shape, dtype):
    y = dl.Dropout(0.5, seed=0)(dl.ones(shape, dtype))
    assert y.shape == shape
    assert y.dtype == dtype


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan")])
def test_the_rate_must_be_a_probability_below_1(rate):
    with pytest.raises(ValueError, match=f"Dropout: rate must be at least 0 and below 1, got {rate}"):
        dl.Dropout(rate)


def test_integers_are_refused_by_name():
    with pytest.raises(TypeError, match=r"Dropout\(0\.5\).*int64"):
        dl.Dropout(0.5)(dl.tensor([[1, 2]]))


def test_has_no_parameters_and_shows_its_rate():
    assert dl.Dropout(0.3).parameters() == []
    assert repr(dl.Dropout(0.3)) == "Dropout(0.3)"
