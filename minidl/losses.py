"""Losses: functions of a prediction and a target that return the number to minimise.

Each takes ``reduction``: ``"mean"`` over all elements, ``"sum"``, ``"batchmean"`` (the sum divided
by the length of the first axis) or ``"none"`` (a loss for each element). And each takes ``weight``: how
much each observation counts, not negative, of the shape of the losses or of their first axes, usually
(batch,). Losses are multiplied by it, and the mean is the weighted one: the sum divided by that of the
weights; it is 0 where all weights are. So a weight of 0 is a mask, and a weight of 2 is an observation that
is there twice.
"""

from __future__ import annotations

from typing import Any

from minidl.creation import arange, one_hot
from minidl.observation_weights import LARGEST, masked, ratio, weights_like
from minidl.primitives import elementwise
from minidl.primitives.axes import normalize_axis
from minidl.primitives.reduction import log_softmax
from minidl.primitives.shape import moveaxis
from minidl.tensor import Tensor, as_tensor, as_tensors
from minidl.value_checks import check_range, check_sums_to_one, check_values

REDUCTIONS = ("mean", "sum", "batchmean", "none")


def binary_cross_entropy(prediction: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
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
        return _reduce(
            "binary_cross_entropy", elementwise.sigmoid_cross_entropy(logits, target), reduction, weight
        )
    # Where the target is exactly 0 or 1, the other logarithm has weight 0 and must not be taken.
    log_p = elementwise.log(elementwise.where(target == 0, 1, prediction))
    log_q = elementwise.log1p(-elementwise.where(target == 1, 0, prediction))
    return _reduce("binary_cross_entropy", -(target * log_p + (1 - target) * log_q), reduction, weight)


def binary_cross_entropy_with_logits(
    logits: Any, target: Any, reduction: str = "mean", weight: Any = None
) -> Tensor:
    """Return the binary cross-entropy of sigmoid(logits), exact for logits of any size.

    Arguments and errors are those of binary_cross_entropy().
    """
    logits, target = _pair("binary_cross_entropy_with_logits", logits, target)
    check_range("binary_cross_entropy_with_logits", "targets", target, 0, 1)
    return _reduce(
        "binary_cross_entropy_with_logits",
        elementwise.sigmoid_cross_entropy(logits, target),
        reduction,
        weight,
    )


def mean_squared_error(prediction: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """Return (p - t)^2."""
    prediction, target = _pair("mean_squared_error", prediction, target)
    return _reduce("mean_squared_error", (prediction - target) ** 2, reduction, weight)


def mean_absolute_error(prediction: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """Return |p - t|; the gradient is 0 where they are equal."""
    prediction, target = _pair("mean_absolute_error", prediction, target)
    return _reduce("mean_absolute_error", abs(prediction - target), reduction, weight)


def huber(
    prediction: Any, target: Any, delta: float = 1.0, reduction: str = "mean", weight: Any = None
) -> Tensor:
    """Return d^2 / 2 for differences d within delta, and delta * (|d| - delta / 2) beyond (Huber, 1964)."""
    if not delta > 0:
        raise ValueError(f"huber: delta must be positive, got {delta}")
    prediction, target = _pair("huber", prediction, target)
    difference = prediction - target
    inner = elementwise.clip(difference, -delta, delta)
    return _reduce("huber", inner * (difference - 0.5 * inner), reduction, weight)


def softmax_cross_entropy(
    logits: Any,
    target: Any,
    reduction: str = "mean",
    weight: Any = None,
    *,
    axis: int = -1,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """Return the cross-entropy of softmax(logits) over the classes; the reduction is over the rest.

    Parameters
    ----------
    logits : (batch, classes), or more axes, of which ``axis`` is that of the classes
    target : class numbers of the shape of the logits without the axis of the classes, or probabilities of
        the shape of the logits, which sum to 1 over the classes
    class_weight : (classes,): multiplies the weight of an observation by that of its class, or of its
        classes in proportion to their probabilities; the mean is weighted, as by ``weight``
    label_smoothing : the share of a target that goes to all classes alike, from 0 to 1 (Szegedy et al., 2016)
    ignore_index : the class number of observations that do not count, which need not be a class

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
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"softmax_cross_entropy: label_smoothing must be between 0 and 1, got {label_smoothing}"
        )
    axis = normalize_axis(axis, logits.ndim, "softmax_cross_entropy")
    log_p = log_softmax(logits, axis=axis)
    outer = logits.shape[:axis] + logits.shape[axis + 1 :]
    is_numbers = target.dtype.kind in "iu" and target.shape == outer
    if not is_numbers and target.shape != logits.shape:
        raise ValueError(
            f"softmax_cross_entropy: logits of shape {logits.shape} take class numbers (integers) of shape "
            f"{outer} or probabilities of shape {logits.shape}; got {target.dtype} {target.shape}"
        )
    if axis != logits.ndim - 1:
        log_p, target = moveaxis(log_p, axis, -1), target if is_numbers else moveaxis(target, axis, -1)
    if class_weight is not None:
        class_weight = as_tensor(class_weight).astype(log_p.dtype)
        if class_weight.shape != log_p.shape[-1:]:
            raise ValueError(
                f"softmax_cross_entropy: class_weight must have shape {log_p.shape[-1:]}, "
                f"got {class_weight.shape}"
            )
        check_range("softmax_cross_entropy", "class weights", class_weight, 0, LARGEST)
    if is_numbers:
        losses, counted = _of_numbers(log_p, target, class_weight, ignore_index)
    elif ignore_index is not None:
        raise ValueError("softmax_cross_entropy: ignore_index is for targets that are class numbers")
    else:
        losses, counted = _of_probabilities(log_p, target, class_weight)
    if label_smoothing:
        everywhere = log_p if class_weight is None else log_p * class_weight
        spread = -everywhere.mean(axis=-1)
        if ignore_index is not None:
            spread = elementwise.where(target == ignore_index, 0, spread)
        losses = (1 - label_smoothing) * losses + label_smoothing * spread
    if weight is not None:
        weight = weights_like("softmax_cross_entropy", weight, losses)
        losses, counted = masked(losses, weight), weight if counted is None else counted * weight
    return _reduce_weighted(losses, counted, reduction)


def _of_numbers(
    log_p: Tensor, target: Tensor, class_weight: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor | None]:
    """Return the weighted losses of class numbers, and the weights unless all are 1."""
    classes = log_p.shape[-1]
    counted: Tensor | None = None
    if ignore_index is not None:
        ignored = target == ignore_index
        target = elementwise.where(ignored, 0, target)
        counted = (~ignored).astype(log_p.dtype)
    check_range("softmax_cross_entropy", "class numbers", target, 0, classes - 1)
    rows = log_p.reshape(-1, classes)
    # A GPU, and a replay, cannot refuse a class that does not exist: there its loss is NaN.
    known = elementwise.clip(target, 0, classes - 1)
    picked = rows[arange(len(rows), device=log_p.device), known.flatten()].reshape(target.shape)
    losses = -elementwise.where(known == target, picked, float("nan"))
    if class_weight is not None:
        of_class = class_weight[known.flatten()].reshape(target.shape)
        losses, counted = losses * of_class, of_class if counted is None else counted * of_class
    if ignore_index is not None:
        losses = elementwise.where(ignored, 0, losses)
    return losses, counted


def _of_probabilities(
    log_p: Tensor, target: Tensor, class_weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the weighted losses of probabilities, and the weights unless all are 1."""
    check_range("softmax_cross_entropy", "probabilities", target, 0, 1)
    check_sums_to_one("softmax_cross_entropy", "probabilities", target)
    # A class without probability costs nothing, not even where its logit is -infinity.
    log_p, target = elementwise.where(target == 0, 0, log_p), target.astype(log_p.dtype)
    if class_weight is None:
        return -(target * log_p).sum(axis=-1), None
    target = target * class_weight
    return -(target * log_p).sum(axis=-1), target.sum(axis=-1)


def kl_divergence(log_prediction: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """Return the Kullback-Leibler divergence sum(t log(t / p)) over the last axis; 0 where p = t.

    Parameters
    ----------
    log_prediction : log p, for example ``dl.log_softmax(logits)``; (..., classes)
    target : probabilities t, of the same shape, which sum to 1 over the last axis
    """
    log_prediction, target = _pair("kl_divergence", log_prediction, target)
    if not target.ndim:
        raise ValueError("kl_divergence takes probabilities (..., classes), got a single number")
    check_range("kl_divergence", "targets", target, 0, 1)
    check_sums_to_one("kl_divergence", "targets", target)
    # A class without probability costs nothing, not even where log p is -infinity.
    log_t = elementwise.log(elementwise.where(target == 0, 1, target))
    difference = log_t - elementwise.where(target == 0, 0, log_prediction)
    return _reduce("kl_divergence", (target * difference).sum(axis=-1), reduction, weight)


def cosine_distance(
    prediction: Any, target: Any, reduction: str = "mean", weight: Any = None, axis: int = -1
) -> Tensor:
    """Return 1 - cos(angle between p and t) along an axis, from 0 to 2.

    A vector shorter than 1e-8 counts as one of this length, so that the distance of a zero vector is 1.
    """
    prediction, target = _pair("cosine_distance", prediction, target)
    if not prediction.ndim:
        raise ValueError("cosine_distance takes vectors, got a single number")
    product = (prediction * target).sum(axis=axis)
    return _reduce(
        "cosine_distance",
        1 - product / (_length(prediction, axis) * _length(target, axis)),
        reduction,
        weight,
    )


def hinge(
    scores: Any, target: Any, margin: float = 1.0, reduction: str = "mean", weight: Any = None
) -> Tensor:
    """Return max(0, margin - t s) for targets t of -1 and 1; or the hinge loss of several classes.

    For class numbers it is the mean over the classes j, besides the right one y, of
    ``max(0, margin - s_y + s_j)`` times ``(classes - 1) / classes`` (Weston & Watkins, 1999).

    Parameters
    ----------
    scores : of any shape; or (..., classes)
    target : -1 and 1, of the shape of the scores; or class numbers (...), integers
    """
    scores, target = as_tensors((scores, target))
    if target.dtype.kind in "iu" and scores.ndim and target.shape == scores.shape[:-1]:
        if scores.size == 0:
            raise ValueError(f"hinge: the batch is empty: shape {scores.shape}")
        check_range("hinge", "class numbers", target, 0, scores.shape[-1] - 1)
        right = one_hot(target, scores.shape[-1], scores.dtype)
        own = (scores * right).sum(axis=-1, keepdims=True)
        # A class that does not exist, which a replay cannot refuse, has no row in one_hot.
        losses = elementwise.maximum(margin - own + scores, 0) * (1 - right)
        known = right.sum(axis=-1) == 1
        return _reduce(
            "hinge", elementwise.where(known, losses.mean(axis=-1), float("nan")), reduction, weight
        )
    scores, target = _pair("hinge", scores, target)
    check_values(
        target,
        lambda array: bool((abs(array) == 1).all()),
        lambda array: f"hinge: targets must be -1 or 1, got values from {array.min()} to {array.max()}",
    )
    return _reduce("hinge", elementwise.maximum(margin - target * scores, 0), reduction, weight)


def triplet(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    reduction: str = "mean",
    weight: Any = None,
) -> Tensor:
    """Return max(0, |a - p| - |a - n| + margin), with Euclidean distances (Schroff et al., 2015).

    Parameters
    ----------
    anchor, positive, negative : embeddings of one shape (..., features): of an observation, of one that
        belongs to it, and of one that does not
    """
    anchor, positive = _pair("triplet", anchor, positive)
    _, negative = _pair("triplet", anchor, negative)
    if not anchor.ndim:
        raise ValueError("triplet takes embeddings (..., features), got a single number")
    near, far = _length(anchor - positive, -1), _length(anchor - negative, -1)
    return _reduce("triplet", elementwise.maximum(near - far + margin, 0), reduction, weight)


def _length(x: Tensor, axis: int) -> Tensor:
    """Return Euclidean norms, at least 1e-8: the gradient at a zero vector is 0, not NaN."""
    return elementwise.sqrt(elementwise.maximum((x * x).sum(axis=axis), 1e-16))


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


def _reduce(loss: str, losses: Tensor, reduction: str, weight: Any) -> Tensor:
    if weight is None:
        return _reduce_weighted(losses, None, reduction)
    weight = weights_like(loss, weight, losses)
    return _reduce_weighted(masked(losses, weight), weight, reduction)


def _reduce_weighted(losses: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Reduce losses that are multiplied by their weights already."""
    if reduction == "mean":
        if weight is None:
            return losses.mean()
        return ratio(losses.sum(), weight.sum())
    if reduction == "sum":
        return losses.sum()
    if reduction == "batchmean":
        if losses.ndim == 0:
            raise ValueError("reduction 'batchmean' needs a batch axis; got a single number")
        return losses.sum() * (1 / losses.shape[0])
    if reduction == "none":
        return losses
    raise ValueError(f"unknown reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
