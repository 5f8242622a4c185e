import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights

SETTINGS = [False, {"kernels": "numpy"}, {"kernels": "c"}]


def sgd(rate=0.1):
    return lambda network: dl.SGD(network.parameters(), rate)


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
def test_the_rate_falls_where_the_validation_gets_no_better(make_trainer, data, compile):
    x, y = data
    trainer = make_trainer(optimizer=sgd(), compile=compile)
    options = {"validation_data": (x, -y), "validation_frequency": 1, "epochs": 4, "batch_size": 48, **QUIET}
    history = trainer.fit(x, y, callbacks=[dl.ReduceOnPlateau(0.5, 2)], **options)
    rate, best, waited, rates = 0.1, numpy.inf, 0, []
    for loss in history.validation["loss"]:  # written out
        rates.append(rate)
        better = best == numpy.inf or loss < best * (1 - 1e-4)
        best, waited = (loss, 0) if better else (best, waited + 1)
        if waited == 2:
            rate, waited = rate / 2, 0
    assert history.steps["learning_rate"] == pytest.approx(rates)
    assert rates[-1] < 0.1


def test_a_metric_whose_larger_values_are_better(make_trainer, data):
    x, y = data
    rates = []
    for objective in (None, "r_squared"):
        trainer = make_trainer(optimizer=sgd(0.01), metrics=[dl.r_squared])
        lower = dl.ReduceOnPlateau(0.5, 1, objective="r_squared", threshold=0.0)
        options = {
            "validation_data": (x, y),
            "validation_frequency": 1,
            "epochs": 2,
            "batch_size": 48,
            **QUIET,
        }
        history = trainer.fit(x, y, callbacks=[lower], objective=objective or "loss", **options)
        assert (numpy.diff(history.validation["r_squared"]) > 0).all()
        rates.append(history.steps["learning_rate"])
    assert rates == [[pytest.approx(0.01)] * 4] * 2


@pytest.mark.parametrize("stop", [3, 5, 6])
def test_it_is_resumed_bit_for_bit(make_trainer, data, tmp_path, stop):
    x, y = data
    options = {"validation_data": (x, -y), "validation_frequency": 1, "epochs": 3, "batch_size": 32, **QUIET}
    whole, first, second = (make_trainer(optimizer=sgd()) for _ in range(3))
    expected = whole.fit(x, y, callbacks=[dl.ReduceOnPlateau(0.5, 2)], **options)
    options |= {"checkpoint_folder": tmp_path, "resume": True}
    first.fit(x, y, callbacks=[dl.ReduceOnPlateau(0.5, 2), lambda fit: fit.step == stop], **options)
    history = second.fit(x, y, callbacks=[dl.ReduceOnPlateau(0.5, 2)], **options)
    assert history.steps == expected.steps
    assert "resumed" not in history.settings
    assert_same_weights(whole, second)


def test_the_minimum_and_what_is_said(make_trainer, data, capsys):
    x, y = data
    lower = dl.ReduceOnPlateau(0.1, 1, minimum=0.005, threshold=1.0)  # nothing is better enough
    history = make_trainer(optimizer=sgd()).fit(x, y, epochs=5, batch_size=96, callbacks=[lower])
    assert history.steps["learning_rate"] == pytest.approx([0.1, 0.1, 0.01, 0.005, 0.005])
    assert "learning rate 0.01 after step 2: no better loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1.0}, "factor must be between 0 and 1, got 1.0"),
        ({"factor": 0}, "factor must be between 0 and 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"threshold": -1.0}, "must not be negative"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        dl.ReduceOnPlateau(**options)


def test_what_cannot_be_lowered_is_said_at_the_start(make_trainer, data):
    for optimizer in (sgd(dl.schedules.Step(0.1, 5)), "lbfgs"):
        with pytest.raises(ValueError, match="needs an optimizer with a constant learning rate"):
            make_trainer(optimizer=optimizer).fit(*data, callbacks=[dl.ReduceOnPlateau()], **QUIET)
    with pytest.raises(ValueError, match="there is no metric 'accuracy'"):
        make_trainer().fit(*data, callbacks=[dl.ReduceOnPlateau(objective="accuracy")], **QUIET)
