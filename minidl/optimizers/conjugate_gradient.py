"""Nonlinear conjugate gradients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy

from minidl.optimizers.descent import DescentOptimizer
from minidl.optimizers.line_search import Point
from minidl.tensor import Parameter, Tensor


class ConjugateGradient(DescentOptimizer):
    """Nonlinear conjugate gradients (Polak & Ribière, 1969), for data that fits into one batch.

    ``d = -g + max(0, g (g - g_old) / (g_old g_old)) * d_old``, and along d a search for the strong Wolfe
    conditions. It keeps two vectors, where L-BFGS keeps twenty. Each ``minimize()`` begins anew along
    the gradient, so it also trains on large mini-batches, with some line searches for each: Hinton &
    Salakhutdinov (2006) fine-tuned their autoencoders with three, on 1,000 images at a time.

    Parameters
    ----------
    parameters, max_iterations, l2, gradient_tolerance, loss_tolerance : as for DescentOptimizer; an
        iteration is a line search

    Examples
    --------
    >>> import minidl as dl
    >>> weight = dl.Parameter([5.0, -3.0])
    >>> optimizer = ConjugateGradient([weight], max_iterations=3)
    >>> def closure():
    ...     loss = ((weight - 2) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> reason = optimizer.minimize(closure)  # once for each mini-batch
    >>> [round(x, 3) for x in weight.tolist()]
    [2.0, 2.0]
    """

    curvature = 0.1

    def __init__(
        self,
        parameters: Iterable[Parameter],
        max_iterations: int = 1000,
        l2: float = 0.0,
        gradient_tolerance: float = 1e-5,
        loss_tolerance: float = 1e-9,
    ):
        super().__init__(parameters, max_iterations, l2, gradient_tolerance, loss_tolerance)
        self.last_direction, self.last_gradient = self.memory(), self.memory()
        self.last_reach = self.memory(1)

    def direction(self, gradient: numpy.ndarray) -> numpy.ndarray:
        """Return the conjugate direction, or the steepest descent where that would not go down."""
        last = self.last_gradient.numpy()
        square = last @ last
        beta = max(0.0, gradient @ (gradient - last) / square) if square else 0.0
        direction: numpy.ndarray = beta * self.last_direction.numpy() - gradient
        return direction if direction @ gradient < 0 else -gradient

    def first_step(self, gradient: numpy.ndarray, slope: float) -> float:
        """Return the step that promises the decrease of the last one."""
        reach = self.last_reach.numpy()[0]
        return float(reach / slope) if reach else 1 / (1 - slope)

    def learn(self, direction: numpy.ndarray, start: Point, end: Point) -> None:
        """Remember the direction, the gradient before, and step times slope."""
        self.last_direction.assign(direction)
        self.last_gradient.assign(start.gradient)
        self.last_reach.assign([end.step * start.slope])

    def forget(self) -> None:
        """Begin anew along the gradient."""
        for x in (self.last_direction, self.last_gradient, self.last_reach):
            x.assign(x.zeros_like())

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all state of a search by name."""
        return super().named_tensors() | {
            "last_direction": self.last_direction,
            "last_gradient": self.last_gradient,
            "last_reach": self.last_reach,
        }
