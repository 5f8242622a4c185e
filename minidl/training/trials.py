"""Trials: short trainings that say something about a network and its optimizer, and are undone afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy

from minidl.optimizers.optimizer import Optimizer
from minidl.training.arrays import Batch
from minidl.training.capture import capture, restore
from minidl.training.exclusive import training
from minidl.training.loaders import Loader
from minidl.training.options import Options
from minidl.training.run_state import RunState
from minidl.training.steps import CompiledSteps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How much of the smoothed loss so far is kept at each step of a range test.
SMOOTHING = 0.9
#: A range test ends where the smoothed loss is this many times its lowest value.
EXPLODED = 4.0


@dataclass(repr=False)
class RangeTest:
    """What a training with a growing learning rate has shown.

    Attributes
    ----------
    rates, losses : of each step
    smoothed : the losses, averaged over the latest steps
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss was lowest."""
        return self.rates[int(numpy.argmin(self.smoothed))] / 10

    def __repr__(self) -> str:
        return (
            f"RangeTest({len(self.rates)} steps, rates {self.rates[0]:.2g} to {self.rates[-1]:.2g}; "
            f"suggestion {self.suggestion:.2g})"
        )

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """Draw the loss over the learning rate; return the figure, written to a file if one is named."""
        from minidl.figures import Figure, write
        from minidl.training.plot import BLUE, ORANGE

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.rates, self.losses, color=BLUE, alpha=0.3, linewidth=0.8, label="mini-batches")
        axes.plot(self.rates, self.smoothed, color=BLUE, linewidth=1.8, label="smoothed")
        axes.axvline(self.suggestion, color=ORANGE, label=f"suggestion: {self.suggestion:.2g}")
        lowest, first = min(self.smoothed), self.smoothed[0]
        margin = 0.1 * (first - lowest) or 0.1 * abs(first) or 1.0
        axes.set_ylim(lowest - margin, first + 3 * margin)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")
        write(figure, path, dpi=120)
        return figure


@dataclass(repr=False)
class OverfitTest:
    """What a training on one mini-batch alone has shown.

    Attributes
    ----------
    losses : of each step
    share : which share of the first loss the last one may be
    unchanged : the Parameters that no step has changed
    """

    losses: list[float]
    share: float
    floor: float
    unchanged: list[str]

    def __bool__(self) -> bool:
        """Return whether the mini-batch was learned."""
        fell = self.losses[-1] - self.floor <= self.share * (self.losses[0] - self.floor)
        return fell and not self.unchanged

    def __repr__(self) -> str:
        first, last = self.losses[0], self.losses[-1]
        text = f"on one mini-batch, the loss went from {first:.4g} to {last:.4g} in {len(self.losses)} steps"
        if self:
            return f"{text}: the network can learn it"
        if self.unchanged:
            text += f"; these Parameters have not changed: {', '.join(self.unchanged)}"
        if not math.isfinite(last):
            return f"{text}; a lower learning rate may help"
        return (
            f"{text}. A network that cannot learn a mini-batch by heart often has a mistake in its forward, "
            "its loss or its targets, a learning rate that is far too low or high, or too much dropout"
        )


@contextmanager
def _undone(steps: CompiledSteps, loader: Loader) -> Iterator[Optimizer]:
    """Give the optimizer for some steps in training mode; bring everything back to what it was."""
    optimizer = steps.optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"trials make steps on mini-batches, which {type(optimizer).__name__} does not: use Adam or SGD"
        )
    run, schedule = RunState(steps, loader, None, Options()), optimizer.schedule
    before = capture(run)
    with training(steps.network), steps.network.evaluating():  # modes come back as they were
        steps.network.train()
        try:
            yield optimizer
        finally:
            restore(run, before)
            optimizer.schedule = schedule


def _endless(loader: Loader) -> Iterator[Batch]:
    epoch = 1
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def range_test(steps: CompiledSteps, loader: Loader, low: float, high: float, count: int) -> RangeTest:
    """Train with learning rates that grow from step to step, until the loss explodes."""
    if not 0 < low < high < math.inf or count < 2:
        raise ValueError(f"a range test needs 0 < low < high and 2 steps or more, got {low}, {high}, {count}")
    result, average = RangeTest(), 0.0
    with _undone(steps, loader) as optimizer, numpy.errstate(all="ignore"):
        for i, batch in zip(range(count), _endless(loader), strict=False):
            rate = low * (high / low) ** (i / (count - 1))
            optimizer.learning_rate = rate
            loss = _loss_of(steps.train_step(*steps.prepared(*batch))[0])
            if not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            result.rates.append(rate)
            result.losses.append(loss)
            result.smoothed.append(average / (1 - SMOOTHING ** (i + 1)))
            if i > 10 and result.smoothed[-1] > EXPLODED * min(result.smoothed):
                break
    if not result.rates:
        raise FloatingPointError("the loss was not finite at the first step")
    return result


def overfit_test(steps: CompiledSteps, loader: Loader, count: int, share: float, floor: float) -> OverfitTest:
    """Train on the first mini-batch alone."""
    if count < 1 or not 0 < share < 1:
        raise ValueError(f"an overfit test needs 1 step or more and a share below 1, got {count}, {share}")
    losses: list[float] = []
    with _undone(steps, loader), numpy.errstate(all="ignore"):
        before = {name: x.numpy() for name, x in steps.network.named_parameters()}
        batch = steps.prepared(*next(iter(loader.epoch(1))))
        for _ in range(count):
            losses.append(_loss_of(steps.train_step(*batch)[0]))
            if not math.isfinite(losses[-1]):
                break
        trained = {id(parameter) for parameter in steps.optimizer.parameters}
        unchanged = [
            name
            for name, x in steps.network.named_parameters()
            if id(x) in trained and x.learning_rate_factor != 0 and (x.numpy() == before[name]).all()
        ]
    return OverfitTest(losses, share, floor, unchanged)


def _loss_of(observed: Any) -> float:
    value = observed.numpy()
    return float(value) if value.ndim == 0 else float(value[0] / value[1])
