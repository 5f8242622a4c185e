"""Learning-rate schedules: functions from the number of steps made so far to a learning rate.

A schedule is Tensor arithmetic on the optimizer's step count, so a recorded step follows it without
any work outside. To count in epochs, multiply by the steps of an epoch. Every schedule is a
dataclass, and any function ``(step: Tensor) -> Tensor`` serves as well.

>>> import minidl as dl
>>> optimizer = dl.Adam([dl.Parameter(dl.ones(1))], learning_rate=dl.schedules.Cosine(1e-3, steps=1000))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minidl.primitives.elementwise import absolute, clip, cos, floor, maximum, where
from minidl.tensor import Tensor, tensor


class Schedule:
    """The base of the schedules: a function of the step count with a printable table of values."""

    def __post_init__(self) -> None:
        for name in ("steps", "period"):
            if not getattr(self, name, 1) > 0:
                raise ValueError(f"{type(self).__name__}: {name} must be positive, got {getattr(self, name)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate for a step, counted from 0, as a Tensor of its shape and dtype."""
        raise NotImplementedError

    def values(self, steps: int) -> list[float]:
        """Return the learning rates of the first steps, to look at or plot."""
        return [self(tensor(float(step), "float64")).item() for step in range(steps)]


def _progress(step: Tensor, steps: float) -> Tensor:
    """Return how far the step is on the way to ``steps``, from 0 to 1."""
    return clip(step / steps, 0.0, 1.0)


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate at every step."""

    learning_rate: float

    def __call__(self, step: Tensor) -> Tensor:
        """Return the learning rate."""
        return step * 0 + self.learning_rate


@dataclass(frozen=True)
class Step(Schedule):
    """The learning rate multiplied by ``factor`` after every ``period`` steps ("piecewise")."""

    learning_rate: float
    period: int
    factor: float = 0.1

    def __call__(self, step: Tensor) -> Tensor:
        """Return learning_rate * factor^floor(step / period)."""
        return self.learning_rate * self.factor ** floor(step / self.period)


@dataclass(frozen=True)
class Exponential(Schedule):
    """The learning rate multiplied by ``factor`` at every step."""

    learning_rate: float
    factor: float

    def __call__(self, step: Tensor) -> Tensor:
        """Return learning_rate * factor^step."""
        return self.learning_rate * self.factor**step


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine wave from ``learning_rate`` down to ``final``; with restarts if asked for.

    After ``steps`` steps the rate stays at ``final``, or, with ``restart``, jumps back up
    (SGDR: Loshchilov & Hutter, 2017, with periods of equal length).
    """

    learning_rate: float
    steps: int
    final: float = 0.0
    restart: bool = False

    def __call__(self, step: Tensor) -> Tensor:
        """Return final + (learning_rate - final) * (1 + cos(pi * progress)) / 2."""
        turns = step / self.steps
        progress = turns - floor(turns) if self.restart else clip(turns, 0.0, 1.0)
        return self.final + (self.learning_rate - self.final) * 0.5 * (1 + cos(progress * math.pi))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From ``learning_rate`` to ``final`` along (1 - progress)^power; then it stays at ``final``."""

    learning_rate: float
    steps: int
    final: float = 0.0
    power: float = 1.0

    def __call__(self, step: Tensor) -> Tensor:
        """Return final + (learning_rate - final) * (1 - progress)^power."""
        return (
            self.final + (self.learning_rate - self.final) * (1 - _progress(step, self.steps)) ** self.power
        )


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Up from ``low`` to ``high`` and down again in a triangle, every ``period`` steps (Smith, 2017)."""

    low: float
    high: float
    period: int

    def __call__(self, step: Tensor) -> Tensor:
        """Return the height of the triangle."""
        turns = step / self.period
        return self.low + (self.high - self.low) * (1 - absolute(2 * (turns - floor(turns)) - 1))


@dataclass(frozen=True)
class Warmup(Schedule):
    """A straight line from 0 up to ``learning_rate`` over the first ``steps`` steps; then constant.

    The first step has the rate learning_rate / steps, not 0.
    """

    learning_rate: float
    steps: int

    def __call__(self, step: Tensor) -> Tensor:
        """Return learning_rate * min((step + 1) / steps, 1)."""
        return self.learning_rate * _progress(step + 1, self.steps)


@dataclass(frozen=True)
class Sequence(Schedule):
    """Schedules one after another, each counting its own steps: pairs (schedule, number of steps).

    The last one goes on for ever.

    >>> Sequence((Warmup(1e-3, 100), 100), (Cosine(1e-3, 900), 900)).values(100)[-1]
    0.001
    """

    parts: tuple[tuple[Schedule, int], ...]

    def __init__(self, *parts: tuple[Schedule, int]):
        if not parts:
            raise ValueError("Sequence needs at least one pair (schedule, number of steps)")
        for part in parts:
            if not (isinstance(part, tuple) and len(part) == 2):
                raise TypeError(f"Sequence takes pairs (schedule, number of steps), got {part!r}")
        object.__setattr__(self, "parts", parts)

    def __call__(self, step: Tensor) -> Tensor:
        """Return the rate of the schedule whose turn it is."""
        start = sum(steps for _, steps in self.parts[:-1])
        rate = self.parts[-1][0](maximum(step - start, 0.0))
        for schedule, steps in reversed(self.parts[:-1]):
            start -= steps
            rate = where(step < start + steps, schedule(maximum(step - start, 0.0)), rate)
        return rate
