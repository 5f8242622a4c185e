"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, Unpack

from minidl.optimizers.optimizer import Optimizer, OptimizerOptions
from minidl.tensor import Parameter, Tensor


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak, 1964), or Nesterov's (Sutskever et al., 2013).

    ``v = momentum * v + g``; then ``p = p - rate * v``, or with Nesterov
    ``p = p - rate * (g + momentum * v)``.

    Parameters
    ----------
    momentum : 0 is plain gradient descent
    nesterov : look ahead along the momentum
    options : those of Optimizer, by name
    """

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        **options: Unpack[OptimizerOptions],
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: momentum must be at least 0 and below 1, got {momentum}")
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self.momentum = momentum
        self.nesterov = nesterov
        super().__init__(parameters, learning_rate, **options)

    def initial_state(self, parameter: Parameter) -> dict[str, Tensor]:
        """Return the velocity, if there is momentum."""
        return {"velocity": parameter.zeros_like()} if self.momentum else {}

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Make one step against the gradient, or along the velocity."""
        direction = gradient
        if self.momentum:
            velocity = self.momentum * state["velocity"] + gradient
            state["velocity"].assign(velocity)
            direction = gradient + self.momentum * velocity if self.nesterov else velocity
        parameter.assign(parameter - rate.astype(gradient.dtype) * direction)
