"""Metrics: how good predictions are, in numbers people compare. Each returns a 0-d Tensor."""

from __future__ import annotations

from typing import Any

from minidl.autodiff import no_grad
from minidl.losses import mean_absolute_error, mean_squared_error
from minidl.primitives.elementwise import sqrt
from minidl.tensor import Tensor, as_tensors


@no_grad()
def rmse(prediction: Any, target: Any) -> Tensor:
    """Return the root of the mean squared difference over all elements, in the unit of the target."""
    return sqrt(mean_squared_error(prediction, target))


@no_grad()
def mae(prediction: Any, target: Any) -> Tensor:
    """Return the mean absolute difference over all elements, in the unit of the target."""
    return mean_absolute_error(prediction, target)


@no_grad()
def accuracy(prediction: Any, target: Any) -> Tensor:
    """Return the share of observations, 0 to 1, whose largest score is that of the right class.

    Parameters
    ----------
    prediction : scores or probabilities (batch, classes)
    target : class numbers (batch,), or scores whose largest marks the right class (batch, classes)
    """
    prediction, target = as_tensors((prediction, target))
    if prediction.ndim < 2 or target.shape not in (prediction.shape, prediction.shape[:-1]):
        raise ValueError(
            f"accuracy takes scores (batch, classes) and class numbers (batch,); "
            f"got {prediction.shape} and {target.shape}"
        )
    if prediction.size == 0:
        raise ValueError("accuracy: the batch is empty")
    right = target.argmax() if target.shape == prediction.shape else target
    return (prediction.argmax() == right).astype("float32").mean()
