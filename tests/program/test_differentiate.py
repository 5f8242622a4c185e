"""Gradients through compiled functions."""

import numpy
import pytest

import minidl as dl
from minidl.errors import RecordingError


def test_a_gradient_flows_through_and_adds_up():
    compiled = dl.compile(lambda x: dl.exp(x))
    x = dl.tensor([0.5, 1.0], dtype="float64", requires_grad=True)
    for _ in range(3):
        g = dl.grad(compiled(x).sum() + x.sum(), x)
        numpy.testing.assert_allclose(g.numpy(), 1 + numpy.exp([0.5, 1.0]))


def test_gradients_of_gradients():
    compiled = dl.compile(lambda x: x**3)
    x = dl.tensor([0.5, 2.0], dtype="float64", requires_grad=True)
    first = dl.grad(compiled(x).sum(), x, create_graph=True)
    second = dl.grad(first.sum(), x, create_graph=True)
    third = dl.grad(second.sum(), x)
    numpy.testing.assert_allclose(first.numpy(), 3 * numpy.square([0.5, 2.0]))
    numpy.testing.assert_allclose(second.numpy(), 6 * numpy.array([0.5, 2.0]))
    numpy.testing.assert_allclose(third.numpy(), [6.0, 6.0])


def test_parameters_of_a_closure_and_several_results():
    dense = dl.Dense(3, 2, seed=0)
    x = dl.tensor(numpy.arange(6.0).reshape(2, 3).astype("float32"))

    def function(x):
        y = dense(x)
        return y, {"square": y * y}

    plain_y, plain_more = function(x)
    expected = dl.grad((plain_y.sum() + plain_more["square"].sum()), dense.parameters())
    y, more = dl.compile(function)(x)
    gradients = dl.grad(y.sum() + more["square"].sum(), dense.parameters())
    for ours, theirs in zip(gradients, expected, strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_backward_outside_fills_the_gradients_of_parameters():
    w = dl.Parameter([1.0, 2.0])
    loss = dl.compile(lambda x: (w * x).sum())
    for _ in range(3):
        loss(numpy.float32([3.0, 4.0])).backward()
    numpy.testing.assert_allclose(w.grad.numpy(), [9.0, 12.0])


def test_no_gradient_is_noted_where_the_tape_is_off_or_used_up():
    w = dl.Parameter([1.0, 2.0])
    with dl.no_grad():
        assert not dl.compile(lambda x: w * x)(dl.ones(2)).requires_grad

    def step(x):
        loss = (w * x).sum()
        loss.backward()
        w.grad = None
        return loss

    assert not dl.compile(step)(dl.ones(2)).requires_grad


def test_a_function_with_effects_refuses():
    w, count = dl.Parameter([1.0, 2.0]), dl.tensor(0.0)

    def counting(x):
        count.assign(count + 1)
        return w * x

    with pytest.raises(RecordingError, match="that assigns Tensors, so it cannot be computed anew"):
        dl.compile(counting)(dl.ones(2)).sum().backward()
    drop = dl.Dropout(0.5, seed=0)
    with pytest.raises(RecordingError, match="that draws random numbers"):
        dl.compile(lambda x: drop(w * x))(dl.ones(2)).sum().backward()
