"""Metrics: numbers that tell how good predictions are.

Each is a function ``(prediction, target)`` that returns a 0-d Tensor. A `Metric` also says how the
figure of many mini-batches follows from what each of them contributes, so that the RMSE of a large
data set is the root of one mean, not a mean of roots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.losses import mean_absolute_error, mean_squared_error
from minidl.mode import no_grad
from minidl.primitives.elementwise import maximum, sqrt
from minidl.primitives.shape import stack
from minidl.tensor import Tensor, as_tensors, tensor
from minidl.tracking import Tracked


class Metric(Tracked):
    """A figure that is a function of means over the observations.

    Calling it with a prediction and a target gives the figure of these. Over many mini-batches it is
    ``finish(average of the batches' observe(), weighted by their sizes)``.

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

    def __call__(self, prediction: Any, target: Any) -> Tensor:
        """Return the figure of one batch, or of a whole data set at once."""
        return self.finish(self.observe(prediction, target))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the metrics of this module by their names, and others by their functions."""
        if globals().get(self.__name__) is self:
            return self.__name__
        observe, finish = self.observe.__wrapped__, getattr(self.finish, "__wrapped__", None)  # type: ignore[attr-defined]
        return Metric, (observe, finish, self.__name__, self.larger_is_better)

    def __repr__(self) -> str:
        return f"metric {self.__name__}"


def _rmse(prediction: Any, target: Any) -> Tensor:
    """Return the root of the mean squared difference over all elements, in the unit of the target."""
    return mean_squared_error(prediction, target)


def _mae(prediction: Any, target: Any) -> Tensor:
    """Return the mean absolute difference over all elements, in the unit of the target."""
    return mean_absolute_error(prediction, target)


def _mape(prediction: Any, target: Any) -> Tensor:
    """Return the mean of |difference / target| in percent; a target of 0 counts as the machine epsilon."""
    prediction, target = _pair("mape", prediction, target)
    smallest = float(numpy.finfo(target.dtype).eps)
    error: Tensor = abs(prediction - target) / maximum(abs(target), smallest)
    return 100 * error.mean()


def _r_squared(prediction: Any, target: Any) -> Tensor:
    """Return 1 - (sum of squared errors) / (sum of squares around the mean target): 1 is perfect.

    All elements count alike; for a constant target it is not defined (NaN or -infinity).
    """
    prediction, target = (x.astype("float64") for x in _pair("r_squared", prediction, target))
    error = prediction - target
    return stack([(error * error).mean(), target.mean(), (target * target).mean()])


def _accuracy(prediction: Any, target: Any) -> Tensor:
    """Return the share of observations, 0 to 1, whose largest score is that of the right class.

    Parameters
    ----------
    prediction : scores or probabilities (batch, classes)
    target : class numbers (batch,), or scores whose largest marks the right class (batch, classes)
    """
    predicted, actual, _ = _classes("accuracy", prediction, target)
    right: Tensor = predicted == actual
    return right.astype("float32").mean()


def _counts(name: str, prediction: Any, target: Any) -> Tensor:
    """Return the shares of true positives, of predictions and of observations: (3, classes)."""
    predicted, actual, number = _classes(name, prediction, target)
    classes = tensor(numpy.arange(number), device=predicted.device)
    is_predicted = (predicted.reshape(-1, 1) == classes).astype("float32")
    is_actual = (actual.reshape(-1, 1) == classes).astype("float32")
    return stack([(is_predicted * is_actual).mean(axis=0), is_predicted.mean(axis=0), is_actual.mean(axis=0)])


def _precision(prediction: Any, target: Any) -> Tensor:
    """Return the share of the predictions of a class that are right, averaged over the classes.

    Arguments as for accuracy. A class that is never predicted counts as 0.
    """
    return _counts("precision", prediction, target)


def _recall(prediction: Any, target: Any) -> Tensor:
    """Return the share of the observations of a class that are found, averaged over the classes.

    Arguments as for accuracy. A class that does not occur counts as 0.
    """
    return _counts("recall", prediction, target)


def _f_score(prediction: Any, target: Any) -> Tensor:
    """Return the harmonic mean of precision and recall of a class, averaged over the classes.

    Arguments as for accuracy. A class that neither occurs nor is predicted counts as 0.
    """
    return _counts("f_score", prediction, target)


_TINY = 1e-30  # where a count is 0, so is what stands above it

rmse = Metric(_rmse, sqrt, "rmse")
mae = Metric(_mae, name="mae")
mape = Metric(_mape, name="mape")
r_squared = Metric(_r_squared, lambda m: 1 - m[0] / (m[2] - m[1] * m[1]), "r_squared", True)
accuracy = Metric(_accuracy, name="accuracy", larger_is_better=True)
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


def _classes(name: str, prediction: Any, target: Any) -> tuple[Tensor, Tensor, int]:
    """Return predicted and actual class numbers and how many classes there are."""
    prediction, target = as_tensors((prediction, target))
    if prediction.ndim < 2 or target.shape not in (prediction.shape, prediction.shape[:-1]):
        raise ValueError(
            f"{name} takes scores (batch, classes) and class numbers (batch,); "
            f"got {prediction.shape} and {target.shape}"
        )
    if prediction.size == 0:
        raise ValueError(f"{name}: the batch is empty")
    if prediction.shape[-1] == 1:  # the largest of one is always the first: everything would be right
        raise ValueError(
            f"{name} takes a score for each of two classes or more; got {prediction.shape}: for one "
            "probability p of class 1, give concatenate([1 - p, p], axis=-1)"
        )
    actual = target.argmax(axis=-1) if target.shape == prediction.shape else target
    return prediction.argmax(axis=-1), actual, prediction.shape[-1]
