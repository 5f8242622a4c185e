"""Optimizers by name, with the defaults of MATLAB's trainingOptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.layers import Layer
from minidl.optimizers import LBFGS, SGD, Adam, RMSProp
from minidl.optimizers.base import BaseOptimizer

SOLVERS: dict[str, Callable[[list[Any]], BaseOptimizer]] = {
    "adam": lambda parameters: Adam(parameters, learning_rate=0.001, l2=1e-4),
    "rmsprop": lambda parameters: RMSProp(parameters, learning_rate=0.001, l2=1e-4),
    "sgdm": lambda parameters: SGD(parameters, learning_rate=0.01, momentum=0.9, l2=1e-4),
    "lbfgs": lambda parameters: LBFGS(parameters, l2=1e-4),
}


def optimizer_of(network: Layer, optimizer: BaseOptimizer | str) -> BaseOptimizer:
    """Return the optimizer of a network: one that was made for it, or a new one by name."""
    if isinstance(optimizer, str):
        if optimizer not in SOLVERS:
            known = ", ".join(SOLVERS)
            raise ValueError(f"unknown optimizer {optimizer!r}: use one of {known}, or an optimizer")
        return SOLVERS[optimizer](network.parameters())
    if not isinstance(optimizer, BaseOptimizer):
        text = f"Trainer takes an Optimizer or a name, got {type(optimizer).__name__}"
        if isinstance(optimizer, type):
            text = f"Trainer takes an Optimizer: write {optimizer.__name__}(network.parameters())"
        raise TypeError(text)
    trained = {id(parameter) for parameter in optimizer.parameters}
    if not any(id(parameter) in trained for parameter in network.parameters()):
        raise ValueError("the optimizer trains none of the network's Parameters")
    return optimizer
