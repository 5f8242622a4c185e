"""FullBatchOptimizer, through a small optimizer of another kind than L-BFGS."""

import numpy
import pytest

import minidl as dl
from minidl.optimizers.full_batch import FullBatchOptimizer


class SteepestDescent(FullBatchOptimizer):
    """Steps of a constant length against the gradient."""

    rate = 0.1

    def __init__(self, parameters, max_iterations=200, l2=0.0):
        super().__init__(parameters, max_iterations, l2)

    def search(self, objective, start, after_iteration):
        vector = start
        for _ in range(self.max_iterations):
            vector = vector - self.rate * objective(vector)[1]
            if after_iteration(vector, objective(vector)[0]):
                return "stopped"
        return "all iterations made"


def square_error(parameter, target):
    def closure():
        loss = ((parameter - target) * (parameter - target)).sum()
        loss.backward()
        return loss

    return closure


def test_the_minimum_is_found():
    p = dl.Parameter([5.0, -3.0])
    assert SteepestDescent([p]).minimize(square_error(p, 2)) == "all iterations made"
    numpy.testing.assert_allclose(p.numpy(), 2, rtol=1e-5)


def test_l2_counts_in_what_is_minimised_and_not_in_the_callbacks_loss():
    p, losses = dl.Parameter([5.0], l2_factor=1), []
    SteepestDescent([p], l2=2.0).minimize(square_error(p, 2), losses.append)
    assert p.item() == pytest.approx(1, rel=1e-3)  # the minimum of (p - 2)^2 + p^2; float32 is flat there
    assert losses[-1] == pytest.approx(1, rel=1e-3)


def test_the_lowest_point_is_kept():
    p = dl.Parameter([5.0])
    optimizer = SteepestDescent([p], max_iterations=5)
    optimizer.rate = 1.2  # each step is worse than the one before
    optimizer.minimize(square_error(p, 2))
    assert p.item() == 5


def test_a_true_result_of_the_callback_ends_the_search():
    p, losses = dl.Parameter([5.0]), []
    stop = lambda loss: losses.append(loss) or len(losses) == 3
    assert SteepestDescent([p]).minimize(square_error(p, 2), stop) == "stopped"
    assert len(losses) == 3


def test_a_trainer_drives_it():
    x = numpy.linspace(-1, 1, 32, dtype="float32").reshape(-1, 1)
    network = dl.Network([dl.Dense(1, 1, seed=0)])
    optimizer = SteepestDescent(network.parameters(), max_iterations=300)
    trainer = dl.Trainer(network, dl.mean_squared_error, optimizer, device="cpu", seed=0)
    history = trainer.fit(x, 3 * x + 1, verbose=False)
    assert len(history) == 300
    assert history.settings["optimizer"] == "SteepestDescent"
    assert history.stop_reason == "all iterations made"
    assert list(history.steps) == ["loss"]
    assert history.steps["loss"][-1] < 1e-6
