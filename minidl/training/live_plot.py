"""The plot of a training while it runs, in a notebook or in a window with a Stop button."""

from __future__ import annotations

import sys
import time
from typing import Any

from minidl.training.callbacks import Watcher
from minidl.training.plot import draw, has_windows, training_figure
from minidl.training.run_state import RunState

#: How many seconds pass at least between two drawings.
LIVE_SECONDS = 1.0


class LivePlot(Watcher):
    """Shows the plot while the training runs, in a notebook or in a window with a Stop button.

    It is drawn again at most once a second. Where there is neither a notebook nor a display it shows
    nothing, and says so.
    """

    def __init__(self) -> None:
        self.shown = 0.0
        self.figure: Any = None
        self.handle: Any = None
        self.button: Any = None

    def start(self, run: RunState) -> None:
        """Open the window, or the place in the notebook."""
        if "ipykernel" in sys.modules:
            from IPython.display import display

            self.figure = training_figure(run.history, "training")
            self.handle = display(self.figure, display_id=True)
            return
        if has_windows():
            from matplotlib import pyplot

            pyplot.ion()
            self.figure = pyplot.figure("Training progress", figsize=(11, 6.5), layout="constrained")
            self.figure.show()
        else:
            run.display.say(
                "plot=True: there is no notebook and no window to draw in; plot='FILE.png' writes a file"
            )

    def step(self, run: RunState) -> None:
        """Draw again, if it is time."""
        now = time.monotonic()
        if self.figure is not None and now - self.shown > LIVE_SECONDS:
            self._draw(run, f"training, epoch {run.epoch} of {run.options.epochs}")
            self.shown = time.monotonic()

    def end(self, run: RunState) -> None:
        """Draw the final state; a window stays open."""
        if self.figure is not None:
            self._draw(run, "")

    def _draw(self, run: RunState, running: str) -> None:
        draw(self.figure, run.history, running)
        if self.handle is not None:
            self.handle.update(self.figure)
            return
        if running:
            from matplotlib.widgets import Button

            self.button = Button(self.figure.add_axes((0.9, 0.94, 0.09, 0.05)), "Stop")
            self.button.on_clicked(lambda event: run.stop("stopped by the Stop button"))
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()
