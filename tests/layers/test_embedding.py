"""Embedding: rows, padding, and indices that are refused."""

import numpy
import pytest

import minidl as dl


def test_rows_are_looked_up_and_their_gradients_add_up():
    layer = dl.Embedding(4, 3, seed=0)
    x = numpy.array([[1, 2], [1, 0]])
    y = layer(x)
    numpy.testing.assert_array_equal(y.numpy(), layer.weight.numpy()[x])
    y.sum().backward()
    numpy.testing.assert_array_equal(layer.weight.grad.numpy(), numpy.repeat([[1], [2], [1], [0]], 3, 1))


def test_padding_is_0_and_does_not_train():
    layer = dl.Embedding(4, 3, padding_index=2, seed=0)
    y = layer(numpy.array([2, 1, 2]))
    assert (y.numpy()[[0, 2]] == 0).all()
    y.sum().backward()
    assert (layer.weight.grad.numpy()[2] == 0).all()


@pytest.mark.parametrize("wrong", [-1, 4])
def test_an_index_out_of_range_is_refused_with_its_place(wrong):
    x = numpy.zeros((2, 3), int)
    x[1, 2] = wrong
    with pytest.raises(ValueError, match=rf"in 0 .. 3; got {wrong} at position \(1, 2\)"):
        dl.Embedding(4, 3)(x)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="integer inputs; got float32"):
        dl.Embedding(4, 3)(dl.ones((2,)))
    with pytest.raises(ValueError, match="padding_index"):
        dl.Embedding(4, 3, padding_index=4)
    with pytest.raises(ValueError, match="at least one row"):
        dl.Embedding(0, 3)
    assert dl.Embedding(4, 3)(numpy.zeros((2, 0), int)).shape == (2, 0, 3)
    assert repr(dl.Embedding(4, 3, 0)) == "Embedding(4, 3, padding_index=0)"
