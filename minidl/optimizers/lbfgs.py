"""L-BFGS: full-batch training by SciPy's quasi-Newton method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from minidl import devices
from minidl.tensor import Parameter, Tensor, tensor


class LBFGS:
    """Limited-memory BFGS (Liu & Nocedal, 1989), for data that fits into one batch.

    SciPy's L-BFGS-B minimises the loss as a function of one float64 vector of all Parameters, with
    a line search that asks for as many losses and gradients as it needs. Those whose
    learning_rate_factor is 0 stay as they are; other factors have no meaning here.

    Parameters
    ----------
    parameters : Parameters to train
    max_iterations : at most so many steps
    history : from how many past steps the curvature is estimated
    l2 : ``l2 * parameter.l2_factor * parameter`` is added to the gradient, and its integral to what is
        minimised
    gradient_tolerance : stop when no element of the gradient is larger
    loss_tolerance : stop when a step lowers the loss by less than this share of it
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        max_iterations: int = 1000,
        history: int = 10,
        l2: float = 0.0,
        gradient_tolerance: float = 1e-5,
        loss_tolerance: float = 1e-9,
    ):
        self._given = list({id(parameter): parameter for parameter in parameters}.values())
        for parameter in self._given:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"LBFGS trains Parameters, got {type(parameter).__name__}")
        self.parameters = [parameter for parameter in self._given if parameter.learning_rate_factor != 0]
        if not self.parameters:
            raise ValueError("LBFGS got no parameters to train")
        if max_iterations < 1 or history < 1 or not l2 >= 0:
            raise ValueError(
                "LBFGS: max_iterations and history must be at least 1, and l2 not negative; "
                f"got {max_iterations}, {history}, {l2}"
            )
        self.max_iterations = max_iterations
        self.history = history
        self.l2 = l2
        self.gradient_tolerance = gradient_tolerance
        self.loss_tolerance = loss_tolerance

    def minimize(self, closure: Callable[[], Tensor], callback: Callable[[float], Any] | None = None) -> str:
        """Minimise a loss; return why it ended.

        The Parameters end where what is minimised was lowest, even if the loss became NaN later.

        Parameters
        ----------
        closure : computes the loss and calls its backward()
        callback : called after each step with its loss (without L2); a true result ends it
        """
        from scipy.optimize import minimize

        start = numpy.concatenate([_flat(p, p) for p in self.parameters])
        lowest: list[Any] = [math.inf, start]

        def evaluate(vector: numpy.ndarray) -> tuple[float, numpy.ndarray]:
            self.assign(vector)
            self.zero_grad()
            loss = closure().item()
            if all(parameter.grad is None for parameter in self.parameters):
                raise RuntimeError("LBFGS: no gradients: the closure did not call loss.backward()")
            gradient = numpy.concatenate([_flat(p.grad, p) for p in self.parameters])
            self.zero_grad()
            strength = self._strength()
            total = loss + 0.5 * float(strength @ vector**2)
            if total < lowest[0]:
                lowest[:] = total, vector.copy()
            return total, gradient + strength * vector

        def after_step(intermediate_result: Any) -> None:
            vector = intermediate_result.x
            self.assign(vector)
            loss = float(intermediate_result.fun) - 0.5 * float(self._strength() @ vector**2)
            if callback is not None and callback(loss):
                raise StopIteration

        result = minimize(
            evaluate,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=after_step,
            options={
                "maxiter": self.max_iterations,
                "maxcor": self.history,
                "maxfun": 20 * self.max_iterations,
                "gtol": self.gradient_tolerance,
                "ftol": self.loss_tolerance,
            },
        )
        self.assign(lowest[1])
        return str(result.message).lower()

    def zero_grad(self) -> None:
        """Drop all gradients, those of Parameters that stay as they are included."""
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
