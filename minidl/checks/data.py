"""check_data: whether arrays are fit to train on: shapes, numbers, labels, and leaks between train "
"and test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.checks.report import Report, ReportRow
from minidl.tensor import Tensor


class DataReport(Report):
    """What check_data found: one row for each test. It prints as a table."""

    check = "check_data"


class _Wrong(Exception):
    """What is wrong with the data."""


def check_data(
    inputs: Any,
    targets: Any = None,
    *,
    test_inputs: Any = None,
    test_targets: Any = None,
    classes: int | None = None,
    largest: float = 1e3,
    rarest: float = 0.02,
) -> DataReport:
    """Test data before a training: lengths, NaN, ranges, labels, their balance, and leaks into the test data.

    Parameters
    ----------
    inputs, targets : arrays with one observation in each row
    test_inputs, test_targets : those of test or validation data
    classes : how many classes there are, if targets are class numbers
    largest : inputs beyond this are reported as not scaled
    rarest : a class is reported as too rare if it has less than this part of an equal share of the targets

    Examples
    --------
    >>> import numpy
    >>> rng = numpy.random.default_rng(0)
    >>> print(check_data(rng.normal(size=(100, 3)), rng.integers(0, 2, 100)).passed)
    True
    """
    run = _Run(inputs, targets, test_inputs, test_targets, classes, largest, rarest)
    report = DataReport(f"of {len(run.x)} observations")
    tests = (run.lengths, run.finite, run.ranges, run.constant, run.repeated, run.labels, run.balance)
    for test in (*tests, run.ordered, run.same_form, run.leaks):
        report.rows.append(run.row(test))
    return report


class _Run:
    def __init__(
        self, x: Any, t: Any, test_x: Any, test_t: Any, classes: int | None, largest: float, rarest: float
    ):
        self.x, self.t, self.test_x, self.test_t = (_array(a) for a in (x, t, test_x, test_t))
        self.classes, self.largest, self.rarest, self.compared = classes, largest, rarest, 0
        integers = self.t is not None and self.t.dtype.kind in "iub"
        self.are_classes = classes is not None or (
            integers and len(numpy.unique(self.t)) < max(2, len(self.t) // 2)
        )

    def row(self, test: Callable[[], str | None]) -> ReportRow:
        self.compared = 0
        title = str(test.__doc__)
        try:
            remark = test()
        except _Wrong as problem:
            return ReportRow(title, "failed", str(problem), self.compared)
        return ReportRow(title, "passed" if self.compared else "skipped", remark or "", self.compared)

    def named(self) -> list[tuple[str, numpy.ndarray]]:
        found = [
            ("inputs", self.x),
            ("targets", self.t),
            ("test_inputs", self.test_x),
            ("test_targets", self.test_t),
        ]
        return [(name, a) for name, a in found if a is not None]

    def lengths(self) -> None:
        """inputs and targets are as many"""
        for name, a, b in (("", self.x, self.t), ("test_", self.test_x, self.test_t)):
            if a is not None and not len(a):
                raise _Wrong(f"{name}inputs are empty")
            if a is not None and b is not None and len(a) != len(b):
                raise _Wrong(f"{len(a)} {name}inputs, {len(b)} {name}targets")
            self.compared += 0 if a is None else len(a)

    def finite(self) -> None:
        """all numbers are finite"""
        for name, a in self.named():
            if a.dtype.kind not in "biuf":
                raise _Wrong(f"{name} are of dtype {a.dtype}: numbers are needed")
            self.compared += a.size
            if a.dtype.kind == "f" and not numpy.isfinite(a).all():
                place = tuple(int(i) for i in numpy.argwhere(~numpy.isfinite(a))[0])
                raise _Wrong(
                    f"{int((~numpy.isfinite(a)).sum())} of {name} are not finite, the first at {place}"
                )

    def ranges(self) -> str | None:
        """inputs are scaled"""
        for name, a in (("inputs", self.x), ("test_inputs", self.test_x)):
            if a is None or a.dtype.kind != "f" or not a.size:
                continue
            self.compared += a.size
            extreme = float(numpy.nanmax(numpy.abs(a)))
            if extreme > self.largest:
                raise _Wrong(
                    f"{name} reach {extreme:.4g}: scale them, for example with dl.Normalize(shape, "
                    "'zero_center_standard_deviation').fit(inputs)"
                )
        return None

    def constant(self) -> str | None:
        """inputs vary"""
        flat = self.x.reshape(len(self.x), -1)
        self.compared += flat.size
        fixed = numpy.flatnonzero((flat == flat[:1]).all(axis=0)) if len(flat) > 1 else numpy.array([], int)
        if flat.shape[1] and len(fixed) == flat.shape[1]:
            raise _Wrong("all observations are the same")
        return f"{len(fixed)} of {flat.shape[1]} features never change" if len(fixed) else None

    def repeated(self) -> str | None:
        """observations are different"""
        counts = _counts(self.x)
        self.compared += len(self.x)
        extra = len(self.x) - len(counts)
        if extra > 0.2 * len(self.x):
            raise _Wrong(f"{extra} of {len(self.x)} observations are there before: is the file read twice?")
        if self.t is not None and len(self.t) == len(self.x):
            known: dict[bytes, Any] = {}
            for i, (row, target) in enumerate(zip(_rows(self.x), self.t, strict=True)):
                first = known.setdefault(row, (i, target))
                if self.are_classes and not numpy.array_equal(first[1], target):
                    raise _Wrong(
                        f"observations {first[0]} and {i} are equal, and have the targets {first[1]} "
                        f"and {target}"
                    )
        return f"{extra} are there more than once" if extra else None

    def labels(self) -> None:
        """class numbers begin at 0 and exist"""
        if self.t is None or not self.are_classes:
            return
        for name, t in (("targets", self.t), ("test_targets", self.test_t)):
            if t is None:
                continue
            self.compared += t.size
            if t.dtype.kind == "f" and not (t == numpy.floor(t)).all():
                raise _Wrong(f"{name} are class numbers, but some are not whole")
            low, high = t.min(), t.max()
            if low < 0:
                raise _Wrong(f"{name} go down to {low}: class numbers begin at 0")
            if self.classes is not None and high >= self.classes:
                raise _Wrong(
                    f"{name} go up to {high}, but there are {self.classes} classes, 0 to {self.classes - 1}"
                )
            if low == 1 and name == "targets" and self.classes in (None, int(high)):
                raise _Wrong(f"{name} go from 1 to {high}: class numbers begin at 0, subtract 1")

    def balance(self) -> str | None:
        """every class is there"""
        if self.t is None or not self.are_classes or self.t.ndim != 1:
            return None
        values, counts = numpy.unique(self.t, return_counts=True)
        self.compared += self.t.size
        if len(values) == 1:
            raise _Wrong(f"all targets are {values[0]}")
        wanted = range(self.classes) if self.classes else range(int(values.max()) + 1)
        missing = [k for k in wanted if k not in set(values.tolist())]
        if missing:
            raise _Wrong(f"class {', '.join(map(str, missing[:8]))} never occurs")
        share = counts / counts.sum()
        if share.min() < self.rarest / len(values):
            raise _Wrong(
                f"class {values[share.argmin()]} is {share.min():.2%} of the targets, class "
                f"{values[share.argmax()]} {share.max():.0%}: gather more, or weight the loss"
            )
        return f"shares from {share.min():.0%} to {share.max():.0%}"

    def ordered(self) -> str | None:
        """observations are not sorted by class"""
        if self.t is None or not self.are_classes or self.t.ndim != 1 or len(self.t) < 20:
            return None
        self.compared += self.t.size
        changes = int((self.t[1:] != self.t[:-1]).sum())
        if changes < len(numpy.unique(self.t)):
            return "sorted: shuffle them before they are divided into training and test data"
        return None

    def same_form(self) -> None:
        """training and test data have one form"""
        for name, a, b in (("inputs", self.x, self.test_x), ("targets", self.t, self.test_t)):
            if a is None or b is None:
                continue
            self.compared += 1
            if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
                raise _Wrong(
                    f"{name}: {a.dtype} {a.shape[1:]} in training, {b.dtype} {b.shape[1:]} in the test data"
                )
            if name == "inputs" and a.dtype.kind == "f" and a.size and b.size:
                spread = float(a.std()) or 1.0
                gap = abs(float(a.mean()) - float(b.mean())) / spread
                if gap > 2 or not 0.1 < (float(b.std()) + 1e-12) / spread < 10:
                    raise _Wrong(
                        f"inputs have mean {a.mean():.3g} and deviation {a.std():.3g} in training, "
                        f"{b.mean():.3g} and "
                        f"{b.std():.3g} in the test data: scale both with the figures of the training data"
                    )

    def leaks(self) -> str | None:
        """no test observation is in the training data"""
        if self.test_x is None:
            return "no test data were given"
        if self.x.shape[1:] != self.test_x.shape[1:]:
            return "they have another form"
        known = set(_rows(self.x))
        again = [i for i, row in enumerate(_rows(self.test_x)) if row in known]
        self.compared += len(self.test_x)
        if again:
            raise _Wrong(
                f"{len(again)} of {len(self.test_x)} test observations are in the training data, the "
                "first is "
                f"{again[0]}: divide the data after duplicates are removed"
            )
        return None


def _array(x: Any) -> Any:
    return None if x is None else x.numpy() if isinstance(x, Tensor) else numpy.asarray(x)


def _rows(x: numpy.ndarray) -> list[bytes]:
    return [row.tobytes() for row in numpy.ascontiguousarray(x)] if x.ndim > 1 else [v.tobytes() for v in x]


def _counts(x: numpy.ndarray) -> set[bytes]:
    return set(_rows(x))
