"""What people watch while a network trains: a bar, or a line every so often."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidl.training.fit import Fit


def has_bar() -> bool:
    """Say whether somebody watches: the output goes to a terminal or to a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def make_bar(**options: Any) -> Any:
    """Return a tqdm bar that suits a terminal or a notebook."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets a text bar
        from tqdm.auto import tqdm

        return tqdm(**options)


def watched(items: Iterable[Any], total: int | None, description: str, verbose: bool) -> Iterator[Any]:
    """Yield the items, with a bar if it is asked for and somebody watches."""
    if not (verbose and has_bar()):
        yield from items
        return
    with make_bar(total=total, desc=description, unit="batch", leave=False) as bar:
        for item in items:
            yield item
            bar.update()


class Quiet:
    """Shows nothing."""

    def start(self, fit: Fit) -> None:
        """Show the beginning."""

    def step(self, fit: Fit) -> None:
        """Show one more step."""

    def say(self, text: str) -> None:
        """Show a remark."""

    def end(self, fit: Fit) -> None:
        """Show the end."""


class Bar(Quiet):
    """A tqdm bar with the latest figures, renewed ten times a second at most."""

    def start(self, fit: Fit) -> None:
        """Show the bar; of a resumed training, from where it was."""
        print(header(fit), file=sys.stderr)
        self.bar = make_bar(
            total=fit.total_steps,
            initial=fit.step,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar:8}| {elapsed}<{remaining}{postfix}",
        )
        self.shown = 0.0

    def step(self, fit: Fit) -> None:
        """Move the bar on."""
        self.bar.update()
        now = time.monotonic()
        if now - self.shown > 0.1:
            self.shown = now
            self._describe(fit)

    def _describe(self, fit: Fit) -> None:
        self.bar.set_description_str(_epoch(fit), refresh=False)
        self.bar.set_postfix_str(status(fit, short=True))

    def say(self, text: str) -> None:
        """Write a remark above the bar."""
        self.bar.write(text, file=sys.stderr)

    def end(self, fit: Fit) -> None:
        """Leave the bar as it is, with the last figures."""
        if len(fit.history):
            self._describe(fit)
        self.bar.close()


class Lines(Quiet):
    """A line every so many steps."""

    def __init__(self, frequency: int):
        self.frequency = frequency
        self.last = 0

    def start(self, fit: Fit) -> None:
        """Show what is trained, and where."""
        print(header(fit), flush=True)

    def step(self, fit: Fit) -> None:
        """Show the figures if it is time."""
        if fit.step % self.frequency == 0:
            self._line(fit)

    def _line(self, fit: Fit) -> None:
        self.last = fit.step
        of = f"/{fit.total_steps}" if fit.total_steps else ""
        print(f"{_epoch(fit)}, step {fit.step}{of}: {status(fit)}", flush=True)

    def say(self, text: str) -> None:
        """Print a remark."""
        print(text, file=sys.stderr, flush=True)

    def end(self, fit: Fit) -> None:
        """Show the last figures, and why the training ended."""
        if self.last != fit.step and len(fit.history):
            self._line(fit)
        print(f"{fit.history.stop_reason} after {fit.history.seconds:.1f} s", flush=True)


def header(fit: Fit) -> str:
    """Return what is trained, on how much, and where, and why not on a GPU if one was hoped for."""
    observations = fit.source.observations
    parts = [f"training {fit.network.parameter_count():,} parameters"]
    parts += [f" on {observations:,} observations"] if observations else []
    parts += [f", on {fit.device}" if observations else f" on {fit.device}"]
    why = fit.trainer.why_cpu
    parts += [f" ({why.partition(';')[0]})"] if why else []
    return "".join(parts)


def _epoch(fit: Fit) -> str:
    return f"epoch {min(fit.epoch, fit.options.epochs)}/{fit.options.epochs}"


def status(fit: Fit, short: bool = False) -> str:
    """Return the latest figures in a line; a short one names those of the validation only once."""
    history = fit.history
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
