"""Splitting observations into random parts, as MATLAB's ``trainingPartitions`` does."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy
from numpy.typing import ArrayLike


def partition(
    n: int,
    fractions: Sequence[float],
    seed: int | numpy.random.Generator | None = None,
    labels: ArrayLike | None = None,
) -> tuple[numpy.ndarray, ...]:
    """Return one int64 array of indices per fraction: random, disjoint, all in ``range(n)``.

    The parts end where the running sum of the fractions, times ``n``, rounds to: 5,000 observations and
    ``[0.6, 0.4]`` give 3,000 and 2,000. If the fractions sum to 1, every index is in one of the parts.

    Parameters
    ----------
    n : how many observations there are
    fractions : the share of each part
    seed : decides the order
    labels : the class of each observation, (n,): each class is divided by the fractions for itself, so
        that all parts have it in the same proportion

    Raises
    ------
    ValueError
        ``n`` is less than 1, there are no fractions, one is negative or not a number, or they sum to more
        than 1.
    """
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"partition takes at least 1 observation; got {n}")
    shares = numpy.array(fractions, numpy.float64)
    if shares.ndim != 1 or shares.size == 0:
        raise ValueError(f"partition takes a list of fractions such as [0.6, 0.4]; got {fractions!r}")
    if not (shares >= 0).all():  # written so that NaN is refused too
        raise ValueError(f"partition takes fractions of 0 or greater; got {fractions!r}")
    until = numpy.cumsum(shares)
    if until[-1] > 1 + 1e-9:
        raise ValueError(
            f"partition takes fractions that sum to at most 1; {fractions!r} sum to {until[-1]:g}"
        )
    order = numpy.random.default_rng(seed).permutation(n).astype(numpy.int64, copy=False)
    if labels is None:
        return tuple(numpy.split(order, _ends(until, n))[:-1])
    labels = numpy.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"partition takes one label for each of {n} observations; got shape {labels.shape}")
    part = numpy.full(n, len(shares))  # of each observation in ``order``; this one is that of the rest
    for label in numpy.unique(labels):
        places = numpy.flatnonzero(labels[order] == label)
        part[places] = numpy.searchsorted(_ends(until, len(places)), numpy.arange(len(places)), side="right")
    return tuple(order[part == i] for i in range(len(shares)))


def _ends(until: numpy.ndarray, n: int) -> numpy.ndarray:
    """Return where the parts of n observations end."""
    ends: numpy.ndarray = numpy.minimum(numpy.rint(until * n), n)
    return ends.astype(numpy.int64)
