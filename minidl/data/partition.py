"""Splitting observations into random parts, as MATLAB's ``trainingPartitions`` does."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy


def partition(
    n: int, fractions: Sequence[float], seed: int | numpy.random.Generator | None = None
) -> tuple[numpy.ndarray, ...]:
    """Return one int64 array of indices per fraction: random, disjoint, all in ``range(n)``.

    The parts end where the running sum of the fractions, times ``n``, rounds to: 5,000 observations and
    ``[0.6, 0.4]`` give 3,000 and 2,000. If the fractions sum to 1, every index is in one of the parts.

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
    ends = numpy.minimum(numpy.rint(until * n), n).astype(numpy.int64)
    order = numpy.random.default_rng(seed).permutation(n).astype(numpy.int64, copy=False)
    return tuple(numpy.split(order, ends)[:-1])
