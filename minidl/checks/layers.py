"""check_layer: everything a layer should do, tested one by one.

What MATLAB's checkLayer tests, and the row of the report here that covers it:

| checkLayer | check_layer |
| --- | --- |
| function syntaxes are correct | methods have valid signatures |
| predict does not error, for one observation and for several | one observation; several observations |
| forward does not error, for one observation and for several | the same rows: both modes are run |
| forward and predict agree in size; sizes follow the observations | output sizes |
| outputs keep the type: single, double, GPU | output types; float32; float64; GPU |
| backward does not error, gradients have the right sizes | gradients exist |
| gradients keep the type: single, double, GPU | gradients exist; float32; float64; GPU |
| gradients are numerically correct | gradients agree with differences |
| states are valid and reset | evaluation changes no state; training changes state only; save and load |
| initialisation fills only what is unset | no such step: a layer is complete once it is constructed |
| code generation | compiled replay equals eager |

Beyond it: inputs are left alone; observations are independent in evaluation; evaluation is repeatable; every
Parameter is found; nested in networks; used twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy

from minidl.checks.gradients import GradientError
from minidl.checks.isolation import Snapshot, with_tape
from minidl.checks.layer_run import Examples, Problem, Skip
from minidl.checks.layer_tests import LayerTests
from minidl.checks.report import LayerReport, ReportRow
from minidl.layers.layer import Layer


def check_layer(
    layer: Layer,
    input_shape: Any,
    *,
    observation_dimension: int | None = 0,
    relative_tolerance: float = 1e-5,
    absolute_tolerance: float = 1e-7,
    sample: int | None = None,
    seed: int = 0,
) -> LayerReport:
    """Test everything a layer should do, and return a report that prints as a table.

    The layer itself is left exactly as it was: values, dtypes, device, mode, gradients, random state.

    Parameters
    ----------
    layer : any Layer, or a whole network
    input_shape : the shape of one observation, without the batch axis, such as ``(784,)``; or an example
        input with its batch axis, as an array or a Tensor, where inputs must be integers or lie in some
        range. A list of these for a layer of several inputs.
    observation_dimension : the axis of inputs and outputs along which observations lie, or None if there is
        none; then shapes are those of whole inputs
    relative_tolerance, absolute_tolerance, sample : as for check_gradients
    seed : of the random inputs

    Examples
    --------
    >>> import minidl as dl
    >>> check_layer(dl.Dense(3, 2), (3,)).passed
    True
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer takes a Layer; got {type(layer).__name__}")
    options = {
        "relative_tolerance": relative_tolerance,
        "absolute_tolerance": absolute_tolerance,
        "sample": sample,
        "seed": seed,
    }
    examples = Examples(input_shape, observation_dimension, seed, _dtype_of(layer), _device_of(layer))
    return _report(LayerTests(layer, examples, options))


def assert_layer(layer: Layer, input_shape: Any, **options: Any) -> None:
    """Fail, with the whole report, unless a layer passes check_layer: one line in a test suite.

    Parameters and options are those of check_layer.

    Raises
    ------
    LayerError
        A test failed.
    """
    __tracebackhide__ = True  # pytest shows the report, and not the lines in here
    check_layer(layer, input_shape, **options).raise_if_failed()


def _report(tests: LayerTests) -> LayerReport:
    """Return the report of all tests, each run from the state in which the layer was given."""
    layer = tests.layer
    report = LayerReport(f"{type(layer).__name__}({layer.extra_repr()})")
    report.rows += [_row(tests, test) for test in tests.basic]
    works = all(row.outcome != "failed" for row in report.rows[1:])
    for test in tests.further:
        skipped = ReportRow(_title(test), "skipped", "the layer does not compute")
        report.rows.append(_row(tests, test) if works else skipped)
    return report


def _row(tests: LayerTests, test: Callable[[], str | None]) -> ReportRow:
    with with_tape(), Snapshot() as tests.snapshot, numpy.errstate(all="ignore"):
        tests.snapshot.add(tests.layer, "")
        try:
            return ReportRow(_title(test), "passed", test() or "")
        except Skip as reason:
            return ReportRow(_title(test), "skipped", str(reason))
        except (Problem, GradientError) as problem:
            return ReportRow(_title(test), "failed", str(problem))
        except Exception as error:  # a user's layer may raise anything
            return ReportRow(_title(test), "failed", f"{type(error).__name__}: {error}")


def _title(test: Callable[..., Any]) -> str:
    return str(inspect.getdoc(test))


def _dtype_of(layer: Layer) -> numpy.dtype:
    kinds = [x.dtype for _, x in layer.named_tensors() if x.dtype.kind == "f"]
    return kinds[0] if kinds else numpy.dtype("float32")


def _device_of(layer: Layer) -> str:
    return next((x.device for _, x in layer.named_tensors()), "cpu")
