"""Rounding to fewer bits: what becomes of the factors of matrix products in a lower precision.

A compiled step puts these in front of its products (program/passes/precision.py); no gradient goes
through them, as they come after the backward pass was written down.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl.primitives.primitive import Primitive, elementwise

#: The precisions of float32 matrix products: how many bits of a factor are kept after the leading one.
PRECISIONS = {"float32": 23, "tf32": 10, "bfloat16": 7}


def _round_off(xp: Any, x: Any, bits: int, out: Any = None) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)
    dropped = 23 - bits
    old, new = x.view(numpy.uint32), out.view(numpy.uint32)
    # Half of the last bit that is kept, less one where that bit is 0: a tie goes to the even neighbour.
    xp.right_shift(old, dropped, out=new)
    xp.bitwise_and(new, 1, out=new)
    xp.add(new, (1 << (dropped - 1)) - 1, out=new)
    xp.add(new, old, out=new)
    xp.bitwise_and(new, (1 << 32) - (1 << dropped), out=new)
    xp.copyto(out, x, where=xp.isnan(x))  # the addition may turn NaN into anything
    return out


def _to_bfloat16(xp: Any, x: Any, out: Any = None) -> Any:
    bits = xp.right_shift(_round_off(xp, x, PRECISIONS["bfloat16"]).view(numpy.uint32), 16)
    if out is None:
        return bits.astype(numpy.uint16)
    xp.copyto(out, bits, casting="unsafe")
    return out


round_off: Primitive = elementwise(
    "round_off",
    _round_off,
    expression="round_off(x, (int) {bits})",
    gradients=(None,),
    may_alias=(),
    doc="Return float32 numbers rounded to ``bits`` bits after the leading one, ties to even.",
)
to_bfloat16: Primitive = elementwise(
    "to_bfloat16",
    _to_bfloat16,
    expression="bits_of(round_off(x, 7)) >> 16",
    gradients=(None,),
    may_alias=(),
    doc="Return float32 numbers as bfloat16, for which NumPy has no dtype: its 16 bits as uint16.",
)


def are_packed(a: Any, b: Any, dtype: Any) -> bool:
    """Return whether the factors of a product of a dtype hold bfloat16 numbers as `to_bfloat16` gives them.

    Whole numbers of 16 bits never look like that: the product of two of them is not float32.
    """
    return bool(a.dtype == b.dtype == numpy.uint16 and dtype == numpy.float32)


def as_factors(xp: Any, a: Any, b: Any, dtype: Any) -> tuple[Any, Any]:
    """Return the factors of a product of a dtype, as float32 if they are packed."""
    if not are_packed(a, b, dtype):
        return a, b
    wide_a, wide_b = (xp.left_shift(x.astype(numpy.uint32), 16).view(numpy.float32) for x in (a, b))
    return wide_a, wide_b
