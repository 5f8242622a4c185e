import numpy
import pytest

import minidl as dl
from minidl.training.plot import smoothed
from tests.training.helpers import QUIET, texts


def test_the_plot_shows_curves_bands_and_figures(history, tmp_path):
    figure = history.plot(tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    rmse, loss, _ = figure.axes
    assert (rmse.get_ylabel(), loss.get_ylabel()) == ("RMSE", "loss")
    raw, smooth, validation = loss.lines
    numpy.testing.assert_array_equal(raw.get_ydata(), history.steps["loss"])
    assert len(smooth.get_ydata()) == 18
    numpy.testing.assert_array_equal(validation.get_xdata(), history.validation["step"])
    numpy.testing.assert_array_equal(validation.get_ydata(), history.validation["loss"])
    assert len(loss.patches) == 3  # every second epoch is a band
    shown = texts(figure)
    assert "all epochs completed" in shown
    assert shown[shown.index("validation loss") + 1] == f"{min(history.validation['loss']):.4g}"
    assert shown[shown.index("optimizer") + 1] == "Adam"
    assert shown[shown.index("epoch") + 1] == "6 of 6"


@pytest.mark.parametrize(
    "history",
    [
        dl.History(),
        dl.History(steps={"loss": [1.0]}),
        dl.History(steps={"loss": [float("nan")] * 3}, stop_reason="diverged"),
        dl.History(steps={"loss": [2.0] * 500}, epochs={"epoch": [1], "step": [500], "loss": [2.0]}),
        dl.History(steps={"loss": [1.0, 2.0]}, validation={"step": [2], "loss": [1.0], "auc": [0.5]}),
    ],
    ids=["empty", "one step", "nan", "constant", "metric of validation alone"],
)
def test_plots_of_odd_histories(history, tmp_path):
    history.plot(tmp_path / "picture.png")
    history.plot(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_smoothing_is_a_mean_of_neighbours():
    values = numpy.array([1.0, 2.0, 6.0, numpy.nan, 4.0])
    numpy.testing.assert_allclose(smoothed(values, 1), [1.0, 2.0, 6.0, 5.0, 4.0])
    numpy.testing.assert_allclose(smoothed(numpy.arange(20.0) ** 2, 3)[9:16], numpy.arange(9.0, 16) ** 2 + 4)
    numpy.testing.assert_array_equal(smoothed(values[:3], 0), values[:3])


def test_a_path_gets_the_plot_at_the_end(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, plot=tmp_path / "a.png", **QUIET)
    make_trainer().fit(*data, epochs=1, plot=str(tmp_path / "b.png"), **QUIET)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert (tmp_path / "b.png").stat().st_size > 10_000
