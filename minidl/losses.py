"""Losses: from a prediction and a target of the same shape to one number to be made small.

Each takes ``reduction``: ``"mean"`` over all elements, ``"sum"``, ``"batchmean"`` (the sum divided
by the length of the first axis) or ``"none"`` (a loss for each element).
"""

from __future__ import annotations

from typing import Any

from minidl.creation import arange
from minidl.primitives import elementwise
from minidl.primitives.reduction import log_softmax
from minidl.tensor import Tensor, as_tensors
from minidl.value_checks import check_range, check_sums_to_one

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
    check_range("binary_cross_entropy", "targets", target, 0, 1)
    logits = _logits_behind(prediction)
    if logits is None:
        check_range("binary_cross_entropy", "predictions", prediction, 0, 1, allow_nan=True)
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
    check_range("binary_cross_entropy_with_logits", "targets", target, 0, 1)
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
        the shape of the logits, which sum to 1 over the last axis

    Raises
    ------
    ValueError
        The shapes do not fit, the batch is empty, a class does not exist, or probabilities do not sum to 1.
        Where classes cannot be looked at without a wait (on a GPU, and when a compiled step is replayed),
        the loss of one that does not exist is NaN instead.
    """
    logits, target = as_tensors((logits, target))
    if logits.ndim < 1 or logits.size == 0:
        raise ValueError(f"softmax_cross_entropy: the batch is empty: logits of shape {logits.shape}")
    log_p = log_softmax(logits)
    if target.dtype.kind in "iu" and target.shape == logits.shape[:-1]:
        classes = logits.shape[-1]
        check_range("softmax_cross_entropy", "class numbers", target, 0, classes - 1)
        rows = log_p.reshape(-1, classes)
        # A GPU, and a replay, cannot refuse a class that does not exist: there its loss is NaN.
        known = elementwise.clip(target, 0, classes - 1)
        picked = rows[arange(len(rows), device=logits.device), known.flatten()].reshape(target.shape)
        return _reduce(-elementwise.where(known == target, picked, float("nan")), reduction)
    if target.shape == logits.shape:
        check_range("softmax_cross_entropy", "probabilities", target, 0, 1)
        check_sums_to_one("softmax_cross_entropy", "probabilities", target)
        # A class without probability costs nothing, not even where its logit is -infinity.
        log_p, target = elementwise.where(target == 0, 0, log_p), target.astype(log_p.dtype)
        return _reduce(-(target * log_p).sum(axis=-1), reduction)
    raise ValueError(
        f"softmax_cross_entropy: logits of shape {logits.shape} take class numbers (integers) of shape "
        f"{logits.shape[:-1]} or probabilities of shape {logits.shape}; got {target.dtype} {target.shape}"
    )


def _logits_behind(prediction: Tensor) -> Tensor | None:
    """Return z if the prediction is sigmoid(z), perhaps reshaped or sliced; else None."""
    views: list[Tensor] = []
    x = prediction
    while True:
        if x.primitive is None or x.inputs is None or x.inputs[0].assigned_at > x.created_at:
            return None
        if x.primitive is elementwise.sigmoid:
            break
        if x.primitive.kind != "view":
            return None
        views.append(x)
        x = x.inputs[0]
    logits = x.inputs[0]
    for view in reversed(views):
        assert view.primitive is not None
        logits = view.primitive(logits, **view.attributes)
    return logits


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
