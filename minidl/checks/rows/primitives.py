"""The layer's own primitives: whether their forward writes to ``out`` as compiled programs ask it to."""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.not_finite import is_own
from minidl.checks.tracing import TracedOperation


def own_primitives(run: LayerRun) -> str | None:
    """its own primitives write to out="""
    if not run.has_own_primitives():
        raise Skip("the layer has no primitive of its own")
    seen: dict[str, TracedOperation] = {}
    for training in (False, True):
        trace, _ = run.trace(run.observations(), training)
        for operation in trace.operations:
            if is_own(operation.primitive) and operation.primitive.kind not in ("view", "random", "assign"):
                seen.setdefault(operation.primitive.name, operation)
    if not seen:
        raise Skip("the layer has no primitive of its own")
    for operation in seen.values():
        _check(run, operation)
    return ", ".join(seen)


def _check(run: LayerRun, operation: TracedOperation) -> None:
    name, arrays = operation.primitive.name, _copies(operation)
    expected = _forward(operation, arrays)
    for index, (x, before) in enumerate(zip(arrays, operation.arrays, strict=True)):
        if not _same(devices.to_numpy(x), devices.to_numpy(before)):
            raise Problem(
                f"the forward of '{name}' overwrites its input {index}: write to out= alone, or to a "
                "new array "
                f"({operation.line})"
            )
    run.compared += expected.size
    target = devices.to_device(
        numpy.full(expected.shape, 77, expected.dtype), devices.device_of(operation.arrays[0])
    )
    try:
        _forward(operation, _copies(operation), target)
    except TypeError as error:
        raise Problem(
            f"the forward of '{name}' takes no out=, which compiled programs give it: {error}"
        ) from None
    if not _same(devices.to_numpy(target), expected):
        raise Problem(
            f"the forward of '{name}' does not write its result to out=: compiled programs read it there "
            f"({operation.line})"
        )
    for index in _aliases(operation, expected):
        arrays = _copies(operation)
        _forward(operation, arrays, arrays[index])
        if not _same(devices.to_numpy(arrays[index]), expected):
            raise Problem(
                f"the forward of '{name}' gives another result if out= is the memory of its input "
                f"{index}: it "
                f"reads that input after it has written to out. Leave {index} out of may_alias, or compute "
                f"the result before writing ({operation.line})"
            )


def _forward(operation: TracedOperation, arrays: list[Any], out: Any = None) -> numpy.ndarray:
    xp = devices.array_module(arrays[0])
    options = operation.attributes if out is None else {**operation.attributes, "out": out}
    with devices.current(arrays[0]), numpy.errstate(all="ignore"):
        result = xp.asarray(operation.primitive.forward(xp, *arrays, **options))
    return numpy.array(devices.to_numpy(result))


def _aliases(operation: TracedOperation, expected: numpy.ndarray) -> list[int]:
    allowed = operation.primitive.may_alias
    return [
        i
        for i, a in enumerate(operation.arrays)
        if (allowed is None or i in allowed) and a.shape == expected.shape and a.dtype == expected.dtype
    ]


def _copies(operation: TracedOperation) -> list[Any]:
    return [devices.copy(a) for a in operation.arrays]


def _same(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    return a.shape == b.shape and bool(
        numpy.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=a.dtype.kind == "f")
    )
