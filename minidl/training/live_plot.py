"""The plot of a training while it runs, with a Stop button: in a notebook or in a window."""

from __future__ import annotations

import time
from typing import Any

from minidl.training.callbacks import Watcher
from minidl.training.notebook import StopButton, in_notebook, show, stop_button
from minidl.training.plot import draw, has_windows, training_figure
from minidl.training.run_state import RunState

#: How many seconds pass at least between two drawings.
LIVE_SECONDS = 1.0

#: How many times as long as a drawing takes the training goes on undisturbed.
PAUSE = 10

BUTTON = "stopped by the Stop button"


def live_plot() -> Watcher:
    """Return what shows the plot here: in a notebook or in a window; where there is neither, it says so."""
    if in_notebook():
        return NotebookPlot()
    return WindowPlot() if has_windows() else NoPlot()


class LivePlot(Watcher):
    """Draws the plot again now and then: at most once a second, and for a tenth of the time."""

    def __init__(self) -> None:
        self.next_drawing = 0.0
        self.figure: Any = None

    def step(self, run: RunState) -> None:
        """Draw again, if it is time."""
        started = time.monotonic()
        if started >= self.next_drawing:
            self.draw(run, f"training, epoch {run.epoch} of {run.options.epochs}")
            ended = time.monotonic()
            self.next_drawing = ended + max(LIVE_SECONDS, PAUSE * (ended - started))

    def end(self, run: RunState) -> None:
        """Draw the final state."""
        self.draw(run, "")

    def draw(self, run: RunState, running: str) -> None:
        """Draw the figure, and show it; ``running`` is what the training does, or empty at its end."""
        draw(self.figure, run.history, running)


class NotebookPlot(LivePlot):
    """The plot as a picture in the output of a cell, renewed in place, with a Stop button above it."""

    def __init__(self) -> None:
        super().__init__()
        self.button: StopButton | None = None

    def start(self, run: RunState) -> None:
        """Show the button and the empty plot."""
        self.button = stop_button(lambda: run.stop(BUTTON))
        self.figure = training_figure(run.history, "training")
        self.handle = show(self.figure)

    def draw(self, run: RunState, running: str) -> None:
        """Draw the figure, and put it into the place of the one before."""
        super().draw(run, running)
        self.handle.update(self.figure)

    def end(self, run: RunState) -> None:
        """Draw the final state, which stays in the notebook, and take the button away."""
        super().end(run)
        if self.button is not None:
            self.button.remove()


class WindowPlot(LivePlot):
    """The plot in a window with a Stop button; the window stays open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.button: Any = None

    def start(self, run: RunState) -> None:
        """Open the window."""
        from matplotlib import pyplot

        pyplot.ion()
        self.figure = pyplot.figure("Training progress", figsize=(11, 6.5), layout="constrained")
        self.figure.show()

    def draw(self, run: RunState, running: str) -> None:
        """Draw the figure and, while the training runs, the button, which drawing clears away."""
        super().draw(run, running)
        if running:
            from matplotlib.widgets import Button

            self.button = Button(self.figure.add_axes((0.9, 0.94, 0.09, 0.05)), "Stop")
            self.button.on_clicked(lambda event: run.stop(BUTTON))
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()


class NoPlot(Watcher):
    """Says that there is no place to draw in."""

    def start(self, run: RunState) -> None:
        """Say it."""
        run.display.say(
            "plot=True: there is no notebook and no window to draw in; plot='FILE.png' writes a file"
        )
