"""Adagrad."""

from __future__ import annotations

from typing import Any

from minidl.optimizers.optimizer import Optimizer, require_epsilon
from minidl.primitives.elementwise import sqrt
from minidl.tensor import Parameter, Tensor


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far (Duchi, Hazan & Singer, 2011).

    ``v = v + g^2``; ``p = p - rate * g / (sqrt(v) + epsilon)``. What rarely has a gradient, such as the
    rows of an Embedding for rare words, makes long steps when it has one.

    Parameters
    ----------
    initial : what v starts with
    epsilon : keeps the divisor from 0
    options : those of Optimizer, by name
    """

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.01,
        initial: float = 0.0,
        epsilon: float = 1e-10,
        **options: Any,
    ):
        if not initial >= 0:
            raise ValueError(f"Adagrad: initial must not be negative, got {initial}")
        require_epsilon("Adagrad", epsilon)
        self.initial = initial
        self.epsilon = epsilon
        super().__init__(parameters, learning_rate, **options)

    def initial_state(self, parameter: Parameter) -> dict[str, Tensor]:
        """Return the sum of squared gradients."""
        return {"v": parameter.zeros_like() + self.initial}

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Make one step."""
        v = state["v"] + gradient * gradient
        state["v"].assign(v)
        parameter.assign(parameter - rate.astype(gradient.dtype) * gradient / (sqrt(v) + self.epsilon))
