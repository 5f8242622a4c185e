"""Attention: masks, queries that may attend to nothing, and what is refused; values: tests/oracle."""

import numpy
import pytest

import minidl as dl


def test_a_query_that_may_attend_to_nothing_gets_0_and_gradients_of_0(rng):
    q, k, v = (dl.tensor(rng.normal(size=(2, 1, 3, 4)), requires_grad=True) for _ in range(3))
    mask = numpy.ones((2, 1, 3, 3), bool)
    mask[0, 0, 1] = False  # one query
    mask[1] = False  # a whole sequence
    y = dl.attention(q, k, v, mask)
    assert (y.numpy()[0, 0, 1] == 0).all()
    assert (y.numpy()[1] == 0).all()
    gradients = dl.grad((y * y).sum(), [q, k, v], create_graph=True)
    assert (gradients[0].numpy()[0, 0, 1] == 0).all()
    for g in gradients:
        assert numpy.isfinite(g.numpy()).all()
        assert (g.numpy()[1] == 0).all()
    second = dl.grad((gradients[0] * gradients[0]).sum(), [q, k, v])
    assert all(numpy.isfinite(g.numpy()).all() for g in second)


def test_later_keys_change_nothing_in_causal_attention(rng):
    layer = dl.MultiHeadAttention(8, 2, causal=True, seed=0)
    x = rng.normal(size=(1, 6, 8)).astype("float32")
    before = layer(x).numpy()
    x[:, 4:] = 9
    numpy.testing.assert_allclose(layer(x).numpy()[:, :4], before[:, :4], atol=1e-6)
    assert abs(layer(x).numpy()[:, 4:] - before[:, 4:]).max() > 0.1


def test_the_last_query_stands_at_the_last_key(rng):
    q, k, v = (rng.normal(size=(1, 1, 5, 4)) for _ in range(3))
    whole = dl.attention(q, k, v, causal=True).numpy()
    end = dl.attention(q[:, :, 3:], k, v, causal=True).numpy()
    numpy.testing.assert_allclose(end, whole[:, :, 3:], rtol=1e-12)


def test_padding_is_as_if_it_were_not_there(rng):
    layer = dl.MultiHeadAttention(8, 4, seed=0)
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    mask = numpy.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    y = layer(x, mask=mask).numpy()
    numpy.testing.assert_allclose(y[0, :3], layer(x[:1, :3]).numpy()[0], atol=1e-6)
    pairs = numpy.broadcast_to(mask[:, None], (2, 5, 5))
    numpy.testing.assert_array_equal(layer(x, mask=pairs).numpy(), y)


def test_dropout_is_for_training(rng):
    layer = dl.MultiHeadAttention(8, 2, dropout=0.5, seed=0)
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    assert (layer(x).numpy() != layer(x).numpy()).any()
    layer.eval()
    numpy.testing.assert_array_equal(layer(x).numpy(), layer(x).numpy())


def test_what_does_not_fit_is_refused():
    layer = dl.MultiHeadAttention(8, 2)
    with pytest.raises(ValueError, match=r"takes inputs \(batch, time, 8\)"):
        layer(dl.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=r"takes a mask \(2, 3\) or \(2, 3, 3\); got \(3, 2\)"):
        layer(dl.ones((2, 3, 8)), mask=numpy.ones((3, 2), bool))
    with pytest.raises(TypeError, match="a mask is bool"):
        layer(dl.ones((2, 3, 8)), mask=dl.ones((2, 3)))
    with pytest.raises(ValueError, match="cannot be cut into 3 heads"):
        dl.MultiHeadAttention(8, 3)
