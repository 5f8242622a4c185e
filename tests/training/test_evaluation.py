import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET


def test_functions_as_metrics_see_all_predictions_at_once(make_trainer, data):
    x, y = data

    def largest_error(prediction, target):
        return abs(prediction - target).max()

    trainer = make_trainer(metrics=[largest_error])
    figures = trainer.evaluate(x, y, batch_size=10)
    assert figures["largest_error"] == pytest.approx(numpy.abs(trainer.predict(x) - y).max())
    history = trainer.fit(x, y, epochs=1, validation_data=(x, y), batch_size=32, **QUIET)
    assert list(history.validation) == ["step", "loss", "largest_error"]
    assert list(history.steps) == ["loss", "largest_error", "learning_rate"]


def test_metrics_that_cannot_be_computed_in_a_step(data):
    x, y = data
    target = (y[:, :1] > 0).astype("float32")
    network = dl.Network([dl.Dense(4, 1, seed=0), dl.Sigmoid()])
    trainer = dl.Trainer(network, dl.binary_cross_entropy, metrics=[dl.auc, dl.mae], seed=0, device="cpu")
    history = trainer.fit(
        x, target, epochs=30, batch_size=32, validation_data=(x, target), objective="auc", **QUIET
    )
    assert "auc" not in history.steps
    best = max(range(len(history.validation["auc"])), key=lambda i: history.validation["auc"][i])
    assert history.best_step == history.validation["step"][best]  # a larger one is better
    assert trainer.evaluate(x, target)["auc"] == pytest.approx(history.validation["auc"][best])
