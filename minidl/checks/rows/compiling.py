"""The law of compiled functions: a replay does what the plain function does, after changes too."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy

from minidl.checks.layer_run import LayerRun, Problem, Skip, tensors_of
from minidl.checks.rows.values import all_equal, near
from minidl.layers.layer import Layer
from minidl.tensor import Tensor

_MOST_CHANGES = 3
_SECONDS = 1.0  # after which attributes are changed no more, each change being another recording


def compiling(run: LayerRun) -> str | None:
    """compiled replay equals eager"""
    from minidl.errors import RecordingError
    from minidl.program.compile import compile

    layer = run.layer

    def _predict(*inputs: Tensor) -> Any:
        return layer(*inputs)

    def _step(*inputs: Tensor) -> Any:
        loss = run.loss(tensors_of(layer(*inputs)))
        if loss.requires_grad:
            loss.backward()
        return loss

    predict, step = (compile(function, kernels="numpy") for function in (_predict, _step))
    started, changes = time.perf_counter(), list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for function, training, streams in _calls(run, predict, step):
                layer.train(training)
                for stream in streams:
                    _replays(run, function, run.observations(stream), training)
            for owner, name, value in _numbers(run):
                if time.perf_counter() - started > _SECONDS or len(changes) == _MOST_CHANGES:
                    break
                if _changed(run, step, owner, name, value):
                    changes.append(name)
        except RecordingError as error:
            raise Skip(f"cannot be compiled: {error}") from None
    for warning in caught:
        if "runs without being compiled" in str(warning.message):
            raise Skip(f"cannot be compiled: {warning.message}")
    return f"after changes of {', '.join(changes)} too" if changes else None


def _calls(run: LayerRun, predict: Any, step: Any) -> list[tuple[Any, bool, tuple[int, ...]]]:
    """Return what to compile, in which mode, and for which batches.

    Where evaluation computes what training does, the step has all of it, and is enough.
    """
    inputs = run.observations()
    predicted, trained = (run.from_the_start(inputs, training) for training in (False, True))
    run.rewind()
    calls: list[tuple[Any, bool, tuple[int, ...]]] = [(step, True, (0, 1))]
    return calls if all_equal(predicted, trained) else [(predict, False, (0, 1, 0)), *calls]


def _numbers(run: LayerRun) -> list[tuple[Layer, str, float]]:
    """Return the attributes that are floats, with another value for each."""
    return [
        (part, name, value * 0.9 + 0.01)
        for part in run.parts()
        for name, value in vars(part).items()
        if type(value) is float
    ]


def _changed(run: LayerRun, function: Any, owner: Layer, name: str, value: float) -> bool:
    """Compare with another value of an attribute; return whether forward takes it."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        run.layer.train()
        inputs = run.observations()
        try:
            run.reset(inputs)
            run.layer(*inputs)
        except Exception:
            return False  # the layer does not take this value
        _replays(run, function, inputs, True, f" after self.{name} was changed")
    finally:
        setattr(owner, name, kept)
    return True


def _replays(run: LayerRun, function: Any, inputs: list[Tensor], training: bool, when: str = "") -> None:
    results = []
    for call in (function.function, function):
        run.snapshot.rewind(run.snapshot.tensors)
        run.reset(inputs)
        values = {f"output {i}": y.numpy() for i, y in enumerate(tensors_of(call(*inputs)))}
        for name, x in run.layer.named_tensors():
            values[name] = x.numpy()
            if training and x.grad is not None:
                values[f"the gradient of {name}"] = x.grad.numpy()
        results.append(values)
    eager, replayed = results
    # A gradient of 0, as that of a bias before a normalisation, is what is left of terms as large as others.
    gradients = [numpy.abs(value) for name, value in eager.items() if name.startswith("the gradient")]
    largest = max((float(numpy.nan_to_num(g, posinf=0).max(initial=0)) for g in gradients), default=0.0)
    for name, value in eager.items():
        run.compared += value.size
        is_gradient = name.startswith("the gradient") and value.dtype.kind == "f"
        rounding = 64 * float(numpy.finfo(value.dtype).eps) * largest if is_gradient else 0.0
        if name not in replayed or not near(replayed[name], value, 1e-3, rounding):
            raise Problem(
                f"{name} is not what it is without compile(){when}: forward does something besides Tensor "
                "operations (NumPy, Python counters), which a replay does not repeat, or the forward of "
                "a primitive does not write to out="
            )
