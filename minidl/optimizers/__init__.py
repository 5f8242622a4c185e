"""Optimizers, textbook formulas in Tensor arithmetic, and learning-rate schedules."""

from minidl.optimizers import schedules
from minidl.optimizers.adam import Adam, AdamW
from minidl.optimizers.lbfgs import LBFGS
from minidl.optimizers.optimizer import Optimizer
from minidl.optimizers.rmsprop import RMSProp
from minidl.optimizers.sgd import SGD

__all__ = ["LBFGS", "SGD", "Adam", "AdamW", "Optimizer", "RMSProp", "schedules"]
