"""Conditions: logical and bitwise operations, tests of numbers, and what replaces numbers that fail them."""

from __future__ import annotations

import math
from typing import Any

import numpy

from minidl.primitives.elementwise import absolute, equal, not_equal, where
from minidl.primitives.primitive import Primitive, elementwise
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors, promote_dtypes

bitwise_and: Primitive = elementwise(
    "bitwise_and",
    lambda xp, a, b, out=None: xp.bitwise_and(a, b, out=out),
    expression="a & b",
    gradients=(None, None),
    doc="Return the bits that a and b share; of bools: a and b.",
)
bitwise_or: Primitive = elementwise(
    "bitwise_or",
    lambda xp, a, b, out=None: xp.bitwise_or(a, b, out=out),
    expression="a | b",
    gradients=(None, None),
    doc="Return the bits that a or b has; of bools: a or b.",
)
bitwise_xor: Primitive = elementwise(
    "bitwise_xor",
    lambda xp, a, b, out=None: xp.bitwise_xor(a, b, out=out),
    expression="a ^ b",
    gradients=(None, None),
    doc="Return the bits in which a and b differ; of bools: either a or b.",
)


def invert(x: TensorLike) -> Tensor:
    """Return integers with all bits changed, and bools negated."""
    x = as_tensor(x)
    if x.dtype.kind == "b":
        return equal(x, False)
    if x.dtype.kind not in "iu":
        raise TypeError(f"invert takes bools and integers, got {x.dtype}")
    return bitwise_xor(x, -1 if x.dtype.kind == "i" else int(numpy.iinfo(x.dtype).max))


def logical_and(a: Any, b: Any) -> Tensor:
    """Return as bool whether a and b are not 0."""
    return bitwise_and(*(x.astype(bool) for x in as_tensors((a, b))))


def logical_or(a: Any, b: Any) -> Tensor:
    """Return as bool whether a or b is not 0."""
    return bitwise_or(*(x.astype(bool) for x in as_tensors((a, b))))


def logical_xor(a: Any, b: Any) -> Tensor:
    """Return as bool whether either a or b is not 0."""
    return bitwise_xor(*(x.astype(bool) for x in as_tensors((a, b))))


def logical_not(x: Any) -> Tensor:
    """Return as bool whether x is 0."""
    return equal(x, 0)


def isnan(x: TensorLike) -> Tensor:
    """Return as bool whether x is NaN."""
    x = as_tensor(x)
    return not_equal(x, x)


def isinf(x: TensorLike) -> Tensor:
    """Return as bool whether x is infinite."""
    x = as_tensor(x)
    return absolute(x) == math.inf if x.dtype.kind == "f" else not_equal(x, x)


def isfinite(x: TensorLike) -> Tensor:
    """Return as bool whether x is neither infinite nor NaN."""
    x = as_tensor(x)
    return absolute(x) < math.inf if x.dtype.kind == "f" else equal(x, x)


def isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Return as bool whether |a - b| <= atol + rtol * |b|, or both are equal infinities."""
    a, b = promote_dtypes(as_tensors((a, b)), floating=True)
    # The difference of equal infinities is NaN, and that of different ones is no larger than the tolerance.
    close = bitwise_and(absolute(a - b) <= atol + rtol * absolute(b), isfinite(b))
    close = bitwise_or(close, a == b)
    return bitwise_or(close, bitwise_and(isnan(a), isnan(b))) if equal_nan else close


def nan_to_num(
    x: TensorLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Return x with numbers for NaN and infinities: by default 0 and the extremes of the dtype.

    What is replaced has no gradient.
    """
    x = as_tensor(x)
    if x.dtype.kind != "f":
        return x
    limits = numpy.finfo(x.dtype)
    x = where(isnan(x), nan, x)
    x = where(x == math.inf, float(limits.max) if posinf is None else posinf, x)
    return where(x == -math.inf, float(limits.min) if neginf is None else neginf, x)
