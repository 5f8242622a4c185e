"""Losses: functions of a prediction and a target that return the number to minimise.

Each takes ``reduction``: ``"mean"`` over all elements, ``"sum"``, ``"batchmean"`` (the sum divided
by the length of the first axis) or ``"none"`` (a loss for each element).
"""

from __future__ import annotations

from typing import Any

from minidl.creation import arange
from minidl.primitives import elementwise
from minidl.primitives.reduction import logsumexp
from minidl.tensor import Tensor, as_tensors

REDUCTIONS = ("mean", "sum", "batchmean", "none")


def binary_cross_entropy(prediction: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return -(t log p + (1 - t) log(1 - p)) for probabilities p and targets t in [0, 1].

    If the prediction comes from a sigmoid (seen through reshapes too), the loss is computed from
    the sigmoid's input, so that loss and gradient stay exact where p rounds to 0 or 1. Otherwise
    p = 0 or 1 against a target that says the opposite costs infinity: nothing is clipped.

    Parameters
    ----------
    prediction : probabilities, of any shape
    target : of the same shape; an array or a Tensor, of floats, integers or bools

    Raises
    ------
    ValueError
        The shapes differ, the batch is empty, or (checked on the CPU) a target is NaN or outside
        [0, 1].
    """
    prediction, target = _pair("binary_cross_entropy", prediction, target)
    _require_unit_interval("binary_cross_entropy", target)
    logits = _logits_behind(prediction)
    if logits is None:
        _require_range("binary_cross_entropy", "predictions", prediction, 0, 1, allow_nan=True)
    else:
        return _reduce(elementwise.sigmoid_cross_entropy(logits, target), reduction)
    # Where the target is exactly 0 or 1, the other logarithm has weight 0 and must not be taken.
    log_p = elementwise.log(elementwise.where(target == 0, 1, prediction))
    log_q = elementwise.log1p(-elementwise.where(target == 1, 0, prediction))
    return _reduce(-(target * log_p + (1 - target) * log_q), reduction)


def binary_cross_entropy_with_logits(logits: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return the binary cross-entropy of sigmoid(logits), exact for logits of any size.

    Arguments and errors are those of binary_cross_entropy().
    """
    logits, target = _pair("binary_cross_entropy_with_logits", logits, target)
    _require_unit_interval("binary_cross_entropy_with_logits", target)
    return _reduce(elementwise.sigmoid_cross_entropy(logits, target), reduction)


def mean_squared_error(prediction: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return (p - t)^2."""
    prediction, target = _pair("mean_squared_error", prediction, target)
    return _reduce((prediction - target) ** 2, reduction)


def mean_absolute_error(prediction: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return |p - t|; the gradient is 0 where they are equal."""
    prediction, target = _pair("mean_absolute_error", prediction, target)
    return _reduce(abs(prediction - target), reduction)


def huber(prediction: Any, target: Any, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """Return d^2 / 2 for differences d within delta, and delta * (|d| - delta / 2) beyond (Huber, 1964)."""
    if not delta > 0:
        raise ValueError(f"huber: delta must be positive, got {delta}")
    prediction, target = _pair("huber", prediction, target)
    difference = prediction - target
    inner = elementwise.clip(difference, -delta, delta)
    return _reduce(inner * (difference - 0.5 * inner), reduction)


def softmax_cross_entropy(logits: Any, target: Any, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of softmax(logits) over the last axis; the reduction is over the rest.

    Parameters
    ----------
    logits : (batch, classes), or more axes before the classes
    target : class numbers of the shape of the logits without the last axis, or probabilities of
        the shape of the logits

    Raises
    ------
    ValueError
        The shapes do not fit, the batch is empty, or a class does not exist. Where that cannot be looked at
        without a wait (on a GPU, and when a compiled step is replayed), the loss is NaN instead.
    """
    logits, target = as_tensors((logits, target))
    if logits.ndim < 1 or logits.size == 0:
        raise ValueError(f"softmax_cross_entropy: the batch is empty: logits of shape {logits.shape}")
    if target.dtype.kind in "iu" and target.shape == logits.shape[:-1]:
        classes = logits.shape[-1]
        _require_range("softmax_cross_entropy", "class numbers", target, 0, classes - 1)
        rows = logits.reshape(-1, classes)
        # A GPU, and a replay, cannot refuse a class that does not exist: there its loss is NaN.
        known = elementwise.clip(target, 0, classes - 1)
        picked = rows[arange(len(rows), device=logits.device), known.flatten()].reshape(target.shape)
        picked = elementwise.where(known == target, picked, float("nan"))
    elif target.shape == logits.shape:
        picked = (logits * target).sum(axis=-1)
    else:
        raise ValueError(
            f"softmax_cross_entropy: logits of shape {logits.shape} take class numbers (integers) of shape "
            f"{logits.shape[:-1]} or probabilities of shape {logits.shape}; got {target.dtype} {target.shape}"
        )
    return _reduce(logsumexp(logits, axis=-1) - picked, reduction)


def _logits_behind(prediction: Tensor) -> Tensor | None:
    """Return z if the prediction is sigmoid(z), perhaps reshaped or sliced; else None."""
    primitive, inputs = prediction.primitive, prediction.inputs
    if primitive is None or inputs is None or inputs[0].assigned_at > prediction.created_at:
        return None
    if primitive is elementwise.sigmoid:
        return inputs[0]
    if primitive.kind == "view":
        logits = _logits_behind(inputs[0])
        return None if logits is None else primitive(logits, **prediction.attributes)
    return None


def _pair(loss: str, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
    prediction, target = as_tensors((prediction, target))
    if prediction.shape != target.shape:
        hint = ""
        if prediction.size == target.size and prediction.shape[:1] == target.shape[:1]:
            hint = f": reshape one of them, for example the target with .reshape{prediction.shape}"
        raise ValueError(
            f"{loss}: the prediction has shape {prediction.shape}, the target {target.shape}{hint}"
        )
    if prediction.size == 0:
        raise ValueError(f"{loss}: the batch is empty: shape {prediction.shape}")
    if prediction.dtype.kind != "f":
        prediction = prediction.astype(target.dtype if target.dtype.kind == "f" else "float32")
    # A target is data: NumPy's default float64 must not turn a float32 loss into a float64 one.
    return prediction, target.astype(prediction.dtype)


def _require_unit_interval(loss: str, target: Tensor) -> None:
    _require_range(loss, "targets", target, 0, 1)


def _require_range(
    loss: str, what: str, values: Tensor, low: float, high: float, allow_nan: bool = False
) -> None:
    """Refuse values outside [low, high]; on a GPU that would wait for the device at every step."""
    if values.device != "cpu":
        return
    smallest, largest = values.data.min(), values.data.max()
    outside = smallest < low or largest > high
    if outside or not (allow_nan or smallest <= largest):  # comparisons with NaN are false
        raise ValueError(
            f"{loss}: {what} must be in [{low}, {high}], got values from {smallest} to {largest}"
        )


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "batchmean":
        if losses.ndim == 0:
            raise ValueError("reduction 'batchmean' needs a batch axis; got a single number")
        return losses.sum() * (1 / losses.shape[0])
    if reduction == "none":
        return losses
    raise ValueError(f"unknown reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
