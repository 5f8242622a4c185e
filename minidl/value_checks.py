"""Checks of values: what a function takes for granted about the numbers it is given.

They look at values, so they are made on the CPU alone: on a GPU each would wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy

from minidl.mode import mode
from minidl.tensor import Tensor

#: How far the probabilities of a target may be from a sum of 1.
SUM_TOLERANCE = 1e-3


def check_values(
    x: Tensor, holds: Callable[[numpy.ndarray], bool], message: Callable[[numpy.ndarray], str]
) -> None:
    """Refuse a Tensor on the CPU with ValueError if its values do not have a property.

    Every check of values goes through here, so that a compiled function makes it again at each call.
    ``holds`` and ``message`` get the array.
    """
    if x.device != "cpu":
        return
    if mode.recorder is not None and not mode.recorder.check(x, holds, message):
        return  # only a replay will see them
    if not holds(x.data):
        raise ValueError(message(x.data))


def check_range(
    function: str, what: str, x: Tensor, low: float, high: float, allow_nan: bool = False
) -> None:
    """Refuse values outside [low, high], and NaN unless it is allowed."""

    def holds(array: numpy.ndarray) -> bool:
        smallest, largest = array.min(), array.max()
        if smallest < low or largest > high:
            return False
        return allow_nan or bool(smallest <= largest)  # comparisons with NaN are false

    check_values(
        x,
        holds,
        lambda array: (
            f"{function}: {what} must be in [{low}, {high}], got values from {array.min()} to {array.max()}"
            f"{_first(array, low, high)}"
        ),
    )


def _first(array: numpy.ndarray, low: float, high: float) -> str:
    """Return where the first value outside [low, high] is, in words."""
    with numpy.errstate(invalid="ignore"):
        inside = (array >= low) & (array <= high)
    place = tuple(int(i) for i in numpy.unravel_index(int(inside.argmin()), array.shape))
    return f" (the first at {place[0] if len(place) == 1 else place})" if array.ndim else ""


def check_sums_to_one(function: str, what: str, x: Tensor) -> None:
    """Refuse probabilities that do not sum to 1 over the last axis."""

    def worst(array: numpy.ndarray) -> float:
        sums = array.sum(axis=-1, dtype=numpy.float64)
        return float(sums.flat[numpy.abs(sums - 1).argmax()])

    check_values(
        x,
        lambda array: abs(worst(array) - 1) <= SUM_TOLERANCE,
        lambda array: f"{function}: {what} must sum to 1 over the last axis, got a sum of {worst(array):.6g}",
    )
