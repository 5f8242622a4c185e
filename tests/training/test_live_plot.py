from minidl.training import live_plot
from tests.training.helpers import QUIET, texts


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
