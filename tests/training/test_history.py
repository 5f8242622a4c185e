import json
import sys
import types

import numpy
import pytest

import minidl as dl
from minidl.training import bars, live_plot
from minidl.training.plot import smoothed

QUIET = {"verbose": False}


@pytest.fixture
def history(make_trainer, data):
    return make_trainer().fit(
        *data, epochs=6, batch_size=32, validation_data=data, validation_frequency=4, **QUIET
    )


# --- History --------------------------------------------------------------------------------------------


def test_json_and_back(history, tmp_path):
    text = history.to_json(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text()) == json.loads(text)
    back = dl.History.from_json(tmp_path / "history.json")
    assert back.steps == history.steps
    assert back.validation == history.validation
    assert back.epochs == history.epochs
    assert (back.best_step, back.stop_reason) == (history.best_step, history.stop_reason)


def test_values_that_are_not_finite_become_null(tmp_path):
    history = dl.History(steps={"loss": [1.0, float("nan"), float("inf")]})
    assert json.loads(history.to_json(tmp_path / "h.json"))["steps"]["loss"] == [1.0, None, None]
    assert numpy.isnan(dl.History.from_json(tmp_path / "h.json").steps["loss"][1:]).all()


def test_tables_have_columns_of_one_length(history):
    content = history.to_dict()
    for table, length in (("steps", 18), ("epochs", 6), ("validation", 5)):
        assert {len(column) for column in content[table].values()} == {length}


def test_it_says_what_happened(history):
    assert repr(history).startswith("History(18 steps, loss ")
    assert "validation loss" in repr(history)
    assert repr(dl.History()) == "History(0 steps, )"


# --- the picture ----------------------------------------------------------------------------------------


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_picture_shows_curves_bands_and_figures(history, tmp_path):
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
def test_pictures_of_odd_histories(history, tmp_path):
    history.plot(tmp_path / "picture.png")
    history.plot(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_smoothing_is_a_mean_of_neighbours():
    values = numpy.array([1.0, 2.0, 6.0, numpy.nan, 4.0])
    numpy.testing.assert_allclose(smoothed(values, 1), [1.0, 2.0, 6.0, 5.0, 4.0])
    numpy.testing.assert_allclose(smoothed(numpy.arange(20.0) ** 2, 3)[9:16], numpy.arange(9.0, 16) ** 2 + 4)
    numpy.testing.assert_array_equal(smoothed(values[:3], 0), values[:3])


def test_a_path_gets_the_picture_at_the_end(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, plot=tmp_path / "a.png", **QUIET)
    make_trainer().fit(*data, epochs=1, plot=str(tmp_path / "b.png"), **QUIET)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_a_live_plot_in_a_notebook_is_renewed(make_trainer, data, monkeypatch):
    drawn = []

    class Handle:
        def update(self, figure):
            drawn.append(texts(figure))

    def display(figure, display_id):
        drawn.append(texts(figure))
        return Handle()

    fake = types.ModuleType("IPython.display")
    fake.display = display
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(live_plot, "LIVE_SECONDS", 0.0)
    make_trainer().fit(*data, epochs=2, batch_size=32, plot=True, **QUIET)
    assert len(drawn) == 1 + 6 + 1
    assert "training, epoch 2 of 2" in drawn[5]
    assert "all epochs completed" in drawn[-1]


def test_a_live_plot_in_a_window_has_a_stop_button(make_trainer, data, monkeypatch):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")  # draws what a window would show
    monkeypatch.setattr(live_plot, "has_windows", lambda: True)
    monkeypatch.setattr(live_plot, "LIVE_SECONDS", 0.0)
    monkeypatch.setattr("matplotlib.figure.Figure.show", lambda self: None)
    presses = []

    def press(fit):
        button = fit.live_plot.button
        if (fit.state, fit.step) == ("step", 5):
            presses.append(button.label.get_text())
            button._observers.process("clicked", None)

    try:
        history = make_trainer().fit(*data, epochs=9, batch_size=32, plot=True, callbacks=[press], **QUIET)
        assert presses == ["Stop"]
        assert history.stop_reason == "stopped by the Stop button"
        assert len(history) == 5
        assert "stopped by the Stop button" in texts(pyplot.gcf())
    finally:
        pyplot.close("all")
        pyplot.ioff()


def test_a_live_plot_without_any_place_to_draw_says_so(make_trainer, data, capsys):
    make_trainer().fit(*data, epochs=1, plot=True)
    assert "there is no notebook and no window to draw in" in capsys.readouterr().err


# --- progress -------------------------------------------------------------------------------------------


def test_the_header_says_why_there_is_no_gpu(make_trainer, data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    make_trainer(device="auto").fit(*data, epochs=1, plot=False)
    assert "96 observations, on cpu (CuPy is not installed)\n" in capsys.readouterr().out


def test_lines_where_nobody_watches(make_trainer, data, capsys):
    make_trainer().fit(*data, epochs=3, batch_size=32, validation_data=data, verbose_frequency=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "training 114 parameters on 96 observations, on cpu"
    assert lines[1].startswith("epoch 2/3, step 4/9: loss ")
    assert [line.partition(":")[0] for line in lines[1:4]] == [
        "epoch 2/3, step 4/9",
        "epoch 3/3, step 8/9",
        "epoch 3/3, step 9/9",
    ]
    assert "validation loss" in lines[3]
    assert "learning rate 0.001" in lines[3]
    assert lines[4].startswith("all epochs completed after ")


def test_a_bar_where_somebody_watches(make_trainer, data, capsys, monkeypatch):
    monkeypatch.setattr(bars.sys.stderr, "isatty", lambda: True)
    trainer = make_trainer()
    trainer.fit(*data, epochs=3, batch_size=32, validation_data=data)
    trainer.predict(data[0], batch_size=10, verbose=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "epoch 3/3 100%" in output.err
    assert "validation" in output.err
    assert "rate 0.001" in output.err
    assert "predicting" in output.err


def test_quiet(make_trainer, data, capsys):
    make_trainer().fit(*data, epochs=1, validation_data=data, **QUIET)
    make_trainer().predict(data[0])
    output = capsys.readouterr()
    assert output.out == output.err == ""
