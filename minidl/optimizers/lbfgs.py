"""L-BFGS: full-batch training by a quasi-Newton method."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from operator import index

import numpy

from minidl.optimizers.descent import DescentOptimizer
from minidl.optimizers.line_search import Point
from minidl.tensor import Parameter, Tensor


class LBFGS(DescentOptimizer):
    """Limited-memory BFGS (Liu & Nocedal, 1989), for data that fits into one batch.

    The direction is the gradient times an estimate of the inverse Hessian matrix, from the latest
    ``history_size`` steps s and the changes y of the gradient along them; that matrix is never formed.
    A line search computes the loss and the gradient as often as it needs them, seldom more than once.

    Parameters
    ----------
    parameters, max_iterations, l2, gradient_tolerance, loss_tolerance : as for DescentOptimizer
    history_size : how many past iterations the curvature is estimated from
    history : deprecated name of history_size
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        max_iterations: int = 1000,
        history_size: int = 10,
        l2: float = 0.0,
        gradient_tolerance: float = 1e-5,
        loss_tolerance: float = 1e-9,
        *,
        history: int | None = None,
    ):
        super().__init__(parameters, max_iterations, l2, gradient_tolerance, loss_tolerance)
        if history is not None:
            _warn_about_history(4)  # there is keywords.answering in between
            history_size = history
        if not history_size >= 1:
            raise ValueError(f"LBFGS: history_size must be at least 1, got {history_size}")
        self.history_size = index(history_size)
        size = self.vector.size
        self.steps, self.changes = (self.memory(self.history_size, size) for _ in range(2))
        self.learned = self.memory(1)

    @property
    def history(self) -> int:
        """Deprecated name of history_size."""
        _warn_about_history()
        return self.history_size

    @history.setter
    def history(self, value: int) -> None:
        _warn_about_history()
        self.history_size = value

    def direction(self, gradient: numpy.ndarray) -> numpy.ndarray:
        """Return minus the estimated inverse Hessian times the gradient (Nocedal & Wright, algorithm 7.4)."""
        direction, pairs = -gradient, list(self._pairs())
        shares = []
        for s, y in reversed(pairs):
            shares.append((s @ direction) / (s @ y))
            direction = direction - shares[-1] * y
        if pairs:
            s, y = pairs[-1]
            direction = direction * ((s @ y) / (y @ y))
        for (s, y), share in zip(pairs, reversed(shares), strict=True):
            direction = direction + (share - (y @ direction) / (s @ y)) * s
        return direction

    def _pairs(self) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        """Yield the latest steps and changes of the gradient, oldest first."""
        learned = int(self.learned.item())
        for i in range(max(0, learned - self.history_size), learned):
            row = i % self.history_size
            yield self.steps[row].numpy(), self.changes[row].numpy()

    def first_step(self, gradient: numpy.ndarray, slope: float) -> float:
        """Return 1, which is right for a parabola; without an estimate a step of length 1 at most."""
        return 1.0 if self.learned.item() else min(1.0, 1 / float(numpy.linalg.norm(gradient)))

    def learn(self, direction: numpy.ndarray, start: Point, end: Point) -> None:
        """Remember the step and the change of the gradient, unless they show no curvature."""
        s, y = end.vector - start.vector, end.gradient - start.gradient
        if s @ y > 1e-10 * (y @ y):
            row = int(self.learned.item()) % self.history_size
            self.steps[row], self.changes[row] = s, y
            self.learned.assign(self.learned + 1)

    def forget(self) -> None:
        """Begin anew along the gradient."""
        self.learned.assign([0.0])

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all state of a search by name."""
        return super().named_tensors() | {
            "steps": self.steps,
            "changes": self.changes,
            "learned": self.learned,
        }


def _warn_about_history(frames: int = 3) -> None:
    warnings.warn("LBFGS: history is now called history_size", DeprecationWarning, stacklevel=frames)
