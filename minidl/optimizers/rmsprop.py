"""RMSProp."""

from __future__ import annotations

from typing import Any, Unpack

from minidl.optimizers.optimizer import Optimizer, OptimizerOptions, require_epsilon
from minidl.primitives.elementwise import sqrt
from minidl.tensor import Parameter, Tensor


class RMSProp(Optimizer):
    """Steps divided by a running root mean square of the gradients (Tieleman & Hinton, 2012).

    ``v = decay * v + (1 - decay) * g^2``; ``p = p - rate * g / (sqrt(v) + epsilon)``.

    Parameters
    ----------
    decay : of the running mean of squared gradients
    epsilon : keeps the divisor from 0
    options : those of Optimizer, by name
    """

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.001,
        decay: float = 0.9,
        epsilon: float = 1e-8,
        **options: Unpack[OptimizerOptions],
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"RMSProp: decay must be at least 0 and below 1, got {decay}")
        require_epsilon("RMSProp", epsilon)
        self.decay = decay
        self.epsilon = epsilon
        super().__init__(parameters, learning_rate, **options)

    def initial_state(self, parameter: Parameter) -> dict[str, Tensor]:
        """Return the running mean of squared gradients."""
        return {"v": parameter.zeros_like()}

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Make one step."""
        v = self.decay * state["v"] + (1 - self.decay) * (gradient * gradient)
        state["v"].assign(v)
        parameter.assign(parameter - rate.astype(gradient.dtype) * gradient / (sqrt(v) + self.epsilon))
