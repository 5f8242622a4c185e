import numpy
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

import minidl as dl
from minidl.checks import check_gradients


@given(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
def test_computes_x_times_weight_plus_bias(leading):
    rng = numpy.random.default_rng(0)
    layer = dl.Dense(3, 2, bias_initializer="ones", seed=0)
    x = rng.normal(size=(*leading, 3)).astype("float32")
    y = layer(x)
    assert y.shape == (*leading, 2)
    assert y.dtype == numpy.float32
    numpy.testing.assert_allclose(y.numpy(), x @ layer.weight.numpy() + 1, rtol=1e-5, atol=1e-6)


def test_takes_arrays_that_are_not_contiguous(rng):
    layer = dl.Dense(3, 2, seed=0)
    x = rng.normal(size=(3, 8)).astype("float32")
    numpy.testing.assert_array_equal(layer(dl.tensor(x).T[::2]).numpy(), layer(x.T[::2].copy()).numpy())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("leading", [(2,), (2, 2)])
def test_gradients(bias, leading, rng):
    layer = dl.Dense(3, 2, bias=bias, bias_initializer="ones", seed=0).astype("float64")
    check_gradients(layer, rng.normal(size=(*leading, 3)), order=2)


def test_no_gradient_is_computed_for_a_batch_that_needs_none():
    layer, x = dl.Dense(3, 2, seed=0), dl.ones((4, 3))
    layer(x).sum().backward()
    assert x.grad is None
    numpy.testing.assert_array_equal(layer.weight.grad.numpy(), numpy.full((3, 2), 4))
    numpy.testing.assert_array_equal(layer.bias.grad.numpy(), [4, 4])


def test_parameters():
    layer = dl.Dense(3, 2)
    assert layer.weight.shape == (3, 2)
    assert layer.bias.shape == (2,)
    assert layer.weight.dtype == layer.bias.dtype == numpy.float32
    assert layer.weight.l2_factor == 1
    assert layer.bias.l2_factor == 0
    assert layer.weight.learning_rate_factor == layer.bias.learning_rate_factor == 1
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_without_bias():
    layer = dl.Dense(3, 2, bias=False)
    assert layer.bias is None
    assert layer.parameter_count() == 6
    assert repr(layer) == "Dense(3, 2, bias=False)"


def test_weights_are_glorot_uniform_and_biases_zero_by_default():
    layer = dl.Dense(200, 100, seed=0)
    bound = numpy.sqrt(6 / 300)
    largest = numpy.abs(layer.weight.numpy()).max()
    assert 0.99 * bound < largest <= bound
    numpy.testing.assert_array_equal(layer.bias.numpy(), numpy.zeros(100))


def test_one_seed_gives_one_layer():
    weight = dl.Dense(3, 2, seed=5).weight.numpy()
    numpy.testing.assert_array_equal(dl.Dense(3, 2, seed=5).weight.numpy(), weight)
    assert (dl.Dense(3, 2, seed=6).weight.numpy() != weight).all()
    assert (dl.Dense(3, 2).weight.numpy() != dl.Dense(3, 2).weight.numpy()).all()


def test_layers_may_share_a_generator():
    def weights():
        generator = dl.Generator(5)
        return [dl.Dense(3, 2, seed=generator).weight.numpy() for _ in range(2)]

    first, second = weights()
    assert (first != second).all()
    numpy.testing.assert_array_equal(weights(), [first, second])
    numpy.testing.assert_array_equal(dl.Dense(3, 2, seed=numpy.random.default_rng(5)).weight.numpy(), first)


def test_initializers_are_names_or_functions():
    layer = dl.Dense(3, 2, weight_initializer="ones", bias_initializer=lambda shape, generator: [1, 2])
    numpy.testing.assert_array_equal(layer(numpy.ones((1, 3), "float32")).numpy(), [[4, 5]])


TAKES = r"Dense\(784, 392\) takes inputs \(batch, \.\.\., 784\); got "


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((128, 28, 28, 1), r"\(128, 28, 28, 1\): add Flatten\(\) before it"),
        ((2, 4, 196), r"\(2, 4, 196\): add Flatten\(\) before it"),
        ((784,), r"\(784,\): add a batch axis with \.reshape\(1, 784\)"),
        ((128, 783), r"\(128, 783\)$"),
        ((784, 128), r"\(784, 128\)$"),
        ((2, 28, 28, 2), r"\(2, 28, 28, 2\)$"),
        ((), r"\(\)$"),
    ],
)
def test_a_wrong_shape_is_refused_with_what_to_add(shape, message):
    with pytest.raises(ValueError, match=TAKES + message):
        dl.Dense(784, 392)(dl.zeros(shape))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_flatten_is_not_advised_where_it_does_not_help(shape):
    with pytest.raises(ValueError, match=r"Dense\(1, 2\) takes inputs \(batch, \.\.\., 1\); got") as refusal:
        dl.Dense(1, 2)(dl.zeros(shape))
    assert "Flatten" not in str(refusal.value)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8", "bool"])
def test_another_dtype_is_refused_with_what_to_do(dtype):
    message = rf"Dense\(3, 2\) computes in float32; got {dtype}: .*\.astype\('float32'\)"
    with pytest.raises(TypeError, match=message):
        dl.Dense(3, 2)(numpy.ones((1, 3), dtype))


@pytest.mark.parametrize(("place", "other"), [("cpu", "gpu:0"), ("gpu:0", "cpu")])
def test_another_device_is_refused_with_what_to_do(place, other, strict_gpu):
    message = rf"Dense\(3, 2\) is on {place}; got an input on {other}: .*\.to\('{place}'\)"
    with pytest.raises(ValueError, match=message):
        dl.Dense(3, 2).to(place)(dl.ones((1, 3), device=other))


@pytest.mark.parametrize(("in_features", "out_features"), [(0, 2), (2, 0), (-1, 2)])
def test_sizes_must_be_positive(in_features, out_features):
    with pytest.raises(ValueError, match=f"at least one feature.*{in_features}, {out_features}"):
        dl.Dense(in_features, out_features)
