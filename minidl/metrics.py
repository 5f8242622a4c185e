"""Metrics: numbers that tell how good predictions are.

Each is a function ``(prediction, target)`` that returns a 0-d Tensor. A `Metric` also says how the
figure of many mini-batches follows from what each of them contributes, so that the RMSE of a large
data set is the root of one mean, not a mean of roots.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy

from minidl.creation import one_hot
from minidl.losses import mean_absolute_error, mean_squared_error, softmax_cross_entropy
from minidl.mode import no_grad
from minidl.observation_weights import masked, ratio, weights_like
from minidl.primitives.elementwise import clip, exp, maximum, sqrt, where
from minidl.primitives.indexing import take_along_axis
from minidl.primitives.shape import expand_dims, stack
from minidl.tensor import Tensor, as_tensor, as_tensors, tensor
from minidl.tracking import Tracked
from minidl.value_checks import check_range, check_values


class Metric(Tracked):
    """A figure that is a function of means over the observations.

    Calling it with a prediction and a target gives the figure of these. Over many mini-batches it is
    ``finish(average of the batches' observe(), weighted by their sizes)``. minidl's own metrics take
    ``weight``, as losses do: how much each observation counts.

    Parameters
    ----------
    observe : function (prediction, target) -> Tensor of means over the batch
    finish : function from such a Tensor to the 0-d figure; by default the mean is the figure
    larger_is_better : whether a larger value is better, for choosing the best validation

    Examples
    --------
    >>> import minidl as dl
    >>> error = Metric(dl.mean_squared_error, dl.sqrt, name="error")
    >>> error(dl.tensor([3.0, 4.0]), dl.tensor([0.0, 0.0])).item()
    3.535533905029297
    """

    def __init__(
        self,
        observe: Callable[..., Tensor],
        finish: Callable[[Tensor], Tensor] | None = None,
        name: str | None = None,
        larger_is_better: bool = False,
    ):
        self.observe = no_grad()(observe)
        self.finish = no_grad()(finish) if finish is not None else lambda mean: mean
        self.larger_is_better = larger_is_better
        self.__name__ = name or observe.__name__
        self.__doc__ = observe.__doc__

    def __call__(self, prediction: Any, target: Any, **options: Any) -> Tensor:
        """Return the figure of one batch, or of a whole data set at once."""
        return self.finish(self.observe(prediction, target, **options))

    def of(
        self, output: int | None = None, target: int = -1, *, name: str | None = None, **options: Any
    ) -> Metric:
        """Return this metric of one output of a network with several, or with other options, for a Trainer.

        Parameters
        ----------
        output : which of the outputs, from 0
        target : which of the targets, counted from the end: -1 is the last one
        name : of the new metric; by default it says what was chosen
        options : keyword arguments of the metric, such as ``k=3`` or ``ignore_index=0``

        Examples
        --------
        >>> import minidl as dl
        >>> dl.top_k_accuracy.of(k=3), dl.accuracy.of(1, name="accuracy of the second output")
        (metric top_k_accuracy(k=3), metric accuracy of the second output)
        """
        chosen = {} if output is None else {"output": output, "target": target}
        if not set(options) <= set(signature(self.observe).parameters) - {"prediction", "target"}:
            known = [*signature(self.observe).parameters][2:]
            raise TypeError(f"metric {self.__name__} takes the options {', '.join(known)}; got {[*options]}")

        def observe(*outputs_and_targets: Any) -> Tensor:
            pair = outputs_and_targets
            if output is not None:
                pair = pair[output], pair[target]
            return self.observe(*pair, **options)

        observe.__doc__ = self.__doc__
        described = ", ".join(f"{key}={value}" for key, value in (chosen | options).items())
        return Metric(observe, self.finish, name or f"{self.__name__}({described})", self.larger_is_better)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the metrics of this module by their names, and others by their functions."""
        if globals().get(self.__name__) is self:
            return self.__name__
        observe, finish = self.observe.__wrapped__, getattr(self.finish, "__wrapped__", None)  # type: ignore[attr-defined]
        return Metric, (observe, finish, self.__name__, self.larger_is_better)

    def __repr__(self) -> str:
        return f"metric {self.__name__}"


def _mean(name: str, values: Tensor, weight: Any) -> Tensor:
    """Return the means of weighted values and of the weights, whose ratio is the weighted mean."""
    if weight is None:
        return stack([values.mean(), tensor(1.0, values.dtype, device=values.device)])
    weight = weights_like(name, weight, values)
    return stack([masked(values, weight).mean(), weight.mean()])


def _without(ignore_index: int | None, target: Tensor, weight: Any, dtype: Any = "float32") -> Any:
    """Return the weights with 0 where the target is the class that does not count."""
    if ignore_index is None:
        return weight
    counts = (target != ignore_index).astype(dtype)
    return counts if weight is None else counts * weights_like("ignore_index", weight, counts)


def _rmse(prediction: Any, target: Any, weight: Any = None) -> Tensor:
    """Return the root of the mean squared difference over all elements, in the unit of the target."""
    return _mean("rmse", mean_squared_error(prediction, target, "none"), weight)


def _mae(prediction: Any, target: Any, weight: Any = None) -> Tensor:
    """Return the mean absolute difference over all elements, in the unit of the target."""
    return _mean("mae", mean_absolute_error(prediction, target, "none"), weight)


def _mape(prediction: Any, target: Any, weight: Any = None) -> Tensor:
    """Return the mean of |difference / target| in percent; a target of 0 counts as the machine epsilon."""
    prediction, target = _pair("mape", prediction, target)
    smallest = float(numpy.finfo(target.dtype).eps)
    return _mean("mape", 100 * abs(prediction - target) / maximum(abs(target), smallest), weight)


def _r_squared(prediction: Any, target: Any, weight: Any = None) -> Tensor:
    """Return 1 - (sum of squared errors) / (sum of squares around the mean target): 1 is perfect.

    All elements count alike, or by their weights; for a constant target it is not defined (NaN or
    -infinity).
    """
    prediction, target = (x.astype("float64") for x in _pair("r_squared", prediction, target))
    error = prediction - target
    parts = [_mean("r_squared", x, weight) for x in (error * error, target, target * target)]
    return stack([parts[0][0], parts[1][0], parts[2][0], parts[0][1]])


def _accuracy(
    prediction: Any, target: Any, weight: Any = None, threshold: float = 0.5, ignore_index: int | None = None
) -> Tensor:
    """Return the share of observations, 0 to 1, whose largest score is that of the right class.

    Parameters
    ----------
    prediction : scores or probabilities (batch, classes); or (batch, 1): the probability of class 1 of two
    target : class numbers (batch,), or scores whose largest marks the right class (batch, classes); for
        two classes also 0 and 1 (batch, 1)
    threshold : above it a single number stands for class 1: 0.5 for probabilities; for logits
        ``accuracy.of(threshold=0)``
    ignore_index : the class number of observations that do not count
    """
    predicted, actual, _ = _classes("accuracy", prediction, target, threshold)
    right = (predicted == actual).astype("float32")
    return _mean("accuracy", right, _without(ignore_index, actual, weight))


def _top_k_accuracy(
    prediction: Any, target: Any, weight: Any = None, k: int = 5, ignore_index: int | None = None
) -> Tensor:
    """Return the share of observations whose right class is among those of the k largest scores.

    Arguments as for accuracy; of equal scores, the first classes count as larger.
    """
    scores, target = as_tensors((prediction, target))
    _, actual, classes = _classes("top_k_accuracy", scores, target, None)
    if not 1 <= k <= classes:
        raise ValueError(f"top_k_accuracy: k must be from 1 to the number of classes, {classes}; got {k}")
    actual = actual.astype("int64")
    known = actual if ignore_index is None else where(actual == ignore_index, 0, actual)
    check_range("top_k_accuracy", "class numbers", known, 0, classes - 1)
    known = expand_dims(clip(known, 0, classes - 1), -1)
    own = take_along_axis(scores, known, -1)
    number = tensor(numpy.arange(classes), device=scores.device)
    before = (scores > own) | ((scores == own) & (number < known))
    among = (before.astype("float32").sum(axis=-1) < k).astype("float32")
    return _mean("top_k_accuracy", among, _without(ignore_index, actual, weight))


def _perplexity(
    prediction: Any, target: Any, weight: Any = None, axis: int = -1, ignore_index: int | None = None
) -> Tensor:
    """Return exp(mean cross-entropy): from how many equally likely classes the choice is as hard.

    Parameters
    ----------
    prediction, target, axis, ignore_index : as for softmax_cross_entropy
    """
    losses = softmax_cross_entropy(prediction, target, "none", axis=axis, ignore_index=ignore_index)
    return _mean("perplexity", losses, _without(ignore_index, as_tensor(target), weight, losses.dtype))


def _counts(name: str, prediction: Any, target: Any, weight: Any, threshold: float) -> Tensor:
    """Return the shares of true positives, of predictions and of observations: (3, classes)."""
    predicted, actual, number = _classes(name, prediction, target, threshold)
    if weight is not None:
        weight = weights_like(name, weight, actual.astype("float32")).reshape(-1, 1)
    classes = tensor(numpy.arange(number), device=predicted.device)
    is_predicted = (predicted.reshape(-1, 1) == classes).astype("float32")
    is_actual = (actual.reshape(-1, 1) == classes).astype("float32")
    three = (is_predicted * is_actual, is_predicted, is_actual)
    return stack([(x if weight is None else x * weight).mean(axis=0) for x in three])


def _precision(prediction: Any, target: Any, weight: Any = None, threshold: float = 0.5) -> Tensor:
    """Return the share of the predictions of a class that are right, averaged over the classes.

    Arguments as for accuracy. A class that is never predicted counts as 0.
    """
    return _counts("precision", prediction, target, weight, threshold)


def _recall(prediction: Any, target: Any, weight: Any = None, threshold: float = 0.5) -> Tensor:
    """Return the share of the observations of a class that are found, averaged over the classes.

    Arguments as for accuracy. A class that does not occur counts as 0.
    """
    return _counts("recall", prediction, target, weight, threshold)


def _f_score(prediction: Any, target: Any, weight: Any = None, threshold: float = 0.5) -> Tensor:
    """Return the harmonic mean of precision and recall of a class, averaged over the classes.

    Arguments as for accuracy. A class that neither occurs nor is predicted counts as 0.
    """
    return _counts("f_score", prediction, target, weight, threshold)


@no_grad()
def confusion_matrix(prediction: Any, target: Any, weight: Any = None, threshold: float = 0.5) -> Tensor:
    """Return how often each class (row) was predicted to be each class (column): (classes, classes), float64.

    Arguments as for accuracy; with weights, their sums. `plot_confusion_matrix` draws it.
    """
    predicted, actual, number = _classes("confusion_matrix", prediction, target, threshold)
    check_range("confusion_matrix", "class numbers", actual, 0, number - 1)
    rows, columns = (one_hot(x.flatten().astype("int64"), number, "float64") for x in (actual, predicted))
    if weight is not None:
        rows = rows * weights_like("confusion_matrix", weight, actual.astype("float64")).reshape(-1, 1)
    return rows.T @ columns


_TINY = 1e-30  # where a count is 0, so is what stands above it


def _weighted(finish: Callable[[Tensor], Tensor] | None = None) -> Callable[[Tensor], Tensor]:
    """Return the finish of a metric whose means end with that of the weights."""
    if finish is None:
        return lambda m: ratio(m[0], m[1])
    return lambda m: finish(ratio(m[0], m[1]))


def _explained(m: Tensor) -> Tensor:
    error, mean, square = (ratio(m[i], m[3]) for i in range(3))
    return 1 - error / (square - mean * mean)


rmse = Metric(_rmse, _weighted(sqrt), "rmse")
mae = Metric(_mae, _weighted(), name="mae")
mape = Metric(_mape, _weighted(), name="mape")
r_squared = Metric(_r_squared, _explained, "r_squared", True)
accuracy = Metric(_accuracy, _weighted(), "accuracy", True)
top_k_accuracy = Metric(_top_k_accuracy, _weighted(), "top_k_accuracy", True)
perplexity = Metric(_perplexity, _weighted(exp), "perplexity")
precision = Metric(_precision, lambda m: (m[0] / maximum(m[1], _TINY)).mean(), "precision", True)
recall = Metric(_recall, lambda m: (m[0] / maximum(m[2], _TINY)).mean(), "recall", True)
f_score = Metric(_f_score, lambda m: (2 * m[0] / maximum(m[1] + m[2], _TINY)).mean(), "f_score", True)


def auc(prediction: Any, target: Any) -> Tensor:
    """Return the area under the ROC curve: how often a positive scores above a negative; ties count half.

    Parameters
    ----------
    prediction : scores (batch,) or (batch, 1) of the positive class, or scores (batch, classes), of
        which each class against the rest is averaged
    target : 0 and 1, of the shape of the prediction; or class numbers (batch,) for several classes

    Raises
    ------
    ValueError
        The shapes do not fit, or a class has no positives or no negatives.
    """
    scores, truth = (x.numpy() for x in as_tensors((prediction, target)))
    if scores.ndim == 2 and truth.ndim == 1 and scores.shape[1] > 1:
        truth = truth[:, None] == numpy.arange(scores.shape[1])
    if scores.shape != truth.shape or scores.ndim not in (1, 2):
        raise ValueError(
            f"auc takes scores (batch,) or (batch, classes) and targets; got {scores.shape}, {truth.shape}"
        )
    columns = zip(scores.reshape(len(scores), -1).T, truth.reshape(len(truth), -1).T, strict=True)
    areas = [_area(score, is_positive > 0.5) for score, is_positive in columns]
    return tensor(numpy.mean(areas))


auc.larger_is_better = True  # type: ignore[attr-defined]
auc.in_steps = False  # type: ignore[attr-defined]  # it sorts on the host: shown for validation only


def _area(scores: numpy.ndarray, positive: numpy.ndarray) -> float:
    """Return the Mann-Whitney statistic as a share of all pairs of a positive and a negative."""
    from scipy.stats import rankdata

    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        raise ValueError(f"auc needs positives and negatives; got {positives} and {negatives}")
    ranks = rankdata(scores)[positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def _pair(name: str, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
    prediction, target = as_tensors((prediction, target))
    if prediction.shape != target.shape or prediction.size == 0:
        raise ValueError(
            f"{name} takes a prediction and a target of one shape, not empty; "
            f"got {prediction.shape} and {target.shape}"
        )
    floating = prediction.dtype if prediction.dtype.kind == "f" else "float32"
    return prediction.astype(floating), target.astype(floating)


def _classes(name: str, prediction: Any, target: Any, threshold: float | None) -> tuple[Tensor, Tensor, int]:
    """Return predicted and actual class numbers and how many classes there are."""
    prediction, target = as_tensors((prediction, target))
    if prediction.ndim < 2 or target.shape not in (prediction.shape, prediction.shape[:-1]):
        raise ValueError(
            f"{name} takes scores (batch, classes) and class numbers (batch,); "
            f"got {prediction.shape} and {target.shape}"
        )
    if prediction.size == 0:
        raise ValueError(f"{name}: the batch is empty")
    if prediction.shape[-1] == 1:
        return _two_classes(name, prediction, target, threshold)
    actual = target.argmax(axis=-1) if target.shape == prediction.shape else target
    return prediction.argmax(axis=-1), actual, prediction.shape[-1]


def _two_classes(
    name: str, prediction: Tensor, target: Tensor, threshold: float | None
) -> tuple[Tensor, Tensor, int]:
    """Return _classes() for one number for each observation: class 1 is predicted above the threshold."""
    if threshold is None:
        raise ValueError(f"{name} takes a score for each of two classes or more; got {prediction.shape}")
    check_range(name, "targets of two classes", target, 0, 1)
    if threshold == 0.5:
        check_values(
            prediction,
            lambda x: not bool(((x < 0) | (x > 1)).any()),
            lambda x: (
                f"{name}: predictions (batch, 1) are probabilities, got values from {x.min()} to {x.max()}; "
                f"for logits use {name}.of(threshold=0)"
            ),
        )
    predicted = (prediction > threshold).astype("int64").reshape(prediction.shape[:-1])
    return predicted, (target > 0.5).astype("int64").reshape(predicted.shape), 2
