"""Hints: the likely mistake behind a wrong gradient, from its difference to the measured one."""

from __future__ import annotations

import numpy

from minidl.checks.differences import KINK, RIGHT, UNMEASURED, WRONG, Comparison

_ROWS, _COLUMNS = 8, 16
_SIGNS = {UNMEASURED: " ", RIGHT: ".", WRONG: "x", KINK: "~"}


def likely_cause(given: numpy.ndarray, measured: numpy.ndarray, counts: dict[int, str]) -> str | None:
    """Return the likely mistake in a gradient, or None if it fits no known one.

    Parameters
    ----------
    given, measured : arrays of the same shape; ``measured`` is NaN where it is not known
    counts : numbers that may be a forgotten factor, such as the batch size, each with its description
    """
    if not numpy.isfinite(given).all():
        return "it is not a finite number: a division by 0, a log or a root of 0, or an overflow"
    known = numpy.isfinite(measured)
    a, b = given[known], measured[known]
    small = 1e-6 * max(float(numpy.abs(b).max()), float(numpy.abs(a).max()))
    if float(numpy.abs(a).max()) <= small:
        return "it is 0: the gradient is cut off"
    if float(numpy.abs(b).max()) <= small:
        return (
            "the result does not follow it at all: a value computed earlier is used in its place (a stale "
            "cache), or it is forgotten"
        )
    ratio = _constant_ratio(a, b, small)
    if ratio is not None:
        return _name_factor(ratio, counts)
    if given.ndim == 2 and given.shape[0] == given.shape[1] and _equal(given.T[known], b):
        return "it is the transpose of the right gradient"
    zero, should_be_zero = numpy.abs(a) <= small, numpy.abs(b) <= small
    if zero.any() and (zero != should_be_zero).all():
        return "it is 0 where it should not be, and the other way round: a condition is turned around"
    return _along_axes(given, measured, small)


def _equal(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    scale = float(numpy.abs(b).max())
    return bool(numpy.abs(a - b).max() <= 1e-4 * scale)


def _constant_ratio(a: numpy.ndarray, b: numpy.ndarray, small: float) -> float | None:
    """Return a / b if it is the same everywhere."""
    ratio = float((a * b).sum() / (b * b).sum())
    return (
        ratio
        if abs(ratio) > 1e-6 and numpy.abs(a - ratio * b).max() <= max(small, 1e-4 * numpy.abs(a).max())
        else None
    )


def _name_factor(ratio: float, counts: dict[int, str]) -> str:
    """Return a description of a wrong constant factor."""
    sign = "has the wrong sign" if ratio < 0 else ""
    size = abs(ratio)
    if ratio < 0 and abs(size - 1) < 1e-3:
        return f"it {sign}"
    factor = f"is {_number(size)} times the right gradient"
    if ratio < 0:
        factor = f"{sign}, and {factor}"
    for count, what in counts.items():
        if count > 1 and abs(size / count - 1) < 1e-3:
            return f"it {factor}: {count} is {what}; a division by it is missing (a sum for a mean)"
        if count > 1 and abs(size * count - 1) < 1e-3:
            return f"it {factor}: {count} is {what}; a division by it is too much (a mean for a sum)"
    if abs(size - 2) < 1e-3:
        return f"it {factor}: something is counted twice"
    if abs(size - 0.5) < 1e-3:
        return f"it {factor}: a factor 2 is missing (d/dx x^2 = 2x), or one of two equal contributions"
    return f"it {factor}: a constant factor is missing or too much"


def _number(value: float) -> str:
    inverse = 1 / value
    return (
        f"1/{round(inverse)}"
        if value < 1 and abs(inverse - round(inverse)) < 1e-3 * inverse
        else f"{value:.6g}"
    )


def _along_axes(given: numpy.ndarray, measured: numpy.ndarray, small: float) -> str | None:
    """Return a description of errors in some slices only, or of a factor that varies along one axis."""
    if given.ndim == 0 or not numpy.isfinite(measured).all():
        return None
    wrong = numpy.abs(given - measured) > 1e-4 * numpy.abs(measured) + small
    for axis in range(given.ndim):
        rest = tuple(i for i in range(given.ndim) if i != axis)
        places = numpy.flatnonzero(wrong.any(axis=rest))
        if 0 < len(places) < given.shape[axis] and 2 * len(places) <= max(2, given.shape[axis]):
            return f"it is wrong only at {_listed(places)} of axis {axis}"
    for axis in range(given.ndim if given.ndim > 1 else 0):
        rest = tuple(i for i in range(given.ndim) if i != axis)
        with numpy.errstate(all="ignore"):
            ratio = (given * measured).sum(axis=rest, keepdims=True) / (measured**2).sum(
                axis=rest, keepdims=True
            )
        if numpy.isfinite(ratio).all() and _equal(ratio * measured, given):
            return f"it is off by a factor that depends on the place along axis {axis} alone: a wrong scale"
    return None


def _listed(places: numpy.ndarray) -> str:
    if len(places) == 1:
        return f"place {places[0]}"
    if len(places) > 3 and places[-1] - places[0] == len(places) - 1:
        return f"places {places[0]} to {places[-1]}"
    return f"places {', '.join(map(str, places[:8]))}" + (", ..." if len(places) > 8 else "")


def plot_errors(comparison: Comparison) -> str:
    """Return a text plot of an array: where its gradient is right, wrong or at a kink; "" for one element.

    Axes before the last are flattened; in a large array, each cell stands for a block.
    """
    states = comparison.states
    if states.size < 2:
        return ""
    table = states.reshape(-1, states.shape[-1]) if states.ndim > 1 else states.reshape(1, -1)
    rows = numpy.array_split(numpy.arange(len(table)), min(_ROWS, len(table)))
    columns = numpy.array_split(numpy.arange(table.shape[1]), min(_COLUMNS, table.shape[1]))
    lines = ["".join(_cell(table[numpy.ix_(r, c)]) for c in columns) for r in rows]
    legend = ". right, x wrong"
    for sign, meaning in (("+", "+ partly wrong"), ("~", "~ at a kink"), (" ", "blank not measured")):
        if any(sign in line for line in lines):
            legend += f", {meaning}"
    return "\n".join([f"where ({legend}):", *(f"  |{line}|" for line in lines)])


def _cell(block: numpy.ndarray) -> str:
    measured = block[block != UNMEASURED]
    if not measured.size:
        return _SIGNS[UNMEASURED]
    if (measured == WRONG).any():
        return "x" if (measured == WRONG).all() else "+"
    return _SIGNS[RIGHT] if (measured == RIGHT).any() else _SIGNS[KINK]
