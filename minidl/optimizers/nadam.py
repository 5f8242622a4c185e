"""Nadam."""

from __future__ import annotations

from typing import Any

import numpy

from minidl.creation import full
from minidl.optimizers.adam import Adam
from minidl.optimizers.optimizer import move_state
from minidl.primitives.elementwise import sqrt
from minidl.tensor import Parameter, Tensor


class Nadam(Adam):
    """Adam that looks ahead along its momentum, as Nesterov's (Dozat, 2016, algorithm 2).

    With the momentum ``mu_t = beta1 * (1 - 0.5 * 0.96^(t * momentum_decay))`` of step t, which rises to
    beta1, and the product ``M_t`` of all so far::

        p = p - rate * (mu_{t+1} * m / (1 - M_{t+1}) + (1 - mu_t) * g / (1 - M_t)) / (sqrt(v_hat) + epsilon)

    Parameters
    ----------
    beta1, beta2, epsilon : as for Adam
    momentum_decay : how fast the momentum rises
    options : those of Optimizer, by name
    """

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.002,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        momentum_decay: float = 0.004,
        **options: Any,
    ):
        if not momentum_decay >= 0:
            raise ValueError(f"Nadam: momentum_decay must not be negative, got {momentum_decay}")
        if options.pop("amsgrad", False):
            raise TypeError("Nadam has no amsgrad: it is an option of Adam and AdamW")
        self.momentum_decay = momentum_decay
        super().__init__(parameters, learning_rate, beta1, beta2, epsilon, **options)
        self.momentum_product = full((), 1, numpy.float64, self.parameters[0].device)

    def begin_step(self) -> dict[str, Tensor]:
        """Return the factors of this step for gradient and momentum, and v's correction, in float64."""
        move_state(self.momentum_product, self.step_count.device, self.step_count.dtype)
        now, following = (
            self.beta1 * (1 - 0.5 * 0.96 ** (self.momentum_decay * (self.step_count + ahead)))
            for ahead in (0, 1)
        )
        self.momentum_product.assign(self.momentum_product * now)
        return {
            "of_gradient": (1 - now) / (1 - self.momentum_product),
            "of_momentum": following / (1 - self.momentum_product * following),
            "correction2": sqrt(1 - self.beta2**self.step_count),
        }

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Make one step."""
        m = self.beta1 * state["m"] + (1 - self.beta1) * gradient
        v = self.beta2 * state["v"] + (1 - self.beta2) * (gradient * gradient)
        state["m"].assign(m)
        state["v"].assign(v)
        # Scalars stay out of the arrays, as in Adam.
        step_size = rate * state["correction2"]
        of_gradient, of_momentum, epsilon = (
            x.astype(gradient.dtype)
            for x in (
                step_size * state["of_gradient"],
                step_size * state["of_momentum"],
                self.epsilon * state["correction2"],
            )
        )
        parameter.assign(parameter - (of_momentum * m + of_gradient * gradient) / (sqrt(v) + epsilon))

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all state by name, with the product of the momenta so far."""
        return super().named_tensors() | {"momentum_product": self.momentum_product}
