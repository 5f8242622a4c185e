"""Adam and AdamW."""

from __future__ import annotations

from typing import Any, Unpack

from minidl.optimizers.optimizer import Optimizer, OptimizerOptions, require_epsilon
from minidl.primitives.elementwise import maximum, sqrt
from minidl.tensor import Parameter, Tensor


class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015, algorithm 1): steps from bias-corrected running moments.

    ``m = beta1 * m + (1 - beta1) * g``; ``v = beta2 * v + (1 - beta2) * g^2``;
    ``p = p - rate * m_hat / (sqrt(v_hat) + epsilon)`` with ``m_hat = m / (1 - beta1^t)`` and
    ``v_hat = v / (1 - beta2^t)``. The two corrections are scalars, and are moved out of the
    arrays as in the last paragraph of the paper's section 2, with epsilon scaled so that the
    result is the same.

    Parameters
    ----------
    beta1, beta2 : decay of the running means of gradients and of squared gradients
    epsilon : keeps the divisor from 0; outside the root
    amsgrad : divide by the root of the largest v so far, so that steps never grow again (Reddi, Kale &
        Kumar, 2018)
    options : those of Optimizer, by name; ``l2`` is coupled: it goes through the moments
    """

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        **options: Unpack[OptimizerOptions],
    ):
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 0 and below 1, got {beta}")
        require_epsilon(type(self).__name__, epsilon)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.amsgrad = amsgrad
        super().__init__(parameters, learning_rate, **options)

    def initial_state(self, parameter: Parameter) -> dict[str, Tensor]:
        """Return the two running moments, and the largest second one so far."""
        names = ("m", "v", "largest_v") if self.amsgrad else ("m", "v")
        return {name: parameter.zeros_like() for name in names}

    def begin_step(self) -> dict[str, Tensor]:
        """Return the bias corrections of this step, in float64."""
        return {
            "correction1": 1 - self.beta1**self.step_count,
            "correction2": sqrt(1 - self.beta2**self.step_count),
        }

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Make one step."""
        step_size = (rate * state["correction2"] / state["correction1"]).astype(gradient.dtype)
        epsilon = (self.epsilon * state["correction2"]).astype(gradient.dtype)
        m = self.beta1 * state["m"] + (1 - self.beta1) * gradient
        v = self.beta2 * state["v"] + (1 - self.beta2) * (gradient * gradient)
        state["m"].assign(m)
        state["v"].assign(v)
        if self.amsgrad:
            v = maximum(state["largest_v"], v)
            state["largest_v"].assign(v)
        parameter.assign(parameter - step_size * m / (sqrt(v) + epsilon))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019).

    Before Adam's step, ``p = p - rate * weight_decay * parameter.l2_factor * p``: by default weights
    decay and biases do not.

    Parameters
    ----------
    weight_decay : the strength of the decay
    options : those of Adam, by name
    """

    group_options = ("l2", "weight_decay")

    def __init__(
        self,
        parameters: Any,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.01,
        **options: Any,
    ):
        if not weight_decay >= 0:
            raise ValueError(f"AdamW: weight_decay must not be negative, got {weight_decay}")
        self.weight_decay = weight_decay
        super().__init__(parameters, learning_rate, **options)

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Let the Parameter decay, then make Adam's step."""
        decay = state.pop("weight_decay") * parameter.l2_factor
        if decay:
            parameter.assign(parameter * (1 - rate * decay).astype(parameter.dtype))
        super().update(parameter, gradient, rate, **state)
