"""Where infinities and NaN come from: the first operation that makes one of finite numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.checks.tracing import OperationTrace, TracedOperation
from minidl.tensor import Tensor

_ADVICE = {
    "exp": "subtract the largest value first, or use dl.logsumexp, dl.softmax, dl.softplus or dl.sigmoid",
    "log": "add a small number inside the logarithm, or use dl.log_softmax",
    "sqrt": "add a small number inside the root",
    "power": "add a small number to the base",
    "divide": "add a small number to the divisor",
}


def not_finite(
    trace: OperationTrace, seeds: Sequence[tuple[Tensor, numpy.ndarray]], wanted: str = "finite"
) -> str | None:
    """Return which operation made the first infinity or NaN, in forward or in backward, if any did."""
    return in_forward(trace) or in_backward(trace, seeds)


def in_forward(trace: OperationTrace, only_nan: bool = False) -> str | None:
    """Return which operation gives an infinity or NaN for finite inputs, and for which."""
    for operation in trace.operations:
        y = devices.to_numpy(operation.out.data)
        if y.dtype.kind != "f" or operation.primitive.kind in ("view", "assign"):
            continue
        bad = numpy.isnan(y) if only_nan else ~numpy.isfinite(y)
        arrays = [devices.to_numpy(x) for x in operation.arrays]
        fine = all(
            (~numpy.isnan(a) if only_nan else numpy.isfinite(a)).all() for a in arrays if a.dtype.kind == "f"
        )
        if bad.any() and fine:
            return f"{_what_it_does(operation, arrays, y, bad)} ({operation.line}){_advice(operation)}"
    return None


def in_backward(trace: OperationTrace, seeds: Sequence[tuple[Tensor, numpy.ndarray]]) -> str | None:
    """Return which operation's rule gives an infinity or NaN for a finite gradient."""
    results = [operation.out for operation in trace.operations if operation.out.requires_grad]
    if not results:
        return None
    reached: dict[int, Any] = {}
    for y, weights in seeds:
        if y.requires_grad:
            seed = Tensor(devices.to_device(weights, y.device))
            found = autodiff.grad(y, results, seed, retain_graph=True)
            for x, g in zip(results, found, strict=True):
                reached[id(x)] = g if id(x) not in reached else reached[id(x)] + g
    for operation in reversed(trace.operations):
        g = reached.get(id(operation.out))
        if g is None or not numpy.isfinite(g.numpy()).all():
            continue
        for index, x in enumerate(operation.inputs):
            rule = operation.primitive.rule(index) if x.requires_grad else None
            if rule is None:
                continue
            gradient = rule(g, operation.out, *operation.inputs, **operation.attributes).numpy()
            if not numpy.isfinite(gradient).all():
                return _rule(operation, index, gradient)
    return None


def _rule(operation: TracedOperation, index: int, gradient: numpy.ndarray) -> str:
    name = operation.primitive.name
    place = tuple(int(i) for i in numpy.argwhere(~numpy.isfinite(gradient))[0])
    values = _values_at([devices.to_numpy(x) for x in operation.arrays], place)
    if is_own(operation.primitive):
        return (
            f"the gradient rule of '{name}' for its input {index} gives {gradient[place]} where the input is "
            f"{values}: it is not a finite number, perhaps a division by 0 ({operation.line})"
        )
    return (
        f"'{name}' takes {values} at {place}, where its derivative is not a finite number "
        f"({operation.line}){_advice(operation)}"
    )


def _what_it_does(
    operation: TracedOperation, arrays: list[numpy.ndarray], y: numpy.ndarray, bad: numpy.ndarray
) -> str:
    place = tuple(int(i) for i in numpy.argwhere(bad)[0])
    value = y[place]
    return f"'{operation.primitive.name}' of {_values_at(arrays, place)} gives {value} at {place}"


def _values_at(arrays: list[numpy.ndarray], place: tuple[int, ...]) -> str:
    """Return what the inputs are at a place of the result; of a larger input, its range."""
    texts = []
    for a in arrays:
        try:
            texts.append(f"{numpy.broadcast_to(a, _at_least(a, place))[place]:.6g}")
        except ValueError:
            texts.append(f"numbers from {a.min():.4g} to {a.max():.4g}" if a.size else "nothing")
    return " and ".join(texts)


def _at_least(a: numpy.ndarray, place: tuple[int, ...]) -> tuple[int, ...]:
    """Return the smallest shape with this place to which an array may be broadcast."""
    shape = (1,) * (len(place) - a.ndim) + a.shape
    if len(shape) != len(place):
        raise ValueError
    return tuple(i + 1 if n == 1 else n for n, i in zip(shape, place, strict=True))


def _advice(operation: TracedOperation) -> str:
    advice = _ADVICE.get(operation.primitive.name)
    return f": {advice}" if advice and not is_own(operation.primitive) else ""


def is_own(primitive: Any) -> bool:
    """Return whether a primitive is the user's own, and not one of minidl's."""
    return not str(getattr(primitive.forward, "__module__", "")).startswith("minidl.")
