"""The picture of a training while it goes on, in a notebook or in a window with a Stop button."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from minidl.training.plot import draw, has_windows, training_figure

if TYPE_CHECKING:
    from minidl.training.fit import Fit

#: How often the picture is drawn anew, at most.
LIVE_SECONDS = 1.0


class LivePlot:
    """Shows the picture while the training goes on, in a notebook or in a window with a Stop button.

    It is renewed once a second at most. Where there is neither a notebook nor a display it shows
    nothing, and says so.
    """

    def __init__(self) -> None:
        self.shown = 0.0
        self.figure: Any = None
        self.handle: Any = None
        self.button: Any = None

    def start(self, fit: Fit) -> None:
        """Open the window, or the place in the notebook."""
        if "ipykernel" in sys.modules:
            from IPython.display import display

            self.figure = training_figure(fit.history, "training")
            self.handle = display(self.figure, display_id=True)
            return
        if has_windows():
            from matplotlib import pyplot

            pyplot.ion()
            self.figure = pyplot.figure("Training progress", figsize=(11, 6.5), layout="constrained")
            self.figure.show()
        else:
            fit.display.say(
                "plot=True: there is no notebook and no window to draw in; plot='FILE.png' writes"
            )

    def step(self, fit: Fit) -> None:
        """Draw again, if it is time."""
        now = time.monotonic()
        if self.figure is not None and now - self.shown > LIVE_SECONDS:
            self._draw(fit, f"training, epoch {fit.epoch} of {fit.options.epochs}")
            self.shown = time.monotonic()

    def end(self, fit: Fit) -> None:
        """Draw the final state; a window stays open."""
        if self.figure is not None:
            self._draw(fit, "")

    def _draw(self, fit: Fit, running: str) -> None:
        draw(self.figure, fit.history, running)
        if self.handle is not None:
            self.handle.update(self.figure)
            return
        if running:
            from matplotlib.widgets import Button

            self.button = Button(self.figure.add_axes((0.9, 0.94, 0.09, 0.05)), "Stop")
            self.button.on_clicked(lambda event: fit.stop("stopped by the Stop button"))
        self.figure.canvas.draw_idle()
        self.figure.canvas.flush_events()
