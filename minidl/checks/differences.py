"""Difference quotients: derivatives that are measured with values of a function alone.

Central differences (f(x + h) - f(x - h)) / 2h in float64 have an error of about 1e-9. Where they disagree
with a gradient, other steps and one-sided quotients are tried. A gradient is wrong only where the quotients
converge, and to something else. At a kink (a relu at 0) the two sides differ however small the step, and the
gradient must lie between them. Where nothing converges, the function is too ill-conditioned to tell.

A function is measured part by part: each output by itself, and within an output numbers of one size, so that
a large number does not hide a small one. From each value its starting value is subtracted first.

(Complex steps would be more exact still, but layers and losses would have to compute with complex numbers,
which minidl does not support.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import devices
from minidl.tensor import Tensor

UNMEASURED, RIGHT, WRONG, KINK, UNCLEAR = range(5)

#: In a larger Tensor, random directions are measured unless the caller asks for more.
LARGE = 100
DIRECTIONS = 3
_STEP = 6e-6  # the cube root of float64's epsilon: rounding and curvature cost the same there
_GRID = 6  # rows and columns of a large Tensor that are measured where its gradient is wrong
#: Steps in the order in which they are tried; larger ones last, for functions with much rounding inside.
_FACTORS = (1.0, 8.0**-1, 8.0**-2, 8.0**-3, 8.0**-4, 8.0, 64.0)
_ROUNDING = 1e-12  # of backward itself, relative to the size of a part
_EPSILON = float(numpy.finfo(float).eps)


@dataclass
class Tolerance:
    """How far a gradient may be from its measurement: absolute + relative * |measured|."""

    relative: float
    absolute: float

    def within(self, scale: float) -> Tolerance:
        """Return the tolerance among gradients of which the largest is ``scale``."""
        return Tolerance(self.relative, self.absolute * scale) if 0 < scale < 1 else self

    def allows(self, given: Any, measured: Any, noise: Any) -> Any:
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


@dataclass(eq=False)
class Part:
    """Numbers of one output that are compared together, with a weight for each; 0 leaves one out."""

    name: str
    output: int
    weights: numpy.ndarray
    start: numpy.ndarray

    def change(self, y: numpy.ndarray) -> tuple[float, float]:
        """Return the weighted sum of what has changed since the start, and the size of its rounding."""
        moved = numpy.where(self.weights != 0, y - self.start, 0.0)
        terms = numpy.abs(numpy.where(moved != 0, self.weights * y, 0.0))
        return float((self.weights * moved).sum()), _EPSILON * float(terms.sum())


def parts_of_outputs(outputs: list[numpy.ndarray], weights: list[numpy.ndarray], limit: int) -> list[Part]:
    """Split outputs into parts of finite numbers of one size; beyond a limit, each output is one part."""
    parts: list[Part] = []
    for i, (y, w) in enumerate(zip(outputs, weights, strict=True)):
        with numpy.errstate(all="ignore"):
            decade = numpy.floor(numpy.log10(numpy.abs(y)) / 3)
        decade = numpy.where((decade == -1) | (y == 0), 0, numpy.clip(numpy.nan_to_num(decade), -4, 4))
        sizes = numpy.unique(decade[numpy.isfinite(y)]) if y.size else numpy.zeros(1)
        if len(parts) + len(sizes) > limit:
            decade, sizes = numpy.zeros(y.shape), numpy.zeros(min(1, len(sizes)))
        for size in sizes:
            chosen = numpy.isfinite(y) & (decade == size)
            name = f"output {i}" + (
                "" if len(sizes) == 1 else f", its numbers of about {_example(y[chosen])}"
            )
            parts.append(Part(name, i, numpy.where(chosen, w, 0.0), y.copy()))
    return parts


def _example(values: numpy.ndarray) -> str:
    return f"{float(numpy.median(numpy.abs(values))):.0e}"


@dataclass
class Comparison:
    """A gradient and its measurement, for one Tensor.

    Attributes
    ----------
    given, measured : arrays of the Tensor's shape, of the first part of the outputs that is wrong, or of all
        parts; ``measured`` is NaN where nothing was measured
    part : the name of that part, or ""
    states : for each element UNMEASURED, RIGHT, WRONG, KINK or UNCLEAR
    count, unit : how much was measured: "elements", or random "directions" in a large Tensor
    kinks : how many of them lie where the function has no derivative; there the gradient lies between the
        slopes of the two sides
    unclear : how many could not be compared, because the function is ill-conditioned there
    at_kink : the gradient is wrong because it is not between the slopes of a kink
    largest_error : the largest relative error of what was measured
    """

    name: str
    given: numpy.ndarray
    measured: numpy.ndarray = field(init=False)
    states: numpy.ndarray = field(init=False)
    part: str = ""
    count: int = 0
    unit: str = "elements"
    kinks: int = 0
    unclear: int = 0
    at_kink: bool = False
    slopes: tuple[float, float] | None = None
    largest_error: float = 0.0

    def __post_init__(self) -> None:
        self.measured = numpy.full(self.given.shape, numpy.nan)
        self.states = numpy.full(self.given.shape, UNMEASURED)

    @property
    def is_wrong(self) -> bool:
        """Whether any element is wrong."""
        return bool((self.states == WRONG).any())

    @property
    def compared(self) -> int:
        """How much was compared with a derivative."""
        return self.count - self.kinks - self.unclear

    def worst(self) -> tuple[int, ...]:
        """Return the index of the wrong element with the largest error."""
        error = numpy.abs(self.given - self.measured)
        error = numpy.where(numpy.isfinite(error), error, numpy.inf)
        flat = int(numpy.argmax(numpy.where(self.states == WRONG, error, -1.0)))
        return tuple(int(i) for i in numpy.unravel_index(flat, self.given.shape))


#: What a function gives where it stands: for each part, how much it has changed, and the rounding of that.
Evaluation = tuple[numpy.ndarray, numpy.ndarray]


class Differences:
    """Measures derivatives of one function of the Tensors in it, part by part.

    Parameters
    ----------
    evaluate : computes the function from the Tensors as they are
    tolerance : when a gradient counts as right
    sample : the largest number of elements or directions to measure of each Tensor; None is all elements
        of Tensors of up to 100, and 3 directions of larger ones
    names : of the parts of the function
    """

    def __init__(
        self,
        evaluate: Callable[[], Evaluation],
        tolerance: Tolerance,
        sample: int | None,
        rng: Any,
        names: list[str] | None = None,
    ):
        self.evaluate, self.tolerance, self.sample, self.rng = evaluate, tolerance, sample, rng
        self.names = names or [""]
        self.compared = numpy.zeros(len(self.names), int)  # how much was compared of each part
        self.left_out = numpy.zeros(len(self.names), int)  # how much could not be

    def compare(self, name: str, x: Tensor, given: numpy.ndarray, scales: Any = None) -> Comparison:
        """Compare gradients with respect to x with measurements.

        Parameters
        ----------
        given : the gradient of each part: (parts, *x.shape)
        scales : how large the numbers of each part are
        """
        given = given.reshape(len(self.names), *x.shape)
        result = Comparison(name, given.sum(axis=0) if len(given) > 1 else given[0])
        finite = numpy.isfinite(given).reshape(len(given), -1).all(axis=1)
        if not finite.all():
            part = int(numpy.argmin(finite))
            result.given, result.part = given[part], self.names[part] if len(given) > 1 else ""
            result.states[~numpy.isfinite(result.given)] = WRONG
            result.count = result.given.size
            return result
        largest = numpy.abs(given).reshape(len(given), -1).max(axis=1, initial=0.0)
        if scales is not None:
            largest = numpy.where(largest == 0, scales, largest)
        sizes = numpy.ones(len(given)) if scales is None else scales
        tolerances = [
            Tolerance(t.relative, max(t.absolute, _ROUNDING * float(size)))
            for t, size in zip(map(self.tolerance.within, map(float, largest)), sizes, strict=True)
        ]
        floors = [self.tolerance.within(float(size)).absolute for size in sizes]
        measuring = _Measuring(self, x, given, tolerances, floors)
        original = devices.copy(x.data)
        try:
            with numpy.errstate(all="ignore"):  # a step may leave the domain of the function
                if x.size <= (LARGE if self.sample is None else self.sample):
                    measuring.elements(result, numpy.ndindex(x.shape))
                else:
                    measuring.directions(result)
        finally:
            devices.write(x.data, original)
        # That nothing changes says something where other elements of the same Tensor do change the part.
        self.compared += numpy.where(measuring.left_out > 0, measuring.right, measuring.compared)
        self.left_out += measuring.left_out
        return result

    def is_right_at(self, x: Tensor, index: tuple[int, ...], given: float) -> bool:
        """Return whether one element of the gradient with respect to x agrees with its measurement."""
        element = Element(x, index)
        with numpy.errstate(all="ignore"):
            one = numpy.array([given])
            found = _Measuring(self, x, one[:, None], [self.tolerance], [self.tolerance.absolute]).measure(
                element, one
            )
        element.move(0.0)
        return found[0].state == RIGHT


class _Measuring:
    """The comparison of the gradients of all parts with respect to one Tensor."""

    def __init__(
        self,
        differences: Differences,
        x: Tensor,
        given: numpy.ndarray,
        tolerances: list[Tolerance],
        floors: list[float],
    ):
        self.differences, self.x, self.given = differences, x, given
        self.tolerances, self.floors = tolerances, floors
        self.shown: int | None = None if len(given) > 1 else 0  # the part that the result shows
        self.compared, self.right, self.left_out = numpy.zeros((3, len(given)), int)  # of each part

    def elements(self, result: Comparison, indices: Any) -> None:
        """Measure single elements."""
        for index in indices:
            element = Element(self.x, index)
            found = self.measure(element, self.given[(slice(None), *index)])
            element.move(0.0)
            part = self._note(result, found)
            if part is None:
                result.states[index] = _state_of_all(found)
            else:
                self._show(result, part)
                result.states[index] = WRONG
            shown = found if self.shown is None else [found[self.shown]]
            result.measured[index] = sum(m.measured for m in shown)

    def directions(self, result: Comparison) -> None:
        """Measure random directions; where one is wrong, look for the elements that are."""
        result.unit = "directions"
        sample = self.differences.sample
        for number in range(DIRECTIONS if sample is None else sample):
            direction = self._direction(number)
            along = Direction(self.x, direction)
            given = (self.given * direction).reshape(len(self.given), -1).sum(axis=1)
            found = self.measure(along, given)
            along.move(0.0)
            part = self._note(result, found)
            if part is not None:
                self._show(result, part)
                self._locate(result, direction, part)
                return

    def _direction(self, number: int) -> numpy.ndarray:
        """Return a random direction; every second one moves elements more whose gradients are smaller."""
        direction: numpy.ndarray = self.differences.rng.standard_normal(self.x.shape)
        sizes = numpy.abs(self.given).sum(axis=0)
        if number % 2 and sizes.any():
            direction /= numpy.maximum(sizes, 1e-6 * sizes.max())
        direction /= numpy.linalg.norm(direction)
        return direction

    def _note(self, result: Comparison, found: list[_Measurement]) -> int | None:
        """Count one measurement; return the first part whose gradient is wrong."""
        states = numpy.array([m.state for m in found])
        result.count += 1
        self.compared += numpy.array([m.says_something for m in found])
        self.right += states == RIGHT
        self.left_out += (states == KINK) | (states == UNCLEAR)
        if (states == WRONG).any():
            part = int(numpy.argmax(states == WRONG))
            result.at_kink, result.slopes = found[part].slopes is not None, found[part].slopes
            return part
        state = _state_of_all(found)
        result.kinks += state == KINK
        result.unclear += state == UNCLEAR
        result.largest_error = max(result.largest_error, *(m.error for m in found if m.state == RIGHT), 0.0)
        return None

    def _show(self, result: Comparison, part: int) -> None:
        """Let the result show the gradient of the first wrong part alone."""
        if self.shown is None:
            self.shown = part
            result.given, result.part = self.given[part], self.differences.names[part]
            result.measured[:] = numpy.nan

    def _locate(self, result: Comparison, direction: numpy.ndarray, part: int) -> None:
        """Measure single elements: the one that bisection of the error finds, and a grid over the Tensor."""
        low, high = 0, self.x.size
        while high - low > 1:
            middle = (low + high) // 2
            errors = [self._error_within(direction, part, *half) for half in ((low, middle), (middle, high))]
            low, high = (low, middle) if errors[0] >= errors[1] else (middle, high)
        chosen = {tuple(int(i) for i in numpy.unravel_index(low, self.x.shape))}
        axes = [numpy.unique(numpy.linspace(0, n - 1, min(n, _GRID)).astype(int)) for n in self.x.shape[-2:]]
        lead = (0,) * (self.x.ndim - len(axes))
        for at in numpy.ndindex(*(len(axis) for axis in axes)):
            chosen.add((*lead, *(int(axis[i]) for axis, i in zip(axes, at, strict=True))))
        self.elements(result, sorted(chosen))
        if not result.is_wrong:  # the errors of single elements lie within the tolerance
            index = tuple(int(i) for i in numpy.unravel_index(low, self.x.shape))
            result.states[index] = WRONG

    def _error_within(self, direction: numpy.ndarray, part: int, low: int, high: int) -> float:
        piece = numpy.zeros(self.x.size)
        piece[low:high] = direction.ravel()[low:high]
        piece = piece.reshape(self.x.shape)
        along = Direction(self.x, piece)
        quotient = (self._at(along, _STEP)[0][part] - self._at(along, -_STEP)[0][part]) / (2 * _STEP)
        along.move(0.0)
        return float(abs(quotient - (self.given[part] * piece).sum()))

    def measure(self, place: Element | Direction, given: numpy.ndarray) -> list[_Measurement]:
        """Return the measured derivative of each part, and whether the given one agrees."""
        rows = zip(given, self.tolerances, self.floors, strict=True)
        series = [_Series(float(g), tolerance, floor) for g, tolerance, floor in rows]
        for factor in _FACTORS:
            step = _STEP * place.scale * factor
            up, up_rounding = self._at(place, step)
            down, down_rounding = self._at(place, -step)
            for i, one in enumerate(series):
                one.add(up[i] / step, -down[i] / step, 8 * max(up_rounding[i], down_rounding[i]) / step)
            if all(one.agrees for one in series):
                break
        return [one.result() for one in series]

    def _at(self, place: Element | Direction, step: float) -> Evaluation:
        place.move(step)
        return self.differences.evaluate()


@dataclass
class _Measurement:
    """A derivative: its state and value, and the slopes of the two sides if it lies outside of them."""

    state: int
    measured: float
    error: float = 0.0
    slopes: tuple[float, float] | None = None

    @property
    def says_something(self) -> bool:
        """Whether a derivative was compared that is not just 0 because nothing moved."""
        return self.state == WRONG or (self.state == RIGHT and self.measured != 0)


def _state_of_all(found: list[_Measurement]) -> int:
    """Return one state for the measurements of all parts, none of which is wrong."""
    states = [m.state for m in found]
    if any(m.says_something for m in found):
        return RIGHT
    return KINK if KINK in states else UNCLEAR if UNCLEAR in states else RIGHT


class _Series:
    """The quotients of one part at one place, for smaller and smaller steps.

    A measurement counts if rounding has moved it by less than a hundredth of it, or than the floor.
    """

    def __init__(self, given: float, tolerance: Tolerance, floor: float):
        self.given, self.tolerance, self.floor = given, tolerance, floor
        self.right: list[float] = []
        self.left: list[float] = []
        self.noise: list[float] = []
        self.agrees = False

    def add(self, right: float, left: float, noise: float) -> None:
        """Add the quotients of the two sides, and how far rounding may have moved them."""
        if self.agrees:
            return
        self.right.append(right)
        self.left.append(left)
        self.noise.append(noise)
        central = (right + left) / 2
        known = noise <= 0.01 * max(abs(central), abs(self.given)) + self.floor
        self.agrees = bool(known and self.tolerance.allows(self.given, central, noise))

    def result(self) -> _Measurement:
        """Decide what the quotients say."""
        central = [(r + s) / 2 for r, s in zip(self.right, self.left, strict=True)]
        if self.agrees:
            return _Measurement(RIGHT, central[-1], relative_error(self.given, central[-1]))
        if not numpy.isfinite([*self.right[:5], *self.left[:5]]).all():
            return _Measurement(KINK, central[0])  # at the end of the domain
        kink = self._kink()
        if kink is not None:
            low, high = min(kink), max(kink)
            margin = 1e-3 * max(abs(low), abs(high)) + self.tolerance.absolute + self.noise[3]
            if low - margin <= self.given <= high + margin:
                return _Measurement(KINK, sum(kink) / 2)
            return _Measurement(WRONG, low if self.given < low else high, slopes=(kink[1], kink[0]))
        value, error = self._limit(central)
        allowed = self.tolerance.absolute + self.tolerance.relative * abs(value) + 3 * error
        if abs(self.given - value) > allowed:
            known = error <= 0.05 * max(abs(value), abs(self.given))
            if value == 0 and any(central):  # small steps vanish in the rounding of large numbers inside
                known = False
            return _Measurement(WRONG if known else UNCLEAR, value)
        largest = max(abs(self.given), *map(abs, central))
        clear = error <= 0.01 * largest + self.tolerance.absolute
        return _Measurement(
            RIGHT if clear else UNCLEAR, value, min(relative_error(self.given, value), 3 * error)
        )

    def _kink(self) -> tuple[float, float] | None:
        """Return the slopes to the right and to the left if they converge, to different values."""
        right, right_error = self._limit(self.right[:5])
        left, left_error = self._limit(self.left[:5])
        gap = abs(right - left)
        errors = right_error + left_error
        if gap <= self.tolerance.absolute + 1e-3 * max(abs(right), abs(left)) + 10 * errors:
            return None
        # Curvature makes a gap between the two sides that shrinks with the step; the gap of a kink stays.
        gaps = [abs(r - s) for r, s in zip(self.right[:5], self.left[:5], strict=True)]
        return (right, left) if gaps[3] > 0.2 * gaps[1] else None

    def _limit(self, quotients: list[float]) -> tuple[float, float]:
        """Return what quotients converge to, and an error: from the two neighbours that agree best."""
        order = numpy.argsort(_FACTORS[: len(quotients)])[::-1]
        best = (numpy.nan, numpy.inf)
        for a, b in itertools.pairwise(order):
            error = abs(quotients[a] - quotients[b]) + min(self.noise[a], self.noise[b])
            if error < best[1]:
                best = (quotients[b] if self.noise[b] <= error else quotients[a], error)
        return best


def relative_error(given: float, measured: float) -> float:
    """Return |given - measured| relative to the larger of the two; 0 for 0 and 0."""
    largest = max(abs(given), abs(measured))
    return abs(given - measured) / largest if largest else 0.0
