import numpy
import pytest

import minidl as dl
from minidl.training import metric_averages
from minidl.training.metric_averages import MetricAverages, PendingFigures


def test_means_are_weighted_by_observations():
    averages = MetricAverages({"mae": dl.mae})
    for observations, loss, mae in ((3, 1.0, 4.0), (1, 5.0, 0.0)):
        own = averages.add(observations, [numpy.asarray(loss), numpy.array([mae, 1.0])])
        assert own == {"loss": loss, "mae": mae}
    assert averages.observations == 4
    assert averages.figures() == {"loss": 2.0, "mae": 3.0}


def test_a_metric_is_finished_after_averaging():
    """The RMSE of all is the root of one mean, not a mean of roots."""
    averages = MetricAverages({"rmse": dl.rmse})
    assert averages.add(1, [numpy.asarray(0.0), numpy.array([9.0, 1.0])])["rmse"] == 3.0
    averages.add(1, [numpy.asarray(0.0), numpy.array([23.0, 1.0])])
    assert averages.figures()["rmse"] == 4.0


def test_a_loss_of_weighted_observations_is_the_ratio_of_two_means():
    averages = MetricAverages({})
    assert averages.add(2, [numpy.array([3.0, 1.5])]) == {"loss": 2.0}
    averages.add(2, [numpy.array([0.0, 0.0])])  # these count for nothing
    assert averages.figures() == {"loss": 2.0}


def test_clear_starts_again():
    averages = MetricAverages({})
    averages.add(2, [numpy.asarray(7.0)])
    averages.clear()
    averages.add(1, [numpy.asarray(1.0)])
    assert averages.figures() == {"loss": 1.0}


def test_float32_figures_are_added_up_in_float64():
    averages = MetricAverages({})
    for _ in range(1000):
        averages.add(100_000, [numpy.asarray(0.1, "float32")])
    assert averages.figures()["loss"] == pytest.approx(float(numpy.float32(0.1)), rel=1e-12)


def test_pending_figures_are_fetched_in_order_and_once(gpu):
    pending = PendingFigures()
    for i in range(3):
        pending.append(10 + i, [dl.tensor([1.0, i], device="gpu"), dl.tensor(float(i), device="gpu")])
    assert len(pending) == 3
    fetched = pending.fetch()
    assert [observations for observations, _ in fetched] == [10, 11, 12]
    for i, (_, (vector, number)) in enumerate(fetched):
        assert type(vector) is numpy.ndarray
        assert vector.tolist() == [1, i]
        assert number == i
    assert len(pending) == 0
    assert pending.fetch() == []


def test_pending_figures_are_due_some_time_after_the_last_fetch(monkeypatch):
    now = 100.0
    monkeypatch.setattr(metric_averages.time, "monotonic", lambda: now)
    pending = PendingFigures()
    assert not pending.are_due()
    now += metric_averages.FLUSH_SECONDS + 0.01
    assert pending.are_due()
    pending.fetch()
    assert not pending.are_due()
