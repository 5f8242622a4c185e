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

The other rows go beyond it; rows/table.py lists all of them, each a function of rows/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.checks.gradients import GradientError
from minidl.checks.isolation import Snapshot, with_tape
from minidl.checks.layer_run import Examples, LayerRun, Problem, Skip, perturb
from minidl.checks.report import LayerReport, ReportRow
from minidl.checks.rows.randomness import random_state_kept
from minidl.checks.rows.signatures import hidden_method
from minidl.checks.rows.table import AS_GIVEN, AWAY, BASIC, ROWS, Row, title_of
from minidl.layers.layer import Layer
from minidl.mode import mode
from minidl.random.generator import default_generator


def check_layer(
    layer: Layer,
    input_shape: Any,
    *,
    observation_dimension: int | None = 0,
    relative_tolerance: float = 1e-5,
    absolute_tolerance: float = 1e-7,
    sample: int | None = None,
    seed: int = 0,
    order: int = 1,
    skip: Mapping[str, str] | None = None,
) -> LayerReport:
    """Test everything a layer should do, and return a report that prints as a table.

    Most rows see the layer away from where it starts: Parameters are moved a little, so that gains are not 1
    and scales not 0, and its state is what a few training calls make of it. A row that finds nothing to
    compare fails. Where one mistake makes several rows fail, it is reported in one, and the others say
    because of which.

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
    order : 2 checks the gradients of gradients as well; for layers with gradient rules of their own that is
        done in any case
    skip : rows to leave out, each with the reason, for what a layer does deliberately: titles, or parts of
        them, such as ``{"gradients": "straight-through: the rounding passes gradients on"}``

    Raises
    ------
    TypeError, ValueError
        What was given is no Layer, or there is no row of that name to skip.

    Examples
    --------
    >>> import minidl as dl
    >>> check_layer(dl.Dense(3, 2), (3,)).passed
    True
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer takes a Layer; got {type(layer).__name__}")
    if order not in (1, 2):
        raise ValueError(f"check_layer: order must be 1 or 2, got {order}")
    if mode.recorder is not None:
        raise RuntimeError("check_layer cannot be part of a compiled function")
    skipped = _skipped(skip or {})
    problem = hidden_method(layer)
    if problem is not None:
        return _without_methods(layer, problem)
    options = {
        "relative_tolerance": relative_tolerance,
        "absolute_tolerance": absolute_tolerance,
        "sample": sample,
        "seed": seed,
    }
    examples = Examples(input_shape, observation_dimension, seed, _dtype_of(layer), _device_of(layer))
    return _report(LayerRun(layer, examples, options, order), skipped)


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


def _skipped(skip: Mapping[str, str]) -> dict[str, str]:
    """Return the reason for each title that is to be skipped."""
    found: dict[str, str] = {}
    for name, reason in skip.items():
        titles = [row.title for row in ROWS if str(name).lower() in row.title.lower()]
        if not titles:
            known = ", ".join(repr(row.title) for row in ROWS)
            raise ValueError(f"check_layer has no row {name!r} to skip; its rows are {known}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"skip={{{name!r}: ...}} needs a reason, which the report shows; got {reason!r}")
        found |= dict.fromkeys(titles, reason)
    return found


def _without_methods(layer: Layer, problem: str) -> LayerReport:
    rows = [ReportRow(ROWS[0].title, "failed", problem)]
    rows += [ReportRow(row.title, "skipped", f"because of {ROWS[0].title!r}") for row in ROWS[1:]]
    return LayerReport(type(layer).__name__, rows)


def _report(run: LayerRun, skipped: dict[str, str]) -> LayerReport:
    """Return the report of all rows, each run from the same state."""
    layer = run.layer
    report = LayerReport(f"{type(layer).__name__}({layer.extra_repr()})")
    with with_tape(), numpy.errstate(all="ignore"), random_state_kept():
        _add_rows(report, run, BASIC, skipped)
        works = not any(row.outcome == "failed" or row.cause for row in report.rows[1:])
        if not works:
            for row in (*AS_GIVEN, *AWAY):
                report.rows.append(ReportRow(row.title, "skipped", "the layer does not compute"))
            return report
        _add_rows(report, run, AS_GIVEN, skipped)
        with Snapshot() as start:
            start.add(layer, "")
            _move_away(run)
            start.restore_attributes()  # what calls keep in Python is no state, and may be a cache
            _add_rows(report, run, AWAY, skipped)
    return report


def _add_rows(report: LayerReport, run: LayerRun, rows: Sequence[Row], skipped: dict[str, str]) -> None:
    for row in rows:
        if row.title in skipped:
            report.rows.append(ReportRow(row.title, "skipped", f"as asked: {skipped[row.title]}"))
            continue
        found = _row(run, row)
        if found.outcome == "failed":
            failed = {r.test for r in report.failures}
            cause = next((title_of(test) for test in row.because_of if title_of(test) in failed), None)
            if cause is not None:
                found = ReportRow(row.title, "skipped", f"because of {cause!r}", cause=cause)
        run.wrong_gradients |= found.outcome == "failed" and "gradients" in row.title
        report.rows.append(found)


def _row(run: LayerRun, row: Row) -> ReportRow:
    run.compared = 0
    with with_tape(), Snapshot() as run.snapshot:
        run.snapshot.add(run.layer, "")
        run.snapshot.add(default_generator)
        try:
            remark = row.test(run) or ""
        except Skip as reason:
            return ReportRow(row.title, "skipped", str(reason))
        except (Problem, GradientError) as problem:
            return ReportRow(row.title, "failed", str(problem), run.compared)
        except Exception as error:  # a user's layer may raise anything
            return ReportRow(row.title, "failed", f"{type(error).__name__}: {error}", run.compared)
    if row.compares and not run.compared:
        return ReportRow(row.title, "failed", "nothing was compared: the outputs hold no numbers")
    return ReportRow(row.title, "passed", remark, run.compared)


def _move_away(run: LayerRun) -> None:
    """Move the Parameters a little, and let training advance the state; where that fails, leave them."""
    layer = run.layer
    run.snapshot = Snapshot()  # which is empty: nothing is to be put back
    kept = [(p, p.data) for p in layer.parameters()]
    try:
        perturb(layer, run.examples.seed)
        if not _finite(run):
            for p, data in kept:
                p.data = data
        run.advance()
    except Exception:  # what does not compute is reported by the rows
        for p, data in kept:
            p.data = data


def _finite(run: LayerRun) -> bool:
    """Return whether evaluation gives no NaN."""
    return not any(
        numpy.isnan(devices.to_numpy(y.data)).any()
        for y in run.outputs(run.observations())
        if y.dtype.kind == "f"
    )


def _dtype_of(layer: Layer) -> numpy.dtype:
    tensors = [*layer.parameters(), *(x for _, x in layer.named_tensors())]
    kinds = [x.dtype for x in tensors if x.dtype.kind == "f"]
    return kinds[0] if kinds else numpy.dtype("float32")


def _device_of(layer: Layer) -> str:
    return next((x.device for _, x in layer.named_tensors()), "cpu")
