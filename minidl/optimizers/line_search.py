"""A line search for the strong Wolfe conditions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy

from minidl.optimizers.full_batch import Objective

#: By which share of what the slope promises the objective must fall, at least.
SUFFICIENT_DECREASE = 1e-4
#: How often one search may compute the objective.
MAX_EVALUATIONS = 25


@dataclass
class Point:
    """A point on the line: how many steps along, where, and value, gradient and slope there."""

    step: float
    vector: numpy.ndarray
    total: float
    gradient: numpy.ndarray
    slope: float


def line_search(
    objective: Objective, start: Point, direction: numpy.ndarray, step: float, curvature: float
) -> Point | None:
    """Return a point along a direction that satisfies the strong Wolfe conditions, or the best one found.

    They ask for ``f(step) <= f(0) + 1e-4 * step * f'(0)`` and ``|f'(step)| <= curvature * |f'(0)|``
    (Nocedal & Wright, 2006, algorithms 3.5 and 3.6, here as one loop: steps grow until a minimum lies
    between two of them, and then the interval shrinks, both by cubic interpolation).

    Parameters
    ----------
    start : the point with step 0; its slope, the product of gradient and direction, is negative
    step : the first step to try

    Returns
    -------
    None if no point was found where the objective is lower.
    """
    low, high = start, None  # low is the best point so far; a minimum lies between them, once there is a high
    for _ in range(MAX_EVALUATIONS):
        vector = start.vector + step * direction
        total, gradient = objective(vector)
        trial = Point(step, vector, total, gradient, float(gradient @ direction))
        promised = start.total + SUFFICIENT_DECREASE * step * start.slope
        if not (_is_finite(trial) and total <= promised and (low is start or total < low.total)):
            high = trial
        elif abs(trial.slope) <= curvature * abs(start.slope):
            return trial
        else:
            goes_up = trial.slope * (1.0 if high is None else high.step - low.step) >= 0
            before, low = low, trial
            if goes_up:
                high = before
            elif high is None:  # still on the way down
                step = _between(_cubic_minimum(before, trial), 1.1 * step, 4 * step, 2.5 * step)
                continue
        margin = 0.1 * (high.step - low.step)
        step = _between(
            _cubic_minimum(low, high), low.step + margin, high.step - margin, (low.step + high.step) / 2
        )
        if abs(high.step - low.step) <= 1e-12 * max(low.step, high.step):
            break
    return None if low is start else low


def _is_finite(point: Point) -> bool:
    return math.isfinite(point.total) and math.isfinite(point.slope)


def _between(value: float, one: float, other: float, otherwise: float) -> float:
    """Return the value, moved into the interval; another one if it is not a number."""
    if not math.isfinite(value):
        return otherwise
    return min(max(value, min(one, other)), max(one, other))


def _cubic_minimum(a: Point, b: Point) -> float:
    """Return where the cubic through both points with their slopes has its minimum, or NaN."""
    if not (_is_finite(a) and _is_finite(b)) or a.step == b.step:
        return math.nan
    d1 = a.slope + b.slope - 3 * (a.total - b.total) / (a.step - b.step)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.step - a.step)
    divisor = b.slope - a.slope + 2 * d2
    return b.step - (b.step - a.step) * (b.slope + d2 - d1) / divisor if divisor else math.nan
