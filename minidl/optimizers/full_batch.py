"""FullBatchOptimizer: what optimizers share that minimise the loss of all data at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import index
from typing import Any

import numpy

from minidl import devices
from minidl.optimizers.base import BaseOptimizer
from minidl.tensor import Parameter, Tensor, tensor

#: From a flat float64 vector to what is minimised (loss and L2 term) and its gradient.
Objective = Callable[[numpy.ndarray], tuple[float, numpy.ndarray]]
#: Called after each iteration with the vector and the objective there; True means stop.
AfterIteration = Callable[[numpy.ndarray, float], bool]


class FullBatchOptimizer(BaseOptimizer):
    """The base of optimizers for data that fits into one batch; a subclass writes ``search``.

    All Parameters together are one flat float64 vector on the host, and the search decides at which
    points it needs the loss and its gradient. Parameters whose learning_rate_factor is 0 stay as
    they are; other factors have no meaning here.

    Parameters
    ----------
    parameters : Parameters to train
    max_iterations : the largest number of iterations
    l2 : ``l2 * parameter.l2_factor * parameter`` is added to the gradient, and its integral to what is
        minimised
    """

    full_batch = True

    def __init__(self, parameters: Iterable[Parameter], max_iterations: int, l2: float):
        super().__init__(parameters, l2)
        self._given = self.parameters
        self.parameters = [parameter for parameter in self._given if parameter.learning_rate_factor != 0]
        if not self.parameters:
            raise ValueError(f"{type(self).__name__} got no parameters to train")
        if not max_iterations >= 1:
            raise ValueError(
                f"{type(self).__name__}: max_iterations must be at least 1, got {max_iterations}"
            )
        self.max_iterations = index(max_iterations)

    def search(self, objective: Objective, start: numpy.ndarray, after_iteration: AfterIteration) -> str:
        """Look for the minimum of the objective from ``start`` on; return why the search ended."""
        raise NotImplementedError

    def minimize(
        self,
        closure: Callable[[], Tensor],
        callback: Callable[[float], Any] | None = None,
        resume: bool = False,
    ) -> str:
        """Minimise a loss; return why the search ended.

        The Parameters end where what is minimised was lowest, even if the loss became NaN later.

        Parameters
        ----------
        closure : computes the loss and calls its backward()
        callback : called after each iteration with its loss (without the L2 term); a true result ends
            the search
        resume : go on with an interrupted search, for optimizers that keep state; the others begin anew
        """
        start = numpy.concatenate([_flat(p, p) for p in self.parameters])
        lowest: list[Any] = [math.inf, start]

        def objective(vector: numpy.ndarray) -> tuple[float, numpy.ndarray]:
            self.assign(vector)
            self.zero_grad()
            loss = closure().item()
            if all(parameter.grad is None for parameter in self.parameters):
                raise RuntimeError(
                    f"{type(self).__name__}: no gradients: the closure did not call loss.backward()"
                )
            gradient = numpy.concatenate([_flat(p.grad, p) for p in self.parameters])
            self.zero_grad()
            strength = self._strength()
            total = loss + 0.5 * float(strength @ vector**2)
            if total < lowest[0]:
                lowest[:] = total, vector.copy()
            return total, gradient + strength * vector

        def after_iteration(vector: numpy.ndarray, total: float) -> bool:
            self.assign(vector)
            loss = total - 0.5 * float(self._strength() @ vector**2)
            return bool(callback is not None and callback(loss))

        reason = self.search(objective, start, after_iteration)
        self.assign(lowest[1])
        return reason

    def total_steps(self, planned: int | None) -> int | None:
        """Return max_iterations: epochs do not count."""
        return self.max_iterations

    def zero_grad(self) -> None:
        """Drop all gradients, also those of Parameters that stay as they are."""
        for parameter in self._given:
            parameter.grad = None

    def assign(self, vector: numpy.ndarray) -> None:
        """Set all Parameters from one flat vector."""
        ends = numpy.cumsum([parameter.size for parameter in self.parameters])
        for parameter, values in zip(self.parameters, numpy.split(vector, ends[:-1]), strict=True):
            value = values.reshape(parameter.shape).astype(parameter.dtype)
            parameter.assign(tensor(value, device=parameter.device))

    def _strength(self) -> numpy.ndarray:
        """Return the strength of the L2 regularisation for each element of the flat vector."""
        return numpy.repeat(
            [self.l2 * parameter.l2_factor for parameter in self.parameters],
            [parameter.size for parameter in self.parameters],
        )


def _flat(x: Tensor | None, parameter: Parameter) -> numpy.ndarray:
    if x is None:
        return numpy.zeros(parameter.size)
    return devices.to_numpy(x.data).astype(numpy.float64).ravel()
