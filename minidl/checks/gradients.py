"""Gradient checks: what backward computes against what central differences measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.tensor import Parameter, Tensor, tensor


class GradientError(AssertionError):
    """A gradient disagrees with the differences of the function."""


def check_gradients(
    function: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    relative_tolerance: float = 1e-5,
    absolute_tolerance: float = 1e-7,
    seed: int = 0,
) -> None:
    """Compare the gradients of a function with central differences, in float64.

    The function's output is weighted with random numbers and summed; the gradient of that sum with
    respect to every floating-point input, and to every Parameter that the function used, is
    compared with (f(x + h) - f(x - h)) / 2h for each element.

    Parameters
    ----------
    function : takes Tensors, returns a Tensor or several; must give the same result when called
        again. Parameters in it should be float64 (``layer.astype("float64")``)
    inputs : arrays or Tensors; floating-point ones are converted to float64, others passed as
        they are
    order : 2 checks the gradients of the gradients too
    relative_tolerance, absolute_tolerance : a difference is an error if it is larger than
        ``absolute_tolerance + relative_tolerance * |numerical|``
    seed : decides the random weights

    Raises
    ------
    GradientError
        A gradient is wrong; the message names the input or Parameter, the element, both values.
    """
    if order not in (1, 2):
        raise ValueError(f"check_gradients: order must be 1 or 2, got {order}")
    leaves = [_float64(x) for x in inputs]
    rng = numpy.random.default_rng(seed)
    weights: list[Tensor] = []

    def objective(*tensors: Tensor) -> Tensor | None:
        outputs = function(*tensors)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        outputs = [y for y in outputs if y.dtype.kind == "f"]
        if not weights:
            weights.extend(_random_like(y, rng) for y in outputs)
        total = None
        for y, w in zip(outputs, weights, strict=True):
            term = (y * w).sum()
            total = term if total is None else total + term
        return total

    total = objective(*leaves)
    if total is None:
        raise ValueError("check_gradients: the function returns no floating-point Tensor")
    watched = {f"input {i}": x for i, x in enumerate(leaves) if x.requires_grad}
    watched |= {f"parameter {i}": p for i, p in enumerate(_parameters_behind(total))}
    analytic = dict(zip(watched, autodiff.grad(total, list(watched.values())), strict=True))
    for name, x in watched.items():
        _compare(name, x, analytic[name], lambda: objective(*leaves), relative_tolerance, absolute_tolerance)
    if order == 2:
        differentiated = [x for x in leaves if x.requires_grad]

        def gradients(*tensors: Tensor) -> list[Tensor]:
            total = objective(*tensors)
            assert total is not None
            chosen = [x for x in tensors if x.requires_grad]
            return autodiff.grad(total, chosen, create_graph=True)

        if differentiated:
            check_gradients(
                gradients,
                *leaves,
                relative_tolerance=relative_tolerance,
                absolute_tolerance=absolute_tolerance,
                seed=seed + 1,
            )


def _float64(x: Any) -> Tensor:
    source = tensor(x)
    if source.dtype.kind != "f":
        return source
    return Tensor(source.data.astype(numpy.float64), requires_grad=True)


def _random_like(y: Tensor, rng: numpy.random.Generator) -> Tensor:
    return Tensor(devices.to_device(rng.uniform(0.5, 1.5, y.shape), y.device))


def _parameters_behind(output: Tensor) -> list[Parameter]:
    """Return the Parameters that a result was computed from."""
    seen: dict[int, Tensor] = {}
    waiting = [output]
    while waiting:
        x = waiting.pop()
        if id(x) not in seen and x.requires_grad:
            seen[id(x)] = x
            waiting.extend(x.inputs or ())
    return [x for x in seen.values() if isinstance(x, Parameter)]


def _compare(
    name: str,
    x: Tensor,
    analytic: Tensor,
    objective: Callable[[], Tensor | None],
    relative_tolerance: float,
    absolute_tolerance: float,
) -> None:
    """Compare one gradient with the central differences of each element of x."""
    given = analytic.numpy()
    if given.shape != x.shape:
        raise GradientError(f"{name}: the gradient has shape {given.shape}, the input {x.shape}")
    original = x.data
    values = devices.to_numpy(original).astype(numpy.float64)
    numerical = numpy.empty_like(values)
    try:
        for index in numpy.ndindex(values.shape):
            h = 6e-6 * max(1.0, abs(float(values[index])))  # the cube root of float64's epsilon
            sides = []
            for shifted in (values[index] + h, values[index] - h):
                moved = values.copy()
                moved[index] = shifted
                x.data = devices.to_device(moved.astype(original.dtype), x.device)
                total = objective()
                assert total is not None
                sides.append(total.item())
            numerical[index] = (sides[0] - sides[1]) / (2 * h)
    finally:
        x.data = original
    error = numpy.abs(given - numerical)
    wrong = ~(error <= absolute_tolerance + relative_tolerance * numpy.abs(numerical))
    if wrong.any():
        worst = numpy.unravel_index(numpy.argmax(numpy.where(wrong, error, -1)), error.shape)
        raise GradientError(
            f"{name}: {wrong.sum()} of {wrong.size} gradients are wrong; at {tuple(map(int, worst))} "
            f"backward gives {given[worst]:.8g}, the difference quotient is {numerical[worst]:.8g}"
        )
