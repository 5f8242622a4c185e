"""minidl: deep learning from scratch on NumPy and CuPy, small enough to read and fast enough to use."""

import importlib
from typing import TYPE_CHECKING, Any

from minidl import data, devices, initializers
from minidl.autodiff import backward, grad
from minidl.creation import arange, full, ones, ones_like, zeros, zeros_like
from minidl.errors import CheckpointError, DeviceError, DivergenceError, KernelError, RecordingError
from minidl.layers import (
    Dense,
    Dropout,
    Flatten,
    Layer,
    Network,
    Normalize,
    ReLU,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber,
    mean_absolute_error,
    mean_squared_error,
    softmax_cross_entropy,
)
from minidl.metrics import Metric, accuracy, auc, f_score, mae, mape, precision, r_squared, recall, rmse
from minidl.mode import no_grad
from minidl.optimizers import LBFGS, SGD, Adam, AdamW, Optimizer, RMSProp, schedules
from minidl.primitives.elementwise import (
    absolute,
    clip,
    cos,
    exp,
    floor,
    log,
    log1p,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    tanh,
    where,
)
from minidl.primitives.linear_algebra import matmul
from minidl.primitives.reduction import argmax, log_softmax, logsumexp, mean, softmax, std, var
from minidl.primitives.reduction import max as max
from minidl.primitives.reduction import min as min
from minidl.primitives.reduction import sum as sum
from minidl.primitives.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    pad,
    reshape,
    squeeze,
    stack,
    swapaxes,
    transpose,
)
from minidl.program.compile import compile as compile
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor, apply, tensor

if TYPE_CHECKING:
    from minidl.checks import check_gradients, check_layer
    from minidl.training import History, Trainer


__version__ = "0.1.0"

#: What `from minidl import *` brings. It leaves out the functions that would hide Python's own.
__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "AdamW",
    "CheckpointError",
    "Dense",
    "DeviceError",
    "DivergenceError",
    "Dropout",
    "Flatten",
    "Generator",
    "History",
    "KernelError",
    "Layer",
    "Metric",
    "Network",
    "Normalize",
    "Optimizer",
    "Parameter",
    "RMSProp",
    "ReLU",
    "RecordingError",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tensor",
    "Trainer",
    "absolute",
    "accuracy",
    "apply",
    "arange",
    "argmax",
    "auc",
    "backward",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "check_gradients",
    "check_layer",
    "clip",
    "concatenate",
    "cos",
    "data",
    "devices",
    "exp",
    "expand_dims",
    "f_score",
    "floor",
    "full",
    "grad",
    "huber",
    "initializers",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "mae",
    "mape",
    "matmul",
    "maximum",
    "mean",
    "mean_absolute_error",
    "mean_squared_error",
    "minimum",
    "no_grad",
    "ones",
    "ones_like",
    "pad",
    "precision",
    "r_squared",
    "recall",
    "relu",
    "reshape",
    "rmse",
    "schedules",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "swapaxes",
    "tanh",
    "tensor",
    "transpose",
    "var",
    "where",
    "zeros",
    "zeros_like",
]

_HIDE_PYTHONS = ["compile", "max", "min", "sum"]

#: Names that are loaded when they are first used, and from where: not every program trains or checks.
_WHEN_USED = {
    "History": "minidl.training",
    "Trainer": "minidl.training",
    "check_gradients": "minidl.checks",
    "check_layer": "minidl.checks",
}


def __dir__() -> list[str]:
    return sorted([*__all__, *_HIDE_PYTHONS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _WHEN_USED:
        globals()[name] = value = getattr(importlib.import_module(_WHEN_USED[name]), name)
        return value
    if name.startswith("_"):  # what Python, IPython and inspect look for by themselves
        raise AttributeError(f"module 'minidl' has no attribute {name!r}")
    from minidl.foreign_names import NAMES, hint

    raise AttributeError(f"module 'minidl' has no attribute {name!r}{hint(name, __dir__(), NAMES)}")
