"""Progress of a training: a bar, or a line after a number of steps."""

from __future__ import annotations

import sys
import time

from minidl.training.bars import has_bar, make_bar
from minidl.training.callbacks import Watcher
from minidl.training.notebook import NotebookBar, in_notebook
from minidl.training.run_state import RunState


def progress_display(line_frequency: int) -> Watcher:
    """Return a bar on a terminal and in a notebook, else lines for a log file."""
    if in_notebook():
        return Cell()
    return Bar() if has_bar() else Lines(line_frequency)


class Bar(Watcher):
    """A tqdm bar with the latest figures, updated at most ten times a second."""

    def start(self, run: RunState) -> None:
        """Show the bar; that of a resumed training starts where it was."""
        print(header(run), file=sys.stderr)
        self.bar = make_bar(
            total=run.total_steps,
            initial=run.step,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar:8}| {elapsed}<{remaining}{postfix}",
        )
        self.shown = 0.0

    def step(self, run: RunState) -> None:
        """Move the bar on."""
        self.bar.update()
        now = time.monotonic()
        if now - self.shown > 0.1:
            self.shown = now
            self._describe(run)

    def _describe(self, run: RunState) -> None:
        self.bar.set_description_str(_epoch(run), refresh=False)
        self.bar.set_postfix_str(status(run, short=True))

    def say(self, text: str) -> None:
        """Write a remark above the bar."""
        self.bar.write(text, file=sys.stderr)

    def end(self, run: RunState) -> None:
        """Leave the bar as it is, with the last figures."""
        if len(run.history):
            self._describe(run)
        self.bar.close()


class Cell(Watcher):
    """A bar in the output of a notebook's cell, with the latest figures, which stays when it is saved."""

    def start(self, run: RunState) -> None:
        """Show what is trained, and the bar; that of a resumed training starts where it was."""
        print(header(run))
        self.bar = NotebookBar(run.total_steps, _epoch(run), run.step)

    def step(self, run: RunState) -> None:
        """Move the bar on."""
        self.bar.done = run.step
        if self.bar.is_due():
            self._show(run)

    def _show(self, run: RunState) -> None:
        self.bar.done, self.bar.description, self.bar.figures = run.step, _epoch(run), status(run, short=True)
        self.bar.show()

    def say(self, text: str) -> None:
        """Print a remark; it comes below the bar."""
        print(text)

    def end(self, run: RunState) -> None:
        """Leave the bar as it is, with the last figures and why the training ended."""
        self._show(run)
        print(f"{run.history.stop_reason} after {run.history.seconds:.1f} s")


class Lines(Watcher):
    """A line after every ``frequency`` steps."""

    def __init__(self, frequency: int):
        self.frequency = frequency
        self.last = 0

    def start(self, run: RunState) -> None:
        """Show what is trained, and where."""
        print(header(run), flush=True)

    def step(self, run: RunState) -> None:
        """Show the figures if it is time."""
        if run.step % self.frequency == 0:
            self._line(run)

    def _line(self, run: RunState) -> None:
        self.last = run.step
        of = f"/{run.total_steps}" if run.total_steps else ""
        print(f"{_epoch(run)}, step {run.step}{of}: {status(run)}", flush=True)

    def say(self, text: str) -> None:
        """Print a remark."""
        print(text, file=sys.stderr, flush=True)

    def end(self, run: RunState) -> None:
        """Show the last figures, and why the training ended."""
        if self.last != run.step and len(run.history):
            self._line(run)
        print(f"{run.history.stop_reason} after {run.history.seconds:.1f} s", flush=True)


def header(run: RunState) -> str:
    """Return what is trained, on how much, on which device, and why not on a GPU if the device was "auto"."""
    observations = run.loader.observations
    parts = [f"training {run.network.parameter_count():,} parameters"]
    parts += [f" on {observations:,} observations"] if observations else []
    parts += [f", on {run.device}" if observations else f" on {run.device}"]
    why = run.trainer.why_cpu
    parts += [f" ({why.partition(';')[0]})"] if why else []
    return "".join(parts)


def _epoch(run: RunState) -> str:
    return f"epoch {min(run.epoch, run.options.epochs)}/{run.options.epochs}"


def status(run: RunState, short: bool = False) -> str:
    """Return the latest figures in a line; a short one names those of the validation only once."""
    history = run.history
    training = _latest(history.steps)
    rate = training.pop("learning rate", None)
    validation = _latest(history.validation)
    parts = [f"{name} {value}" for name, value in training.items()]
    if validation and short:
        parts.append(f"validation {', '.join(validation.values())}")
    elif validation:
        parts += [f"validation {name} {value}" for name, value in validation.items()]
    if rate is not None:
        parts.append(f"{'rate' if short else 'learning rate'} {rate}")
    return ", ".join(parts)


def _latest(table: dict[str, list[float]]) -> dict[str, str]:
    return {
        name.replace("_", " "): f"{column[-1]:.4g}"
        for name, column in table.items()
        if column and name != "step"
    }
