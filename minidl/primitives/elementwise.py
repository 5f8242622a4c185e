"""Operations that compute each element by itself, with NumPy's broadcasting: the table.

Each entry stands beside its derivative. Where a derivative is worked out from the *output*, as for
sigmoid, the backward step is a primitive with rules of its own, so that it costs one pass and can
be differentiated again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from minidl.primitives.primitive import Primitive, elementwise
from minidl.tensor import Tensor, as_tensors, promote_dtypes

# --- arithmetic -----------------------------------------------------------------------------------

add: Primitive = elementwise(
    "add",
    lambda xp, a, b, out=None: xp.add(a, b, out=out),
    expression="a + b",
    gradients=(lambda g, out, a, b: g, lambda g, out, a, b: g),
    doc="Return a + b.",
)
subtract: Primitive = elementwise(
    "subtract",
    lambda xp, a, b, out=None: xp.subtract(a, b, out=out),
    expression="a - b",
    gradients=(lambda g, out, a, b: g, lambda g, out, a, b: -g),
    doc="Return a - b.",
)
multiply: Primitive = elementwise(
    "multiply",
    lambda xp, a, b, out=None: xp.multiply(a, b, out=out),
    expression="a * b",
    gradients=(lambda g, out, a, b: g * b, lambda g, out, a, b: g * a),
    doc="Return a * b.",
)
divide: Primitive = elementwise(
    "divide",
    lambda xp, a, b, out=None: xp.divide(a, b, out=out),
    expression="a / b",
    gradients=(lambda g, out, a, b: g / b, lambda g, out, a, b: -g * out / b),
    promotes_to_float=True,
    domain=(0.5, 2.0),
    doc="Return a / b.",
)


def _zero_power(a: Any, b: Any) -> Any:
    return (a == 0) * (b >= 0)


power_: Primitive = elementwise(
    "power",
    lambda xp, a, b, out=None: xp.power(a, b, out=out),
    expression="pow(a, b)",
    # a**0 is constant, and so is 0**b: there the derivatives are 0, whatever their factors are.
    gradients=(
        lambda g, out, a, b: where(b == 0, 0, g * (b * power_(a, where(b == 0, 1, b) - 1))),
        lambda g, out, a, b: where(_zero_power(a, b), 0, g * (out * log(where(_zero_power(a, b), 1, a)))),
    ),
    domain=(0.5, 2.0),
)
negative: Primitive = elementwise(
    "negative",
    lambda xp, x, out=None: xp.negative(x, out=out),
    expression="-x",
    gradients=(lambda g, out, x: -g,),
    doc="Return -x.",
)
absolute: Primitive = elementwise(
    "absolute",
    lambda xp, x, out=None: xp.absolute(x, out=out),
    expression="abs(x)",
    gradients=(lambda g, out, x: g * sign(x),),
    doc="Return |x|; the gradient at 0 is 0.",
)
sign: Primitive = elementwise(
    "sign",
    lambda xp, x, out=None: xp.sign(x, out=out),
    expression="x != x ? x : (x > 0) - (x < 0)",
    gradients=(None,),
    doc="Return -1, 0 or 1.",
)
floor: Primitive = elementwise(
    "floor",
    lambda xp, x, out=None: xp.floor(x, out=out),
    expression="floor(x)",
    gradients=(None,),
    promotes_to_float=True,
    doc="Return the largest whole number that is not above x.",
)

# --- exponentials and their relatives -------------------------------------------------------------

exp: Primitive = elementwise(
    "exp",
    lambda xp, x, out=None: xp.exp(x, out=out),
    expression="exp(x)",
    gradients=(lambda g, out, x: g * out,),
    promotes_to_float=True,
    doc="Return e to the power x.",
)
log: Primitive = elementwise(
    "log",
    lambda xp, x, out=None: xp.log(x, out=out),
    expression="log(x)",
    gradients=(lambda g, out, x: g / x,),
    promotes_to_float=True,
    domain=(0.5, 2.0),
    doc="Return the natural logarithm of x.",
)
log1p: Primitive = elementwise(
    "log1p",
    lambda xp, x, out=None: xp.log1p(x, out=out),
    expression="log1p(x)",
    gradients=(lambda g, out, x: g / (1 + x),),
    promotes_to_float=True,
    domain=(-0.5, 2.0),
    doc="Return log(1 + x), exact for small x too.",
)
sqrt: Primitive = elementwise(
    "sqrt",
    lambda xp, x, out=None: xp.sqrt(x, out=out),
    expression="sqrt(x)",
    gradients=(lambda g, out, x: 0.5 * g / out,),
    promotes_to_float=True,
    domain=(0.5, 2.0),
    doc="Return the square root of x.",
)
sin: Primitive = elementwise(
    "sin",
    lambda xp, x, out=None: xp.sin(x, out=out),
    expression="sin(x)",
    gradients=(lambda g, out, x: g * cos(x),),
    promotes_to_float=True,
    doc="Return the sine of x (radians).",
)
cos: Primitive = elementwise(
    "cos",
    lambda xp, x, out=None: xp.cos(x, out=out),
    expression="cos(x)",
    gradients=(lambda g, out, x: -g * sin(x),),
    promotes_to_float=True,
    doc="Return the cosine of x (radians).",
)

# --- activations ----------------------------------------------------------------------------------


def _in_steps(forward: Any) -> Any:
    """Give a forward that works in several steps, each in place, a destination to work in."""

    @functools.wraps(forward)
    def forward_with_destination(xp: Any, *arrays: Any, out: Any = None) -> Any:
        if out is None:
            shape = numpy.broadcast_shapes(*(array.shape for array in arrays))
            out = xp.empty(shape, numpy.result_type(*(array.dtype for array in arrays)))
        return forward(xp, *arrays, out)

    return forward_with_destination


@_in_steps
def _sigmoid(xp: Any, x: Any, out: Any) -> Any:
    # exp(-x) may overflow to infinity, whose reciprocal is the right answer; this form keeps the
    # relative accuracy of small probabilities, which the cheaper (1 + tanh(x / 2)) / 2 loses.
    with numpy.errstate(over="ignore"):
        xp.exp(xp.negative(x, out=out), out=out)
        xp.add(out, 1, out=out)
        return xp.reciprocal(out, out=out)


@_in_steps
def _sigmoid_backward(xp: Any, g: Any, y: Any, out: Any) -> Any:
    xp.multiply(y, y, out=out)
    xp.subtract(y, out, out=out)
    return xp.multiply(g, out, out=out)


@_in_steps
def _tanh_backward(xp: Any, g: Any, y: Any, out: Any) -> Any:
    xp.multiply(y, y, out=out)
    xp.subtract(1, out, out=out)
    return xp.multiply(g, out, out=out)


def _all_bits(xp: Any, condition: Any) -> Any:
    """Return int8 with all bits set where a condition holds, else none."""
    return xp.negative(condition.view(numpy.int8))


@_in_steps
def _relu_backward(xp: Any, g: Any, y: Any, out: Any) -> Any:
    # The bits of g, or none: a product would be NaN for 0 times infinity, and copying under a mask takes
    # forty times as long where the mask is hard to predict.
    bits = numpy.dtype(f"i{out.dtype.itemsize}")
    passes = _all_bits(xp, xp.greater(y, 0))
    xp.bitwise_and(g.astype(out.dtype, copy=False).view(bits), passes, out=out.view(bits))
    return out


@_in_steps
def _softplus(xp: Any, x: Any, out: Any) -> Any:
    xp.negative(xp.absolute(x, out=out), out=out)
    xp.log1p(xp.exp(out, out=out), out=out)
    return xp.add(out, xp.maximum(x, 0), out=out)


relu: Primitive = elementwise(
    "relu",
    lambda xp, x, out=None: xp.maximum(x, 0, out=out),
    expression="max(x, 0)",
    gradients=(lambda g, out, x: relu_backward(g, out),),
    doc="Return max(x, 0); the gradient at 0 is 0.",
)
relu_backward: Primitive = elementwise(
    "relu_backward",
    _relu_backward,
    expression="y > 0 ? g : 0",
    gradients=(lambda gg, out, g, y: relu_backward(gg, y), None),
    may_alias=(1,),
    doc="Return g where y, the output of relu, is positive, else 0.",
)
sigmoid: Primitive = elementwise(
    "sigmoid",
    _sigmoid,
    expression="1 / (1 + exp(-x))",
    gradients=(lambda g, out, x: sigmoid_backward(g, out),),
    promotes_to_float=True,
    keeps_inputs=True,
    doc="Return 1 / (1 + exp(-x)), accurate for every x.",
)
sigmoid_backward: Primitive = elementwise(
    "sigmoid_backward",
    _sigmoid_backward,
    expression="g * (y - y * y)",
    gradients=(lambda gg, out, g, y: sigmoid_backward(gg, y), lambda gg, out, g, y: gg * g * (1 - 2 * y)),
    may_alias=(),
    doc="Return g * y * (1 - y): the gradient behind y = sigmoid(x).",
)
tanh: Primitive = elementwise(
    "tanh",
    lambda xp, x, out=None: xp.tanh(x, out=out),
    expression="tanh(x)",
    gradients=(lambda g, out, x: tanh_backward(g, out),),
    promotes_to_float=True,
    doc="Return the hyperbolic tangent of x.",
)
tanh_backward: Primitive = elementwise(
    "tanh_backward",
    _tanh_backward,
    expression="g * (1 - y * y)",
    gradients=(lambda gg, out, g, y: tanh_backward(gg, y), lambda gg, out, g, y: gg * g * (-2 * y)),
    may_alias=(),
    doc="Return g * (1 - y * y): the gradient behind y = tanh(x).",
)
softplus: Primitive = elementwise(
    "softplus",
    _softplus,
    expression="max(x, 0) + log1p(exp(-abs(x)))",
    gradients=(lambda g, out, x: g * sigmoid(x),),
    promotes_to_float=True,
    may_alias=(),
    doc="Return log(1 + exp(x)), without overflow.",
)


@_in_steps
def _sigmoid_cross_entropy(xp: Any, z: Any, t: Any, out: Any) -> Any:
    # |z| counts with the probability that the target gives to the other side of z. Where that is 0, so is
    # the product, even of an infinite logit.
    other = xp.where(xp.greater(z, 0), xp.subtract(1, t), t)
    with numpy.errstate(invalid="ignore"):
        wrong = xp.where(xp.equal(other, 0), other, xp.multiply(other, xp.absolute(z)))
    xp.negative(xp.absolute(z, out=out), out=out)
    xp.log1p(xp.exp(out, out=out), out=out)
    return xp.add(out, wrong, out=out)


sigmoid_cross_entropy: Primitive = elementwise(
    "sigmoid_cross_entropy",
    _sigmoid_cross_entropy,
    expression=("((z > 0 ? 1 - t : t) == 0 ? 0 : (z > 0 ? 1 - t : t) * abs(z)) + log1p(exp(-abs(z)))"),
    gradients=(lambda g, out, z, t: g * (sigmoid(z) - t), lambda g, out, z, t: -g * z),
    promotes_to_float=True,
    may_alias=(),
    doc="Return the binary cross-entropy of sigmoid(z) and t: softplus(z) - z * t, without cancellation.",
)

# --- comparisons and choices ----------------------------------------------------------------------

equal: Primitive = elementwise(
    "equal",
    lambda xp, a, b, out=None: xp.equal(a, b, out=out),
    expression="a == b",
    gradients=(None, None),
    compares=True,
    doc="Return a == b as bool.",
)
not_equal: Primitive = elementwise(
    "not_equal",
    lambda xp, a, b, out=None: xp.not_equal(a, b, out=out),
    expression="a != b",
    gradients=(None, None),
    compares=True,
    doc="Return a != b as bool.",
)
less: Primitive = elementwise(
    "less",
    lambda xp, a, b, out=None: xp.less(a, b, out=out),
    expression="a < b",
    gradients=(None, None),
    compares=True,
    doc="Return a < b as bool.",
)
less_equal: Primitive = elementwise(
    "less_equal",
    lambda xp, a, b, out=None: xp.less_equal(a, b, out=out),
    expression="a <= b",
    gradients=(None, None),
    compares=True,
    doc="Return a <= b as bool.",
)
greater: Primitive = elementwise(
    "greater",
    lambda xp, a, b, out=None: xp.greater(a, b, out=out),
    expression="a > b",
    gradients=(None, None),
    compares=True,
    doc="Return a > b as bool.",
)
greater_equal: Primitive = elementwise(
    "greater_equal",
    lambda xp, a, b, out=None: xp.greater_equal(a, b, out=out),
    expression="a >= b",
    gradients=(None, None),
    compares=True,
    doc="Return a >= b as bool.",
)


#: From how many elements on a choice is made by bits, without branches. On a random mask NumPy's where()
#: takes twenty times as long, as half of its branches are predicted wrongly; on few elements it is faster.
_MIN_BITWISE = 4096


def _where(xp: Any, condition: Any, a: Any, b: Any, out: Any = None) -> Any:
    if xp is numpy and condition.size >= _MIN_BITWISE and a.dtype == b.dtype:
        return _where_by_bits(condition, a, b, out)
    if out is None:
        return xp.where(condition, a, b)
    xp.copyto(out, b)
    xp.copyto(out, a, where=condition)
    return out


def _where_by_bits(condition: Any, a: Any, b: Any, out: Any) -> Any:
    if out is None:
        out = numpy.empty(numpy.broadcast_shapes(condition.shape, a.shape, b.shape), a.dtype)
    kind = numpy.dtype(f"i{a.dtype.itemsize}")
    of_a, of_b, bits = a.view(kind), b.view(kind), out.view(kind)
    numpy.bitwise_xor(of_a, of_b, out=bits)
    numpy.bitwise_and(bits, _all_bits(numpy, condition), out=bits)
    numpy.bitwise_xor(bits, of_b, out=bits)
    return out


def _cast(xp: Any, x: Any, dtype: Any, out: Any = None) -> Any:
    if out is None:
        return x.astype(dtype)
    xp.copyto(out, x, casting="unsafe")
    return out


maximum: Primitive = elementwise(
    "maximum",
    lambda xp, a, b, out=None: xp.maximum(a, b, out=out),
    expression="max(a, b)",
    gradients=(
        lambda g, out, a, b: where(a > b, g, where(a == b, g * 0.5, 0)),
        lambda g, out, a, b: where(b > a, g, where(a == b, g * 0.5, 0)),
    ),
    doc="Return the larger of a and b; where they are equal, each gets half the gradient.",
)
minimum: Primitive = elementwise(
    "minimum",
    lambda xp, a, b, out=None: xp.minimum(a, b, out=out),
    expression="min(a, b)",
    gradients=(
        lambda g, out, a, b: where(a < b, g, where(a == b, g * 0.5, 0)),
        lambda g, out, a, b: where(b < a, g, where(a == b, g * 0.5, 0)),
    ),
    doc="Return the smaller of a and b; where they are equal, each gets half the gradient.",
)
where_: Primitive = elementwise(
    "where",
    _where,
    expression="condition ? a : b",
    gradients=(
        None,
        lambda g, out, condition, a, b: where(condition, g, 0),
        lambda g, out, condition, a, b: where(condition, 0, g),
    ),
    may_alias=(),
)
clip_: Primitive = elementwise(
    "clip",
    lambda xp, x, low, high, out=None: xp.clip(x, low, high, out=out),
    expression="min(max(x, {low}), {high})",
    gradients=(lambda g, out, x, low, high: where(out == x, g, 0),),
)
cast: Primitive = elementwise(
    "cast",
    _cast,
    expression="({dtype}) x",
    gradients=(lambda g, out, x, dtype: g.astype(x.dtype),),
    may_alias=(),
    doc="Return x converted to the dtype.",
)


def power(a: Any, b: Any) -> Tensor:
    """Return a to the power b.

    The gradient for b needs a > 0; at a = 0 it is 0 for b >= 0, as in PyTorch. Integers to an integer power
    stay integers.
    """
    if isinstance(a, Tensor) and isinstance(b, (int, float)) and not isinstance(b, bool):
        if b == 2 and (isinstance(b, int) or a.dtype.kind == "f"):
            return a * a  # exact, many times faster than a general power, and fine at 0
        if b == 0.5:
            return sqrt(a)  # as NumPy does: the root of -infinity is NaN
    return power_(a, b)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Return a where the condition holds, else b; the condition is taken as bool."""
    (condition,) = as_tensors((condition,))
    condition = condition.astype(bool)
    tensors = as_tensors((a, b), like=condition)
    return where_(condition, *promote_dtypes(tensors))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """Return x limited to [min, max]; None, or infinity, is no limit.

    The gradient is 1 inside, ends included, and 0 outside. Limits may be arrays and Tensors too: then they
    have gradients, and one that equals x shares its gradient evenly.
    """
    (x,) = as_tensors((x,))
    if not all(bound is None or isinstance(bound, (int, float, numpy.generic)) for bound in (min, max)):
        x = x if min is None else maximum(x, min)
        return x if max is None else minimum(x, max)
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if not low <= high:
        raise ValueError(f"clip needs min <= max, got min={low}, max={high}")
    if x.dtype.kind in "iu":
        if any(isinstance(bound, (float, numpy.floating)) and math.isfinite(bound) for bound in (low, high)):
            return clip_(x.astype(numpy.float32), low=low, high=high)
        # In C a limit beyond the dtype would wrap around.
        limits = numpy.iinfo(x.dtype)
        low, high = (int(numpy.clip(bound, limits.min, limits.max)) for bound in (low, high))
    return clip_(x, low=low, high=high)
