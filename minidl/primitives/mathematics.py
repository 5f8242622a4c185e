"""NumPy's functions of single elements beyond those of elementwise.py: a table of one-liners.

Each entry stands beside its derivative, as in elementwise.py.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy

from minidl.primitives.elementwise import absolute, exp, sigmoid, sin, sqrt, where
from minidl.primitives.primitive import Primitive, elementwise
from minidl.tensor import Tensor, TensorLike, as_tensor


def _function(name: str, gradient: Any, doc: str, c_name: str = "", **options: Any) -> Primitive:
    """Declare NumPy's function of one element and of this name, by default C's name for it, too."""
    return elementwise(
        name,
        lambda xp, x, out=None: getattr(xp, name)(x, out=out),
        expression=f"{c_name or name}(x)",
        gradients=(gradient,),
        promotes_to_float=True,
        doc=doc,
        **options,
    )


# --- exponentials and logarithms ------------------------------------------------------------------

expm1: Primitive = _function(
    "expm1", lambda g, out, x: g * exp(x), "Return exp(x) - 1, exact for small x too."
)
exp2: Primitive = _function(
    "exp2", lambda g, out, x: g * out * math.log(2), "Return 2 to the power x, exact for whole x."
)
log2: Primitive = _function(
    "log2",
    lambda g, out, x: g / (x * math.log(2)),
    "Return the logarithm of x to the base 2.",
    domain=(0.5, 2.0),
)
log10: Primitive = _function(
    "log10",
    lambda g, out, x: g / (x * math.log(10)),
    "Return the logarithm of x to the base 10.",
    domain=(0.5, 2.0),
)


def _share(a: Any, b: Any) -> Any:
    """Return exp(a) / (exp(a) + exp(b)); two equal infinities have equal shares."""
    return sigmoid(where((a == b) * (absolute(a) == math.inf), 0.0, a - b))


logaddexp: Primitive = elementwise(
    "logaddexp",
    lambda xp, a, b, out=None: xp.logaddexp(a, b, out=out),
    # Where both are equal they may be infinite, and have no difference; log(2) is 0.693...
    expression="a == b ? a + 0.6931471805599453 : max(a, b) + log1p(exp(-abs(a - b)))",
    gradients=(
        lambda g, out, a, b: g * _share(a, b),
        lambda g, out, a, b: g * _share(b, a),
    ),
    promotes_to_float=True,
    doc="Return log(exp(a) + exp(b)), without overflow.",
)

# --- trigonometric and hyperbolic functions -------------------------------------------------------

tan: Primitive = _function(
    "tan", lambda g, out, x: g * (1 + out * out), "Return the tangent of x (radians).", domain=(-1.2, 1.2)
)
arcsin: Primitive = _function(
    "arcsin",
    lambda g, out, x: g / sqrt((1 - x) * (1 + x)),
    "Return the angle (radians) whose sine is x.",
    "asin",
    domain=(-0.9, 0.9),
)
arccos: Primitive = _function(
    "arccos",
    lambda g, out, x: -g / sqrt((1 - x) * (1 + x)),
    "Return the angle (radians) whose cosine is x.",
    "acos",
    domain=(-0.9, 0.9),
)
arctan: Primitive = _function(
    "arctan", lambda g, out, x: g / (1 + x * x), "Return the angle (radians) whose tangent is x.", "atan"
)


def _over_square_of_radius(x: Any, a: Any, b: Any) -> Any:
    square_of_radius = a * a + b * b
    origin = square_of_radius == 0
    return where(origin, 0, x / where(origin, 1, square_of_radius))


arctan2: Primitive = elementwise(
    "arctan2",
    lambda xp, a, b, out=None: xp.arctan2(a, b, out=out),
    expression="atan2(a, b)",
    gradients=(
        lambda g, out, a, b: _over_square_of_radius(g * b, a, b),
        lambda g, out, a, b: _over_square_of_radius(-g * a, a, b),
    ),
    promotes_to_float=True,
    domain=(0.5, 2.0),
    doc="Return the angle (radians) of the point with ordinate a and abscissa b; no gradient at (0, 0).",
)
sinh: Primitive = _function("sinh", lambda g, out, x: g * cosh(x), "Return the hyperbolic sine of x.")
cosh: Primitive = _function("cosh", lambda g, out, x: g * sinh(x), "Return the hyperbolic cosine of x.")
arcsinh: Primitive = _function(
    "arcsinh", lambda g, out, x: g / sqrt(1 + x * x), "Return the inverse of sinh at x.", "asinh"
)
arccosh: Primitive = _function(
    "arccosh",
    lambda g, out, x: g / sqrt((x - 1) * (x + 1)),
    "Return the inverse of cosh at x >= 1.",
    "acosh",
    domain=(1.2, 3.0),
)
arctanh: Primitive = _function(
    "arctanh",
    lambda g, out, x: g / ((1 - x) * (1 + x)),
    "Return the inverse of tanh at x.",
    "atanh",
    domain=(-0.9, 0.9),
)

# --- the error function ---------------------------------------------------------------------------


def _special(name: str) -> Any:
    """Return a forward by SciPy's or CuPy's function of this name, imported when it is first used."""

    def forward(xp: Any, x: Any, out: Any = None) -> Any:
        module = "scipy.special" if xp is numpy else "cupyx.scipy.special"
        result = getattr(importlib.import_module(module), name)(x)
        if out is None:
            return result.astype(x.dtype)
        xp.copyto(out, result, casting="same_kind")
        return out

    return forward


erf: Primitive = elementwise(
    "erf",
    _special("erf"),
    expression="erf(x)",
    gradients=(lambda g, out, x: g * (2 / math.sqrt(math.pi)) * exp(-x * x),),
    promotes_to_float=True,
    doc="Return the error function of x, 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x.",
)
erfinv: Primitive = elementwise(
    "erfinv",
    _special("erfinv"),
    gradients=(lambda g, out, x: g * (math.sqrt(math.pi) / 2) * exp(out * out),),
    promotes_to_float=True,
    domain=(-0.9, 0.9),
    doc="Return the inverse of the error function at x, in (-1, 1).",
)

# --- whole numbers --------------------------------------------------------------------------------

ceil: Primitive = _function("ceil", None, "Return the smallest whole number that is not below x.")
trunc: Primitive = _function("trunc", None, "Return the whole number next to x on the way to 0.")
rint: Primitive = _function("rint", None, "Return the whole number nearest to x, of two the even one.")


def _remainder_gradient(g: Any, out: Any, a: Any, b: Any) -> Any:
    return -g * floor_divide(a, b)


mod: Primitive = elementwise(
    "mod",
    lambda xp, a, b, out=None: xp.remainder(a, b, out=out),
    expression=(
        "fmod(a, b) == 0 ? (b < 0 ? -0.0 : 0.0) : (fmod(a, b) < 0) == (b < 0) ? fmod(a, b) : fmod(a, b) + b"
    ),
    gradients=(lambda g, out, a, b: g, _remainder_gradient),
    domain=(0.5, 2.0),
    doc="Return the remainder of a / b rounded down; it has the sign of b.",
)
floor_divide: Primitive = elementwise(
    "floor_divide",
    lambda xp, a, b, out=None: xp.floor_divide(a, b, out=out),
    expression=(
        "b == 0 ? a / b : rint((a - fmod(a, b)) / b - (fmod(a, b) != 0 && (fmod(a, b) < 0) != (b < 0)))"
    ),
    gradients=(None, None),
    doc="Return a / b rounded down; integers stay integers.",
)


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Return x rounded to a number of decimals, halves to the even digit as in NumPy; it has no gradient.

    Integers stay as they are.
    """
    x = as_tensor(x)
    if x.dtype.kind != "f":
        return x
    return rint(x * 10.0**decimals) / 10.0**decimals if decimals else rint(x)


# --- compositions ---------------------------------------------------------------------------------


def square(x: TensorLike) -> Tensor:
    """Return x * x."""
    x = as_tensor(x)
    return x * x


def reciprocal(x: Any) -> Tensor:
    """Return 1 / x."""
    return 1 / as_tensor(x)


def positive(x: Any) -> Tensor:
    """Return x."""
    return as_tensor(x)


def sinc(x: Any) -> Tensor:
    """Return sin(pi x) / (pi x), 1 at 0."""
    angle = as_tensor(x) * math.pi
    zero = angle == 0
    return where(zero, 1 - angle * angle / 6, sin(angle) / where(zero, 1, angle))


def hypot(a: Any, b: Any) -> Tensor:
    """Return sqrt(a * a + b * b)."""
    a, b = as_tensor(a), as_tensor(b)
    return sqrt(a * a + b * b)
