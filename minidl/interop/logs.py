"""Logs: callbacks that write the figures of a training where other tools read them.

Pass one to ``fit(callbacks=[...])``. Rows are those of the History: ``steps``, ``epochs`` and ``validation``.
To write somewhere else, subclass `Log` and say what is done with a row.
"""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.training import Callback, History

if TYPE_CHECKING:
    from minidl.training.run_state import RunState

TABLES = ("steps", "epochs", "validation")


class Log(Callback):
    """Hands every row of a training's history on, once; a subclass does something with it.

    Parameters
    ----------
    frequency : after how many steps new rows are handed on, besides at the end of each epoch
    """

    def __init__(self, frequency: int = 50):
        if frequency < 1:
            raise ValueError(f"{type(self).__name__}: frequency is a number of steps, got {frequency}")
        self.frequency = frequency

    def __repr__(self) -> str:
        from minidl.training.callbacks import with_settings

        return with_settings(self)

    def begin(self, settings: dict[str, Any]) -> None:
        """Act before the first row; the settings are those of the training, as JSON can hold them."""

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Act on a row of a table: the figures after a step, of an epoch, or of a validation."""
        raise NotImplementedError

    def finish(self) -> None:
        """Act after the last row, also where an error ended the training."""

    def start(self, run: RunState) -> None:
        """Begin; of a resumed training, behind the rows that are there already."""
        self._seen = {table: _length(run.history, table) for table in TABLES}
        self.begin(run.history.settings)

    def step(self, run: RunState) -> None:
        """Hand on new rows now and then."""
        if run.step % self.frequency == 0:
            self._hand_on(run.history)

    def epoch(self, run: RunState) -> None:
        """Hand on new rows."""
        self._hand_on(run.history)

    def end(self, run: RunState) -> None:
        """Hand on the last rows, and finish."""
        try:
            self._hand_on(run.history)
        finally:
            self.finish()

    def _hand_on(self, history: History) -> None:
        for table in TABLES:
            columns, count = getattr(history, table), _length(history, table)
            for i in range(self._seen[table], count):
                figures = {name: column[i] for name, column in columns.items()}
                self.row(table, figures.pop("step", i + 1), figures)
            self._seen[table] = count


def _length(history: History, table: str) -> int:
    return max(map(len, getattr(history, table).values()), default=0)


class CSVLog(Log):
    """Appends the rows of one table to a CSV file, with the names of the columns in its first line.

    Parameters
    ----------
    path : the file; a training that is resumed goes on in it
    table : ``"steps"``, ``"epochs"`` or ``"validation"``
    """

    def __init__(self, path: str | PathLike[str], table: str = "epochs", frequency: int = 50):
        super().__init__(frequency)
        if table not in TABLES:
            raise ValueError(f"CSVLog: table is one of {', '.join(TABLES)}; got {table!r}")
        self.path, self.table = Path(path), table

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Append a row."""
        if table != self.table:
            return
        import csv

        with open(self.path, "a", newline="") as file:
            writer = csv.writer(file)
            if not file.tell():
                writer.writerow(["step", *figures])
            writer.writerow([step, *figures.values()])


class JSONLinesLog(Log):
    """Appends every row to a file, as an object in JSON on a line: its table, its step and its figures.

    The first line has the settings. NaN and infinity become null: JSON has no such numbers.
    """

    def __init__(self, path: str | PathLike[str], frequency: int = 50):
        super().__init__(frequency)
        self.path = Path(path)

    def _append(self, content: dict[str, Any]) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps(content, allow_nan=False) + "\n")

    def begin(self, settings: dict[str, Any]) -> None:
        """Append the settings."""
        self._append({"table": "settings", **_finite(settings)})

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Append a row."""
        self._append({"table": table, "step": step, **_finite(figures)})


class TensorBoardLog(Log):
    """Writes event files for TensorBoard, with the package tensorboardX.

    Parameters
    ----------
    folder : where; TensorBoard shows the folders in one folder as runs
    """

    def __init__(self, folder: str | PathLike[str], frequency: int = 50):
        super().__init__(frequency)
        self.folder = str(folder)

    def begin(self, settings: dict[str, Any]) -> None:
        """Open a file, and write the settings."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(self.folder)
        self._writer.add_text("settings", json.dumps(_finite(settings), indent=1))

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Write the figures as scalars, such as ``validation/loss``."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{table}/{name}", value, step)

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbLog(Log):
    """Logs to Weights & Biases, or into a folder: ``WandbLog(mode="offline")``.

    Parameters
    ----------
    options : those of ``wandb.init``
    """

    def __init__(self, frequency: int = 50, **options: Any):
        super().__init__(frequency)
        self.options = options

    def begin(self, settings: dict[str, Any]) -> None:
        """Begin a run with the settings as its configuration."""
        import wandb

        self._run = wandb.init(config=_finite(settings), **self.options)

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Log a row with its step as a figure: rows of several tables have one step."""
        self._run.log({f"{table}/{name}": value for name, value in figures.items()} | {f"{table}/step": step})

    def finish(self) -> None:
        """End the run."""
        self._run.finish()


class MLflowLog(Log):
    """Logs a run of MLflow, into the folder or the server of ``mlflow.set_tracking_uri``.

    Parameters
    ----------
    options : those of ``mlflow.start_run``
    """

    def __init__(self, frequency: int = 50, **options: Any):
        super().__init__(frequency)
        self.options = options

    def begin(self, settings: dict[str, Any]) -> None:
        """Begin a run with the settings as its parameters."""
        import mlflow

        self._mlflow = mlflow
        mlflow.start_run(**self.options)
        mlflow.log_params(_finite(settings))

    def row(self, table: str, step: int, figures: dict[str, float]) -> None:
        """Log the figures, such as ``validation/loss``."""
        self._mlflow.log_metrics({f"{table}/{name}": value for name, value in figures.items()}, step=step)

    def finish(self) -> None:
        """End the run."""
        self._mlflow.end_run()


def _finite(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the same with None for NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }
