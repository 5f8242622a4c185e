"""Rounding by arithmetic, which the primitives of rounding are compared with."""

import numpy
from hypothesis import strategies as st


def rounded(x, bits):
    """Round by arithmetic, in float64: what the primitive does with bits."""
    fraction, exponent = numpy.frexp(x.astype("float64"))
    steps = 2.0 ** (bits + 1)
    with numpy.errstate(over="ignore"):
        return numpy.ldexp(numpy.rint(fraction * steps) / steps, exponent).astype("float32")


normal = st.floats(width=32, allow_subnormal=False, allow_infinity=False, allow_nan=False)
