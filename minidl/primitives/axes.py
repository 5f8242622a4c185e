"""Axes as in NumPy: negative ones count from the end, and one that does not exist is refused."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from numpy.exceptions import AxisError

Axes = int | tuple[int, ...] | None


def normalize_axis(axis: Any, ndim: int, operation: str) -> int:
    """Return an axis as a number in 0 .. ndim - 1.

    Raises
    ------
    numpy.exceptions.AxisError
        The axis does not exist. (It is a ValueError and an IndexError, as in NumPy.)
    """
    try:
        number = operator.index(axis)
    except TypeError:
        raise TypeError(f"{operation}: an axis is an integer, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise AxisError(f"{operation}: axis {axis} does not exist in an array of {ndim} dimensions")
    return number % ndim


def normalize_axes(axis: Any, ndim: int, operation: str) -> tuple[int, ...]:
    """Return axes (None stands for all of them) as a sorted tuple of numbers in 0 .. ndim - 1.

    As in NumPy, a single number has the axes 0 and -1, over which nothing is reduced.
    """
    if axis is None:
        return tuple(range(ndim))
    if not isinstance(axis, Iterable) or getattr(axis, "ndim", 1) == 0:
        if ndim == 0 and axis in (0, -1):
            return ()
        return (normalize_axis(axis, ndim, operation),)
    axes = ordered_axes(axis, ndim, operation)
    return tuple(sorted(axes))


def ordered_axes(axes: Iterable[Any], ndim: int, operation: str) -> tuple[int, ...]:
    """Return several axes as numbers in 0 .. ndim - 1, in the order given."""
    numbers = tuple(normalize_axis(axis, ndim, operation) for axis in axes)
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{operation}: an axis stands twice in {tuple(axes)}")
    return numbers
