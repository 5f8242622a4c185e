"""PlotFile: the picture of a training that is written at its end."""

from __future__ import annotations

import warnings
from os import PathLike, fspath

from minidl.training.callbacks import Callback
from minidl.training.run_state import RunState


class PlotFile(Callback):
    """Writes the plot of a training to a file, also of one that was ended by an error."""

    def __init__(self, path: str | PathLike[str]):
        self.path = path

    def end(self, run: RunState) -> None:
        """Write the plot; a failure is a warning, and replaces neither the History nor an error."""
        try:
            run.history.plot(self.path)
        except Exception as error:
            warnings.warn(f"the plot {fspath(self.path)!r} could not be written: {error}", stacklevel=2)
