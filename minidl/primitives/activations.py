"""Activation functions that are compositions; those that are primitives are in elementwise.py."""

from __future__ import annotations

import math
from typing import Any

from minidl.primitives.elementwise import absolute, sigmoid, softplus, tanh, where
from minidl.primitives.mathematics import erf, expm1
from minidl.tensor import Tensor, TensorLike, as_tensor


def gelu(x: TensorLike, approximate: bool = False) -> Tensor:
    """Return x times the probability that a standard normal variable is below x (Hendrycks & Gimpel, 2016).

    ``approximate`` takes 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) for it, as GPT-2 does.
    """
    x = as_tensor(x)
    if approximate:
        return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def silu(x: TensorLike) -> Tensor:
    """Return x * sigmoid(x), also known as swish (Ramachandran et al., 2017)."""
    x = as_tensor(x)
    return x * sigmoid(x)


def softsign(x: TensorLike) -> Tensor:
    """Return x / (1 + |x|)."""
    x = as_tensor(x)
    return x / (1 + absolute(x))


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """Return x where it is positive, else x times the slope; so is the gradient at 0 (Maas et al., 2013)."""
    x = as_tensor(x)
    return where(x > 0, x, x * negative_slope)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """Return x where it is positive, else alpha * (exp(x) - 1) (Clevert et al., 2016)."""
    x = as_tensor(x)
    return where(x > 0, x, alpha * expm1(where(x > 0, 0, x)))


def selu(x: Any) -> Tensor:
    """Return the scaled elu that keeps mean 0 and variance 1 (Klambauer et al., 2017)."""
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def log_sigmoid(x: Any) -> Tensor:
    """Return log(sigmoid(x)), without underflow."""
    return -softplus(-as_tensor(x))
