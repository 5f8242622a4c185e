"""Optimizers, textbook formulas in Tensor arithmetic, and learning-rate schedules."""

from minidl.optimizers.adagrad import Adagrad
from minidl.optimizers.adam import Adam, AdamW
from minidl.optimizers.conjugate_gradient import ConjugateGradient
from minidl.optimizers.lbfgs import LBFGS
from minidl.optimizers.nadam import Nadam
from minidl.optimizers.optimizer import Optimizer
from minidl.optimizers.rmsprop import RMSProp
from minidl.optimizers.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "ConjugateGradient",
    "Nadam",
    "Optimizer",
    "RMSProp",
]
