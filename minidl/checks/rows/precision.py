"""Whether float32 gives what float64 gives, within the rounding that the function itself magnifies."""

from __future__ import annotations

import numpy

from minidl import devices
from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.not_finite import in_forward
from minidl.mode import no_grad
from minidl.tensor import Tensor, tensor

_EPSILON = float(numpy.finfo("float32").eps)
_SHAKES = 3
_LARGEST = 1e30  # what is larger may be infinite in float32
_TINY = 1e-30  # what is smaller may be 0 in float32

#: Inputs: how many times as large as ordinary ones, shifted by how much, and which error is allowed relative
#: to each number, and to the typical one of the output.
_RANGES = (
    (1.0, 0.0, 1e-3, 1e-5),
    (10.0, 0.0, numpy.inf, numpy.inf),  # whether it overflows, and no more
    (100.0, 0.0, numpy.inf, numpy.inf),
    (1.0, 1000.0, 2e-2, 1e-3),
)


def float32_agrees(run: LayerRun) -> str | None:
    """float32 agrees with float64"""
    ranges = _RANGES if run.examples.are_random else _RANGES[:1]
    for scale, shift, own, typical in ranges:
        run.rewind()
        inputs = [
            tensor(x.numpy() * scale + shift, "float32", device=x.device) if x.dtype.kind == "f" else x
            for x in run.observations(dtype="float32")
        ]
        run.layer.astype("float32")
        low = _outputs(run, inputs)
        run.layer.astype("float64")
        wide = [x.astype("float64") if x.dtype.kind == "f" else x for x in inputs]
        high = _outputs(run, wide)
        if not any(y.dtype.kind == "f" for y in high):
            raise Skip("no output is floating-point")
        what = "ordinary inputs" if (scale, shift) == (1, 0) else f"inputs around {shift or scale:g}"
        nothing = [numpy.zeros(y.shape) for y in high]
        if numpy.isinf(own) or _excess(low, high, nothing, own, typical) is None:
            _compare(run, inputs, low, high, nothing, what, own, typical)
        else:
            _compare(run, inputs, low, high, _rounding(run, wide, high), what, own, typical)
    return None


def _outputs(run: LayerRun, inputs: list[Tensor]) -> list[numpy.ndarray]:
    with no_grad():
        return run.arrays(inputs)


def _rounding(run: LayerRun, inputs: list[Tensor], outputs: list[numpy.ndarray]) -> list[numpy.ndarray]:
    """Return how far outputs move if inputs and Parameters are rounded to float32 in other ways."""
    rng = numpy.random.default_rng(0)
    moved = [numpy.zeros(y.shape) for y in outputs]
    tensors = [x for _, x in run.layer.named_tensors() if x.dtype.kind == "f"]
    kept = [x.data for x in tensors]
    for _ in range(_SHAKES):
        shaken = [
            tensor(x.numpy() * (1 + _EPSILON * rng.uniform(-1, 1, x.shape)), device=x.device)
            if x.dtype.kind == "f"
            else x
            for x in inputs
        ]
        for x, data in zip(tensors, kept, strict=True):
            shaken_data = devices.to_numpy(data) * (1 + _EPSILON * rng.uniform(-1, 1, x.shape))
            x.data = devices.to_device(numpy.asarray(shaken_data), x.device)
        for total, y, start in zip(moved, _outputs(run, shaken), outputs, strict=True):
            with numpy.errstate(all="ignore"):
                numpy.maximum(total, numpy.abs(y - start), out=total)
    for x, data in zip(tensors, kept, strict=True):
        x.data = data
    return moved


def _excess(
    low: list[numpy.ndarray],
    high: list[numpy.ndarray],
    rounding: list[numpy.ndarray],
    own: float,
    typical: float,
) -> tuple[int, tuple[int, ...]] | None:
    """Return the output and the place where float32 is off by most beyond what is allowed, if it is."""
    for i, (a, b, moved) in enumerate(zip(low, high, rounding, strict=True)):
        if b.dtype.kind != "f" or not b.size:
            continue
        fits = numpy.isfinite(b) & (numpy.abs(b) < _LARGEST)
        size = float(numpy.sqrt((b[fits] ** 2).mean())) if fits.any() else 0.0
        with numpy.errstate(all="ignore"):
            allowed = own * numpy.abs(b) + 300 * numpy.nan_to_num(moved, nan=numpy.inf) + typical * size
            allowed = numpy.nan_to_num(allowed, nan=numpy.inf) + (_TINY if typical < 1e-4 else 1e-6)
            vanished = (a == 0) & (typical > 1e-4)  # far from ordinary inputs, exp() may vanish in float32
            excess = numpy.where(fits & ~vanished, numpy.abs(a - b) - allowed, -1.0)
        if excess.max() > 0:
            return i, tuple(int(k) for k in numpy.unravel_index(int(numpy.argmax(excess)), b.shape))
    return None


def _compare(
    run: LayerRun,
    inputs: list[Tensor],
    low: list[numpy.ndarray],
    high: list[numpy.ndarray],
    rounding: list[numpy.ndarray],
    what: str,
    own: float,
    typical: float,
) -> None:
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if b.dtype.kind != "f":
            continue
        fits = numpy.isfinite(b) & (numpy.abs(b) < _LARGEST)
        run.compared += int(fits.sum())
        lost = fits & ~numpy.isfinite(a)
        if lost.any():
            place = tuple(int(k) for k in numpy.argwhere(lost)[0])
            run.layer.astype("float32")
            trace, _ = run.trace_now(inputs)
            reason = in_forward(trace)
            raise Problem(
                f"for {what}, output {i} at {place} is {a[place]} in float32, and {b[place]:.6g} in float64"
                + (f": {reason}" if reason else "")
            )
    found = _excess(low, high, rounding, own, typical)
    if found is not None:
        i, place = found
        single, double = float(low[i][place]), float(high[i][place])
        raise Problem(
            f"for {what}, output {i} at {place} is {single:.8g} in float32, and {double:.8g} in "
            f"float64, {abs(single - double):.1g} apart, where rounding the inputs moves it by "
            f"{rounding[i][place]:.1g}: large "
            "numbers that nearly cancel are subtracted on the way (E[x^2] - E[x]^2, 1 - cos x); write it so "
            "that they do not arise"
        )
