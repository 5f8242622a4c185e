"""Gradients: that they reach every Parameter, and that they are the derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from minidl import devices
from minidl.checks.gradients import check_gradients
from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.rows.values import all_equal
from minidl.mode import no_grad
from minidl.tensor import Tensor

_FEW = 1  # directions, or elements, of each Tensor that are measured with a batch of one
_BATCHES = 8  # in which a Parameter may be used at last: an expert that is seldom chosen


def gradients_exist(run: LayerRun) -> str | None:
    """gradients exist"""
    inputs = run.observations()
    parameters = {name: p for name, p in run.layer.named_parameters() if p.requires_grad}
    if not parameters and not any(x.dtype.kind == "f" for x in inputs):
        raise Skip("no Parameters and no floating-point inputs")
    missing = dict(parameters)
    used: set[int] = set()
    for stream in range(_BATCHES):
        for training in (True, False):
            try:
                found = run.gradients(run.observations(stream), training)
            except Problem as problem:
                where = _where(run, next(iter(parameters.values()))) if parameters else ""
                raise Problem(f"{problem} {where}".rstrip()) from None
            except Skip:
                raise
            except Exception as error:
                raise Skip(f"backward fails: {type(error).__name__}: {error}") from None
            missing = {name: p for name, p in missing.items() if name not in found}
        if not missing:
            return None
    for stream in range(2):
        for training in (True, False):
            trace, outputs = run.trace(run.observations(stream), training)
            used |= trace.needed(outputs)
    cut = [name for name, p in missing.items() if _follows(run, p)]
    if cut:
        raise Problem(
            f"no gradient reaches {', '.join(cut)}, which the outputs depend on: forward cuts it off "
            f"{_where(run, missing[cut[0]])}"
        )
    unused = [name for name, p in missing.items() if id(p) not in used]
    if unused:
        raise Problem(
            f"no gradient reaches {', '.join(unused)}: forward does not use it, or cuts it off (detach(), "
            ".data, .numpy(), no_grad()); outputs do not depend on it"
        )
    return f"outputs do not depend on {', '.join(missing)} here, so its gradient is 0" if missing else None


def _follows(run: LayerRun, p: Tensor) -> bool:
    """Return whether outputs change with a Parameter."""
    rng = numpy.random.default_rng(0)
    for training in (True, False):
        for stream in range(2):
            inputs = run.observations(stream)
            with no_grad():
                before = run.from_the_start(inputs, training)
                run.rewind()
                values = devices.to_numpy(p.data)
                moved = numpy.asarray(values + 0.1 * rng.standard_normal(p.shape), p.dtype)
                p.data = devices.to_device(moved, p.device)
                after = run.arrays(inputs, training)
                run.rewind()
            if not all_equal(before, after):
                return True
    return False


def _where(run: LayerRun, p: Tensor) -> str:
    """Return which operation stops the gradient of a Parameter, and in which line."""
    for training in (True, False):
        trace, _ = run.trace(run.observations(), training)
        reached = {id(p)}
        for operation in trace.operations:
            if operation.primitive.kind != "assign" and any(id(x) in reached for x in operation.inputs):
                reached.add(id(operation.out))
                if not operation.taped:
                    return f"with no_grad() ({operation.line})"
                if not operation.primitive.differentiable:
                    return f"with '{operation.primitive.name}' ({operation.line})"
        for source, reader, line in trace.readings:
            if id(source) in reached:
                return f"with {reader} ({line})"
    return "(detach(), .data, .numpy(), no_grad())"


def gradients_agree(run: LayerRun) -> str | None:
    """gradients agree with differences"""
    return _checked(run, run.options, order=1)


def second_order(run: LayerRun) -> str | None:
    """second-order gradients agree with differences"""
    if run.order < 2 and not run.has_own_primitives():
        raise Skip("the layer has no gradient rule of its own; order=2 asks for it")
    return _checked(run, run.options | {"sample": run.options["sample"] or 40}, order=2)


def _checked(run: LayerRun, options: dict[str, object], order: int) -> str:
    inputs = run.examples.batch(3)
    if not run.has_gradients(inputs):
        raise Skip("no Parameters and no floating-point inputs")
    predicted, trained = (run.from_the_start(run.examples.batch(3), t) for t in (False, True))
    run.rewind()
    modes = [True] if all_equal(predicted, trained) else [True, False]
    notes: list[str] = []
    for training in modes:
        _check(run, inputs, options, order, training, notes)
    if order == 1 and run.axis is not None:
        few = options | {"sample": options["sample"] or _FEW}
        _check(run, run.examples.batch(1, 1), few, order, modes[0], notes)
    return "; ".join(dict.fromkeys(notes))


def _check(
    run: LayerRun,
    inputs: Sequence[Tensor],
    options: dict[str, object],
    order: int,
    training: bool,
    notes: list[str],
) -> None:
    from minidl.checks.gradients import NothingCompared

    run.layer.train(training)
    run.reset(inputs)
    try:
        report = check_gradients(run.layer, *inputs, order=order, **options)  # type: ignore[arg-type]
    except NothingCompared:
        if run.axis is not None and inputs[0].shape[run.axis] == 1:
            return  # one observation may be at a kink
        raise
    run.compared += report.checked
    notes += report.notes()
