"""DescentOptimizer: full-batch optimizers that search along one direction after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from minidl.creation import full
from minidl.optimizers.full_batch import AfterIteration, FullBatchOptimizer, Objective
from minidl.optimizers.line_search import Point, line_search
from minidl.tensor import Parameter, Tensor


class DescentOptimizer(FullBatchOptimizer):
    """The base of optimizers that choose a direction, search along it, and learn from where they arrive.

    A subclass writes ``direction``, ``first_step``, ``learn`` and ``forget``. What it has learned is
    state: Tensors on the host, which ``named_tensors`` returns, so that a search that was saved after
    any iteration goes on as if it had not been interrupted.

    Parameters
    ----------
    parameters, max_iterations, l2 : as for FullBatchOptimizer
    gradient_tolerance : stop when no element of the gradient is larger
    loss_tolerance : stop when an iteration lowers the loss by less than this share of it (of 1, if the
        loss is smaller)
    """

    #: How flat the line must be where the search along it ends, as a share of its slope at the start.
    curvature = 0.9

    def __init__(
        self,
        parameters: Iterable[Parameter],
        max_iterations: int,
        l2: float,
        gradient_tolerance: float,
        loss_tolerance: float,
    ):
        super().__init__(parameters, max_iterations, l2)
        self.require_not_negative("gradient_tolerance", gradient_tolerance)
        self.require_not_negative("loss_tolerance", loss_tolerance)
        self.gradient_tolerance = gradient_tolerance
        self.loss_tolerance = loss_tolerance
        self.iteration = full((), 0, numpy.float64, "cpu")
        self.vector = self.memory()

    def memory(self, *shape: int) -> Tensor:
        """Return state for numbers, or by default for a value for each element of the Parameters."""
        size = sum(parameter.size for parameter in self.parameters)
        return full(shape or (size,), 0, numpy.float64, "cpu")

    def direction(self, gradient: numpy.ndarray) -> numpy.ndarray:
        """Return where to search next."""
        raise NotImplementedError

    def first_step(self, gradient: numpy.ndarray, slope: float) -> float:
        """Return how far along the direction to look first."""
        raise NotImplementedError

    def learn(self, direction: numpy.ndarray, start: Point, end: Point) -> None:
        """Remember what one line search showed."""
        raise NotImplementedError

    def forget(self) -> None:
        """Forget all that was learned."""
        raise NotImplementedError

    def minimize(
        self,
        closure: Callable[[], Tensor],
        callback: Callable[[float], Any] | None = None,
        resume: bool = False,
    ) -> str:
        """Minimise a loss; return why the search ended. Arguments are those of FullBatchOptimizer.

        Parameters
        ----------
        resume : go on with the search that was interrupted or loaded, whose iterations count too;
            otherwise a new one begins at the present values of the Parameters
        """
        if not resume:
            self.iteration.assign(0.0)
            self.forget()
        return super().minimize(closure, callback, resume)

    def search(self, objective: Objective, start: numpy.ndarray, after_iteration: AfterIteration) -> str:
        """Search along directions until the gradient vanishes, the loss stays, or all iterations are made."""
        if self.iteration.item():
            start = self.vector.numpy()  # in full precision, in which Parameters need not be
        point = Point(0.0, start, *objective(start), 0.0)
        if not math.isfinite(point.total):
            after_iteration(point.vector, point.total)
            return f"the loss is {point.total}"
        while self.iteration.item() < self.max_iterations:
            if abs(point.gradient).max() <= self.gradient_tolerance:
                return "convergence: the gradient is within gradient_tolerance"
            following = self._along(objective, point, self.direction(point.gradient))
            if following is None:
                self.forget()
                following = self._along(objective, point, -point.gradient)
            if following is None:
                return "no lower loss found along the gradient"
            before, point = point, following
            self.vector.assign(point.vector)
            self.iteration.assign(self.iteration + 1)
            if after_iteration(point.vector, point.total):
                return "stopped by the callback"
            scale = max(abs(before.total), abs(point.total), 1.0)
            if before.total - point.total <= self.loss_tolerance * scale:
                return "convergence: the loss falls by less than loss_tolerance"
        return "all iterations made"

    def _along(self, objective: Objective, start: Point, direction: numpy.ndarray) -> Point | None:
        """Search along a direction; learn from what is found."""
        start = Point(0.0, start.vector, start.total, start.gradient, float(start.gradient @ direction))
        if not start.slope < 0:
            return None
        step = self.first_step(start.gradient, start.slope)
        end = line_search(objective, start, direction, step, self.curvature)
        if end is not None:
            self.learn(direction, start, end)
        return end

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all state of a search by name."""
        return {"iteration": self.iteration, "vector": self.vector}
