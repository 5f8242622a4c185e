"""Convolution layers: what they hold, print and refuse. Values: tests/primitives and tests/oracle."""

import numpy
import pytest

import minidl as dl


def test_shapes_of_weights_and_of_results():
    assert dl.Conv1D(4, 6, 3, groups=2).weight.shape == (3, 2, 6)
    assert dl.Conv2D(4, 6, (3, 5)).weight.shape == (3, 5, 4, 6)
    assert dl.ConvTranspose2D(4, 6, 3, groups=2).weight.shape == (3, 3, 3, 4)
    assert dl.DepthwiseConv2D(4, 3, multiplier=2).weight.shape == (3, 3, 1, 8)
    assert dl.Conv2D(3, 8, 3, stride=2, padding="same")(dl.ones((2, 7, 8, 3))).shape == (2, 4, 4, 8)
    assert dl.ConvTranspose2D(3, 8, 3, stride=2)(dl.ones((2, 3, 4, 3))).shape == (2, 7, 9, 8)
    assert dl.Conv2D(3, 8, 3, bias=False).bias is None


def test_a_convolution_of_one_pixel_is_dense(rng):
    layer, dense = dl.Conv2D(3, 5, 1, seed=0), dl.Dense(3, 5)
    dense.weight.assign(layer.weight.numpy()[0, 0])
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    numpy.testing.assert_allclose(
        layer(x).numpy(), dense(x.reshape(-1, 3)).numpy().reshape(2, 4, 4, 5), atol=1e-6
    )


def test_initial_weights_follow_the_fans_and_the_seed():
    weight = dl.Conv2D(16, 32, 3, seed=0).weight.numpy()
    bound = (6 / (9 * (16 + 32))) ** 0.5
    assert 0.99 * bound < abs(weight).max() <= bound
    numpy.testing.assert_array_equal(dl.Conv2D(16, 32, 3, seed=0).weight.numpy(), weight)
    he = dl.Conv2D(16, 32, 3, weight_initializer="he_normal", seed=0).weight.numpy()
    assert he.std() == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.05)


def test_printed_forms():
    assert repr(dl.Conv2D(3, 8, 3)) == "Conv2D(3, 8, 3)"
    layer = dl.Conv2D(4, 8, (3, 5), 2, "same", (1, 2), 2, bias=False)
    assert repr(layer) == (
        "Conv2D(4, 8, (3, 5), stride=2, padding='same', dilation=(1, 2), groups=2, bias=False)"
    )
    assert repr(dl.DepthwiseConv2D(4, 3, 2)) == "DepthwiseConv2D(4, 3, multiplier=2)"
    assert repr(dl.MaxPool2D((2, 3), 1, "same")) == "MaxPool2D((2, 3), stride=(1, 1), padding='same')"
    assert repr(dl.UpSample2D(2)) == "UpSample2D(2)"
    assert repr(dl.UpSample2D((2, 3), "bilinear")) == "UpSample2D((2, 3), 'bilinear')"


def test_wrong_inputs_are_refused_by_name():
    layer = dl.Conv2D(3, 8, 3)
    with pytest.raises(ValueError, match=r"Conv2D\(3, 8, 3\) takes inputs \(batch, height, width, 3\)"):
        layer(dl.ones((2, 5, 5, 4)))
    with pytest.raises(ValueError, match="channels are the last axis"):
        layer(dl.ones((2, 3, 5, 5)))
    with pytest.raises(TypeError, match="float32"):
        layer(dl.ones((2, 5, 5, 3), "float64"))
    with pytest.raises(ValueError, match=r"MaxPool2D\(2\) takes inputs"):
        dl.MaxPool2D()(dl.ones((5, 5)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: dl.Conv2D(0, 1, 3),
        lambda: dl.Conv2D(3, 4, 3, groups=2),
        lambda: dl.Conv2D(4, 3, 3, groups=2),
        lambda: dl.Conv2D(1, 1, 0),
        lambda: dl.Conv2D(1, 1, (1, 2, 3)),
        lambda: dl.MaxPool2D(0),
        lambda: dl.UpSample2D(1.5),
        lambda: dl.UpSample2D(2, "cubic"),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"Conv2D|MaxPool2D|UpSample2D"):
        make()
