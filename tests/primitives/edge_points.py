"""Operations and edge points: what the tables compare with NumPy, and with PyTorch in tests/oracle.

An operation joins by its entry in ELEMENTWISE: ours, and NumPy's function of the same meaning.
"""

import inspect
import itertools

import numpy
import scipy.special

import minidl as dl
from minidl.primitives.primitive import PRIMITIVES

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def points(dtype):
    """Return 0, -0.0, infinities, NaN, extremes and a few ordinary numbers of a dtype."""
    dtype = numpy.dtype(dtype)
    if dtype.kind == "b":
        return numpy.array([False, True])
    if dtype.kind in "iu":
        limits = numpy.iinfo(dtype)
        return numpy.array(sorted({limits.min, limits.max, 0, 1, 2, 5, max(limits.min, -3)}), dtype)
    limits = numpy.finfo(dtype)
    ordinary = [0.0, -0.0, 1, -1, 0.5, -0.5, 2, 3, -3, 10, limits.eps]
    extreme = [numpy.inf, -numpy.inf, numpy.nan, limits.max, limits.min, limits.tiny, -limits.tiny]
    return numpy.array(ordinary + extreme, dtype)


def pairs(dtype):
    """Return two arrays that hold all pairs of edge points."""
    left, right = zip(*itertools.product(points(dtype), repeat=2), strict=True)
    return numpy.array(left, dtype), numpy.array(right, dtype)


def sigmoid(x):
    return numpy.where(x >= 0, 1 / (1 + numpy.exp(-abs(x))), numpy.exp(-abs(x)) / (1 + numpy.exp(-abs(x))))


