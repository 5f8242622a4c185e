"""check_loss: whether a loss is a number that falls with the error, with right gradients, at its "
"edges too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.checks.gradients import GradientError, check_gradients
from minidl.checks.report import Report, ReportRow
from minidl.tensor import Tensor, tensor

Loss = Callable[[Any, Any], Any]


class LossReport(Report):
    """What check_loss found: one row for each test. It prints as a table."""

    check = "check_loss"


class _Wrong(Exception):
    """What is wrong with a loss."""


def check_loss(
    loss: Loss,
    prediction: Any,
    target: Any,
    formula: Loss | None = None,
    *,
    order: int = 2,
    tolerance: float = 1e-5,
) -> LossReport:
    """Test a loss: its formula, gradients, reduction over the batch, dtypes, extremes, and compiled values.

    Parameters
    ----------
    loss : takes a prediction and a target, and returns a Tensor of one element
    prediction, target : an example of each with a batch axis, of at least two observations
    formula : the same in NumPy, to compare with
    order : 2 checks second derivatives, too
    tolerance : how far values may differ, relative to them

    Examples
    --------
    >>> import minidl as dl
    >>> import numpy
    >>> rng = numpy.random.default_rng(0)
    >>> x, t = rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    >>> check_loss(dl.mean_squared_error, x, t, lambda x, t: ((x - t) ** 2).mean()).passed
    True
    """
    run = _Run(
        loss, numpy.asarray(_array(prediction)), numpy.asarray(_array(target)), formula, order, tolerance
    )
    report = LossReport(str(getattr(loss, "__name__", type(loss).__name__)))
    tests = (run.is_a_number, run.follows, run.right_gradients, run.order_of_observations, run.batch)
    for test in (*tests, run.types, run.large, run.inputs, run.compiles):
        report.rows.append(run.row(test))
    return report


def _array(x: Any) -> Any:
    return x.numpy() if isinstance(x, Tensor) else x


class _Run:
    def __init__(
        self,
        loss: Loss,
        prediction: numpy.ndarray,
        target: numpy.ndarray,
        formula: Any,
        order: int,
        tolerance: float,
    ):
        self.loss, self.prediction, self.target, self.formula = loss, prediction, target, formula
        self.order, self.tolerance, self.compared = order, tolerance, 0

    def row(self, test: Callable[[], str | None]) -> ReportRow:
        self.compared = 0
        title = str(test.__doc__)
        try:
            with numpy.errstate(all="ignore"):
                remark = test()
            return ReportRow(title, "skipped" if remark else "passed", remark or "", self.compared)
        except (_Wrong, GradientError) as problem:
            return ReportRow(title, "failed", str(problem), self.compared)
        except Exception as error:  # a user's loss may raise anything
            return ReportRow(title, "failed", f"{type(error).__name__}: {error}", self.compared)

    def value(self, prediction: Any, target: Any) -> Any:
        self.compared += 1
        return self.loss(tensor(prediction), tensor(target))

    def as_type(self, dtype: str) -> numpy.ndarray:
        """Return the target in the dtype of the prediction, if it is no class number."""
        return self.target.astype(dtype) if self.target.dtype.kind == "f" else self.target

    def is_a_number(self) -> None:
        """the loss is one finite number"""
        y = self.value(self.prediction.astype("float32"), self.target)
        if not isinstance(y, Tensor):
            raise _Wrong(f"it returns {type(y).__name__}; backward() needs a Tensor")
        if y.size != 1:
            raise _Wrong(f"it returns shape {y.shape}: take the mean or the sum over observations")
        if not numpy.isfinite(y.item()):
            raise _Wrong(f"it is {y.item()} for the example")

    def follows(self) -> str | None:
        """the loss follows the formula"""
        if self.formula is None:
            return "no formula was given"
        wanted = float(self.formula(self.prediction.astype("float64"), self.target))
        found = float(self.value(self.prediction.astype("float64"), self.target).item())
        if not numpy.isclose(found, wanted, rtol=self.tolerance, atol=1e-9):
            raise _Wrong(f"it gives {found:.10g}, the formula {wanted:.10g}")
        return None

    def right_gradients(self) -> None:
        """gradients agree with differences"""
        target = tensor(self.target)
        report = check_gradients(lambda p: self.loss(p, target), self.prediction, order=self.order)
        self.compared += report.checked

    def order_of_observations(self) -> None:
        """the order of observations does not matter"""
        order = numpy.arange(len(self.prediction))[::-1]
        first = self.value(self.prediction, self.target).item()
        second = self.value(self.prediction[order], self.target[order]).item()
        if not numpy.isclose(first, second, rtol=1e-4):
            raise _Wrong(f"turned around, the same observations give {second:.8g} in place of {first:.8g}")

    def batch(self) -> None:
        """twice the same observations give the mean or the sum"""
        once = self.value(self.prediction, self.target).item()
        twice = self.value(
            numpy.concatenate([self.prediction] * 2), numpy.concatenate([self.target] * 2)
        ).item()
        if not (numpy.isclose(twice, once, rtol=1e-4) or numpy.isclose(twice, 2 * once, rtol=1e-4)):
            raise _Wrong(
                f"the observations twice give {twice:.8g}, once {once:.8g}: neither the same (a mean) "
                "nor twice "
                "as much (a sum); is something divided by a fixed number?"
            )

    def types(self) -> None:
        """the dtype is the prediction's"""
        for dtype in ("float32", "float64"):
            found = self.value(self.prediction.astype(dtype), self.as_type(dtype)).dtype
            if found != numpy.dtype(dtype):
                raise _Wrong(f"predictions of {dtype} give a loss of {found}: convert the target to x.dtype")

    def large(self) -> str | None:
        """float32 agrees with float64"""
        for scale in (1.0, 30.0, 100.0):
            prediction = (self.prediction * scale).astype("float32")
            try:
                single = float(self.value(prediction, self.as_type("float32")).item())
                double = float(self.value(prediction.astype("float64"), self.target).item())
            except ValueError:
                return "it takes no larger predictions" if scale > 1 else None
            if (
                numpy.isfinite(double)
                and abs(double) < 1e30
                and not numpy.isclose(single, double, rtol=1e-3, atol=1e-6)
            ):
                raise _Wrong(
                    f"for predictions {scale:g} times as large it is {single:.8g} in float32 and "
                    f"{double:.8g} in "
                    "float64: an overflow, or large numbers that nearly cancel (take dl.log_softmax, "
                    "dl.softplus or dl.logsumexp)"
                )
        return None

    def inputs(self) -> None:
        """prediction and target are left alone"""
        prediction, target = tensor(self.prediction), tensor(self.target)
        self.loss(prediction, target)
        self.compared += self.prediction.size
        for name, x, before in (("prediction", prediction, self.prediction), ("target", target, self.target)):
            if not numpy.array_equal(x.numpy(), tensor(before).numpy()):
                raise _Wrong(f"it overwrites the {name}: compute a new array")

    def compiles(self) -> str | None:
        """compiled values equal plain ones"""
        from minidl.errors import RecordingError
        from minidl.program.compile import compile

        step = compile(lambda p, t: self.loss(p, t), kernels="numpy")
        for scale in (1.0, 0.5):
            prediction = tensor((self.prediction * scale).astype("float32"))
            target = tensor(self.as_type("float32"))
            wanted = self.loss(prediction, target).item()
            try:
                found = step(prediction, target).item()
            except RecordingError as error:
                return f"cannot be compiled: {error}"
            self.compared += 1
            if not numpy.isclose(found, wanted, rtol=1e-4, atol=1e-6, equal_nan=True):
                raise _Wrong(f"compiled it gives {found:.8g}, plainly {wanted:.8g}")
        return None
