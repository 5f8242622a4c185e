import numpy
import pytest

import minidl as dl


def closure_of(loss):
    """Return what minimize() wants: a function that computes the loss and calls backward()."""

    def closure():
        value = loss()
        value.backward()
        return value

    return closure


def test_a_quadratic_bowl_has_one_lowest_point(rng):
    matrix = rng.normal(size=(6, 6))
    bowl, wanted = dl.tensor(matrix @ matrix.T + numpy.eye(6)), dl.tensor(rng.normal(size=6))
    p = dl.Parameter(numpy.zeros(6))
    reason = dl.LBFGS([p], gradient_tolerance=1e-10, loss_tolerance=0).minimize(
        closure_of(lambda: (p - wanted) @ bowl @ (p - wanted))
    )
    numpy.testing.assert_allclose(p.numpy(), wanted.numpy(), atol=1e-8)
    assert "converge" in reason
    assert p.grad is None


def test_rosenbrocks_valley():
    x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
    optimizer = dl.LBFGS([x, y], gradient_tolerance=1e-9, loss_tolerance=0)
    optimizer.minimize(closure_of(lambda: (1 - x) ** 2 + 100 * (y - x * x) ** 2))
    assert x.item() == pytest.approx(1, abs=1e-5)
    assert y.item() == pytest.approx(1, abs=1e-5)


def test_l2_is_part_of_what_is_minimised(rng):
    """At the end the gradient of loss + l2 / 2 * |weight|^2 is zero; biases have no part in it."""
    x, target = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    dense = dl.Dense(3, 2, seed=0).astype("float64")
    loss = lambda: dl.mean_squared_error(dense(dl.tensor(x)), target)
    dl.LBFGS(dense.parameters(), l2=0.3, gradient_tolerance=1e-9, loss_tolerance=0).minimize(closure_of(loss))
    loss().backward()
    numpy.testing.assert_allclose(dense.weight.grad.numpy() + 0.3 * dense.weight.numpy(), 0, atol=1e-7)
    numpy.testing.assert_allclose(dense.bias.grad.numpy(), 0, atol=1e-7)


def test_the_callback_gets_the_loss_without_the_penalty_and_can_stop():
    p = dl.Parameter(numpy.full((2, 2), 3.0))
    losses = []

    def callback(loss):
        losses.append((loss, (p * p).sum().item()))
        return len(losses) == 2

    dl.LBFGS([p], l2=0.5).minimize(closure_of(lambda: (p * p).sum() + (p**4).sum()), callback)
    assert len(losses) == 2
    for loss, squares in losses:
        assert loss > squares  # the Parameter has the values of that step
    assert losses[1][0] == pytest.approx((p * p).sum().item() + (p**4).sum().item())


def test_frozen_parameters_stay_and_shared_ones_count_once(rng):
    free, frozen = dl.Parameter(rng.normal(size=3)), dl.Parameter(rng.normal(size=3), learning_rate_factor=0)
    before = frozen.numpy()
    optimizer = dl.LBFGS([free, frozen, free])
    assert optimizer.parameters == [free]
    optimizer.minimize(closure_of(lambda: ((free - frozen) ** 2).sum()))
    numpy.testing.assert_array_equal(frozen.numpy(), before)
    numpy.testing.assert_allclose(free.numpy(), before, atol=1e-4)


def test_float32_parameters_and_a_compiled_closure(rng):
    x = rng.normal(size=(30, 4)).astype("float32")
    y = (x @ numpy.array([[1.0], [2.0], [3.0], [4.0]])).astype("float32")
    dense = dl.Dense(4, 1, seed=0)

    @dl.compile
    def closure():
        loss = dl.mean_squared_error(dense(dl.tensor(x)), y)
        loss.backward()
        return loss

    dl.LBFGS(dense.parameters()).minimize(closure)
    assert dense.weight.dtype == numpy.float32
    numpy.testing.assert_allclose(dense.weight.numpy().ravel(), [1, 2, 3, 4], atol=2e-3)


def test_bad_arguments_are_refused():
    p = dl.Parameter([1.0])
    for options in ({"max_iterations": 0}, {"history": 0}, {"l2": -1}):
        with pytest.raises(ValueError, match="max_iterations and history must be at least 1, and l2"):
            dl.LBFGS([p], **options)
    with pytest.raises(ValueError, match="no parameters to train"):
        dl.LBFGS([])


def test_it_stops_at_max_iterations():
    x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
    steps = []
    reason = dl.LBFGS([x, y], max_iterations=4).minimize(
        closure_of(lambda: (1 - x) ** 2 + 100 * (y - x * x) ** 2), steps.append
    )
    assert len(steps) == 4
    assert "iterations" in reason