ELEMENTWISE = {
    "add": (dl.Tensor.__add__, numpy.add),
    "subtract": (dl.Tensor.__sub__, numpy.subtract),
    "multiply": (dl.Tensor.__mul__, numpy.multiply),
    "divide": (dl.Tensor.__truediv__, numpy.divide),
    "power": (dl.Tensor.__pow__, numpy.power),
    "negative": (dl.Tensor.__neg__, numpy.negative),
    "absolute": (dl.absolute, numpy.absolute),
    "sign": (dl.sign, numpy.sign),
    "floor": (dl.floor, numpy.floor),
    "exp": (dl.exp, numpy.exp),
    "log": (dl.log, numpy.log),
    "log1p": (dl.log1p, numpy.log1p),
    "sqrt": (dl.sqrt, numpy.sqrt),
    "sin": (dl.sin, numpy.sin),
    "cos": (dl.cos, numpy.cos),
    "tanh": (dl.tanh, numpy.tanh),
    "sigmoid": (dl.sigmoid, sigmoid),
    "softplus": (dl.softplus, lambda x: numpy.logaddexp(x, 0).astype(x.dtype)),
    "relu": (dl.relu, lambda x: numpy.maximum(x, 0)),
    "maximum": (dl.maximum, numpy.maximum),
    "minimum": (dl.minimum, numpy.minimum),
    "equal": (dl.Tensor.__eq__, numpy.equal),
    "not_equal": (dl.Tensor.__ne__, numpy.not_equal),
    "less": (dl.Tensor.__lt__, numpy.less),
    "less_equal": (dl.Tensor.__le__, numpy.less_equal),
    "greater": (dl.Tensor.__gt__, numpy.greater),
    "greater_equal": (dl.Tensor.__ge__, numpy.greater_equal),
    "clip": (lambda x: dl.clip(x, 0, 3), lambda x: numpy.clip(x, x.dtype.type(0), x.dtype.type(3))),
    "clip beyond the dtype": (lambda x: dl.clip(x, -1000, 299), lambda x: numpy.clip(x, -1000, 299)),
    "where": (lambda a, b: dl.where(a > b, a, b), lambda a, b: numpy.where(a > b, a, b)),
    "where with a number": (
        lambda x: dl.where(x > 0, x, 0.1),
        lambda x: numpy.where(x > 0, x, numpy.asarray(0.1, x.dtype if x.dtype.kind == "f" else "float32")),
    ),
    "tan": (dl.tan, numpy.tan),
    "sinh": (dl.sinh, numpy.sinh),
    "cosh": (dl.cosh, numpy.cosh),
    "arcsin": (dl.arcsin, numpy.arcsin),
    "arccos": (dl.arccos, numpy.arccos),
    "arctan": (dl.arctan, numpy.arctan),
    "arctan2": (dl.arctan2, numpy.arctan2),
    "arcsinh": (dl.arcsinh, numpy.arcsinh),
    "arccosh": (dl.arccosh, numpy.arccosh),
    "arctanh": (dl.arctanh, numpy.arctanh),
    "exp2": (dl.exp2, numpy.exp2),
    "expm1": (dl.expm1, numpy.expm1),
    "log2": (dl.log2, numpy.log2),
    "log10": (dl.log10, numpy.log10),
    "logaddexp": (dl.logaddexp, numpy.logaddexp),
    "erf": (dl.erf, lambda x: scipy.special.erf(x).astype(x.dtype)),
    "erfinv": (dl.erfinv, lambda x: scipy.special.erfinv(x).astype(x.dtype)),
    "ceil": (dl.ceil, numpy.ceil),
    "trunc": (dl.trunc, numpy.trunc),
    "rint": (dl.rint, numpy.rint),
    "mod": (dl.Tensor.__mod__, numpy.mod),
    "floor_divide": (dl.Tensor.__floordiv__, numpy.floor_divide),
    "bitwise_and": (dl.Tensor.__and__, numpy.bitwise_and),
    "bitwise_or": (dl.Tensor.__or__, numpy.bitwise_or),
    "bitwise_xor": (dl.Tensor.__xor__, numpy.bitwise_xor),
    "invert": (dl.Tensor.__invert__, numpy.invert),
    "logical_and": (dl.logical_and, numpy.logical_and),
    "logical_or": (dl.logical_or, numpy.logical_or),
    "logical_xor": (dl.logical_xor, numpy.logical_xor),
    "logical_not": (dl.logical_not, numpy.logical_not),
    "isnan": (dl.isnan, numpy.isnan),
    "isinf": (dl.isinf, numpy.isinf),
    "isfinite": (dl.isfinite, numpy.isfinite),
    "isclose": (dl.isclose, numpy.isclose),
    "nan_to_num": (dl.nan_to_num, numpy.nan_to_num),
    "square": (lambda x: x**2, numpy.square),
    "root by power": (lambda x: x**0.5, lambda x: x**0.5),
    "cube": (lambda x: x**3, lambda x: x**3),
}
#: Primitives that have no function of NumPy's beside them, and where their edge points are tested.
ELSEWHERE = {
    "relu_backward": "test_edges.py, by the gradient of relu",
    "sigmoid_backward": "tests/oracle/test_edges.py, by the gradient of sigmoid",
    "tanh_backward": "tests/oracle/test_edges.py, by the gradient of tanh",
    "sigmoid_cross_entropy": "tests/test_losses.py",
    "cast": "a conversion: test_tensor.py",
    "round_off": "float32 alone: tests/oracle/test_primitives.py",
    "to_bfloat16": "float32 alone: tests/oracle/test_primitives.py",
}

#: Operations for which NumPy has no bool form, or one of another meaning; they are refused by NumPy's error.
NOT_FOR_BOOL = {
    *("subtract", "negative", "sign", "cube", "square", "clip", "clip beyond the dtype"),
    *("mod", "floor_divide"),
}
#: Operations of whole numbers and bools.
NOT_FOR_FLOATS = {"bitwise_and", "bitwise_or", "bitwise_xor", "invert"}


def arity(function):
    """Return how many arrays NumPy's function of an entry takes."""
    if isinstance(function, numpy.ufunc):
        return function.nin
    parameters = inspect.signature(function).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters)


def converted(name, array):
    """Return an array as the operation takes it: integers become float32 where a fraction may come out."""
    primitive = PRIMITIVES.get(name)
    needs_float = name in ("root by power", "where with a number") or (
        primitive is not None and primitive.promotes_to_float
    )
    return array.astype("float32") if needs_float and array.dtype.kind != "f" else array
