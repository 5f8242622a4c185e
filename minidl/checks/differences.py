"""Difference quotients: derivatives that are measured with values of a function alone.

Central differences (f(x + h) - f(x - h)) / 2h in float64 have an error of about 1e-9. Where they disagree
with a gradient, smaller steps and one-sided quotients are tried: at a kink (a relu at 0) the two sides differ
however small the step, and no measurement can decide which gradient is right.

(Complex steps would be more exact still, but layers and losses would have to compute with complex numbers,
which minidl does not support.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import devices
from minidl.tensor import Tensor

UNMEASURED, RIGHT, WRONG, KINK = range(4)

#: In a larger Tensor, random directions are measured unless the caller asks for more.
LARGE = 200
DIRECTIONS = 16
_STEP = 6e-6  # the cube root of float64's epsilon: rounding and curvature cost the same there
_GRID = 6  # rows and columns of a large Tensor that are measured where its gradient is wrong
_SHRINKS = (1.0, 1 / 8, 1 / 64)


@dataclass
class Tolerance:
    """How far a gradient may be from its measurement: absolute + relative * |measured|."""

    relative: float
    absolute: float

    def allows(self, given: float, measured: float, noise: float) -> bool:
        """Return whether the two agree, given a measurement error of at most ``noise``."""
        return abs(given - measured) <= self.absolute + self.relative * abs(measured) + noise


class Element:
    """One element of a Tensor that can be moved by a step."""

    def __init__(self, x: Tensor, index: tuple[int, ...]):
        self.x, self.index = x, index
        with devices.current(x.data):
            self.value = x.data[index].item()
        self.scale = max(1.0, abs(self.value))

    def move(self, step: float) -> None:
        """Set the element to its first value plus a step."""
        with devices.current(self.x.data):
            self.x.data[self.index] = self.value + step


class Direction:
    """All elements of a Tensor, which can be moved together along a direction."""

    def __init__(self, x: Tensor, direction: numpy.ndarray):
        self.x, self.start = x, devices.copy(x.data)
        self.direction = devices.to_device(direction, x.device)
        self.scale = 1.0

    def move(self, step: float) -> None:
        """Set the Tensor to its first value plus a step along the direction."""
        xp = devices.array_module(self.start)
        with devices.current(self.start):
            xp.add(self.start, xp.multiply(self.direction, step), out=self.x.data)


@dataclass
class Comparison:
    """A gradient and its measurement, for one Tensor.

    Attributes
    ----------
    given, measured : arrays of the Tensor's shape; ``measured`` is NaN where nothing was measured
    states : for each element UNMEASURED, RIGHT, WRONG or KINK
    count, unit : how much was compared: "elements", or random "directions" in a large Tensor
    kinks : how many of them lie where the function has no derivative
    largest_error : the largest relative error of what was measured
    """

    name: str
    given: numpy.ndarray
    measured: numpy.ndarray = field(init=False)
    states: numpy.ndarray = field(init=False)
    count: int = 0
    unit: str = "elements"
    kinks: int = 0
    largest_error: float = 0.0

    def __post_init__(self) -> None:
        self.measured = numpy.full(self.given.shape, numpy.nan)
        self.states = numpy.full(self.given.shape, UNMEASURED)

    @property
    def is_wrong(self) -> bool:
        """Whether any element is wrong."""
        return bool((self.states == WRONG).any())

    def worst(self) -> tuple[int, ...]:
        """Return the index of the wrong element with the largest error."""
        error = numpy.abs(self.given - self.measured)
        error = numpy.where(numpy.isfinite(error), error, numpy.inf)
        flat = int(numpy.argmax(numpy.where(self.states == WRONG, error, -1.0)))
        return tuple(int(i) for i in numpy.unravel_index(flat, self.given.shape))


class Differences:
    """Measures derivatives of one function of the Tensors in it.

    Parameters
    ----------
    evaluate : computes the function from the Tensors as they are
    tolerance : when a gradient counts as right
    sample : the largest number of elements or directions to measure of each Tensor; None is all elements
        of Tensors of up to 200, and 16 directions of larger ones
    """

    def __init__(self, evaluate: Callable[[], float], tolerance: Tolerance, sample: int | None, rng: Any):
        self.evaluate, self.tolerance, self.sample, self.rng = evaluate, tolerance, sample, rng

    def compare(self, name: str, x: Tensor, given: numpy.ndarray) -> Comparison:
        """Compare a gradient with respect to x with measurements."""
        result = Comparison(name, given)
        if not numpy.isfinite(given).all():
            result.states[~numpy.isfinite(given)] = WRONG
            result.count = given.size
            return result
        original = devices.copy(x.data)
        try:
            with numpy.errstate(all="ignore"):  # a step may leave the domain of the function
                if x.size <= (LARGE if self.sample is None else self.sample):
                    self._elements(result, x, numpy.ndindex(x.shape))
                else:
                    self._directions(result, x)
        finally:
            devices.write(x.data, original)
        return result

    def _elements(self, result: Comparison, x: Tensor, indices: Any) -> None:
        for index in indices:
            element = Element(x, index)
            state, measured = self.measure(element, float(result.given[index]))
            element.move(0.0)
            result.states[index], result.measured[index] = state, measured
            result.count += 1
            result.kinks += state == KINK
            if state == RIGHT:
                result.largest_error = max(
                    result.largest_error, relative_error(result.given[index], measured)
                )

    def _directions(self, result: Comparison, x: Tensor) -> None:
        result.unit = "directions"
        for _ in range(DIRECTIONS if self.sample is None else self.sample):
            direction = self.rng.standard_normal(x.shape) / numpy.sqrt(x.size)
            along = Direction(x, direction)
            state, measured = self.measure(along, float((result.given * direction).sum()))
            along.move(0.0)
            result.count += 1
            result.kinks += state == KINK
            if state == WRONG:
                self._locate(result, x, direction)
                return
            if state == RIGHT:
                given = float((result.given * direction).sum())
                result.largest_error = max(result.largest_error, relative_error(given, measured))

    def _locate(self, result: Comparison, x: Tensor, direction: numpy.ndarray) -> None:
        """Measure single elements: the one that bisection of the error finds, and a grid over the Tensor."""
        low, high = 0, x.size
        while high - low > 1:
            middle = (low + high) // 2
            errors = [
                self._error_within(result, x, direction, *half) for half in ((low, middle), (middle, high))
            ]
            low, high = (low, middle) if errors[0] >= errors[1] else (middle, high)
        chosen = {tuple(int(i) for i in numpy.unravel_index(low, x.shape))}
        axes = [numpy.unique(numpy.linspace(0, n - 1, min(n, _GRID)).astype(int)) for n in x.shape[-2:]]
        lead = (0,) * (x.ndim - len(axes))
        for at in numpy.ndindex(*(len(axis) for axis in axes)):
            chosen.add((*lead, *(int(axis[i]) for axis, i in zip(axes, at, strict=True))))
        self._elements(result, x, sorted(chosen))
        if not result.is_wrong:  # pragma: no cover - takes an error that lies just at the tolerance
            index = tuple(int(i) for i in numpy.unravel_index(low, x.shape))
            result.states[index] = WRONG

    def _error_within(
        self, result: Comparison, x: Tensor, direction: numpy.ndarray, low: int, high: int
    ) -> float:
        part = numpy.zeros(x.size)
        part[low:high] = direction.ravel()[low:high]
        part = part.reshape(x.shape)
        along = Direction(x, part)
        measured = (self._at(along, _STEP) - self._at(along, -_STEP)) / (2 * _STEP)
        along.move(0.0)
        return abs(measured - float((result.given * part).sum()))

    def measure(self, place: Element | Direction, given: float) -> tuple[int, float]:
        """Return the state of a derivative (RIGHT, WRONG or KINK) and its measurement."""
        first = first_gap = center = numpy.nan
        for shrink in _SHRINKS:
            step = _STEP * place.scale * shrink
            up, down = self._at(place, step), self._at(place, -step)
            measured = (up - down) / (2 * step)
            noise = 8 * numpy.finfo(float).eps * max(abs(up), abs(down)) / step
            if self.tolerance.allows(given, measured, noise):
                return RIGHT, measured
            if shrink == 1:
                center = self._at(place, 0.0)
                first, first_gap = measured, abs((up - center) - (center - down)) / step
        right, left = (up - center) / step, (center - down) / step
        if not numpy.isfinite([first, right, left]).all():
            return KINK, first  # at the end of the domain
        # Curvature makes a gap between the two sides that shrinks with the step; the gap of a kink stays.
        gap = abs(right - left)
        visible = gap > self.tolerance.absolute + 1e-3 * max(abs(right), abs(left)) + noise
        return (KINK if visible and gap > 0.05 * first_gap else WRONG), first

    def _at(self, place: Element | Direction, step: float) -> float:
        place.move(step)
        return self.evaluate()


def relative_error(given: float, measured: float) -> float:
    """Return |given - measured| relative to the larger of the two; 0 for 0 and 0."""
    largest = max(abs(given), abs(measured))
    return abs(given - measured) / largest if largest else 0.0
