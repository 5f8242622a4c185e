"""Gradients at edge points against PyTorch, eagerly and by both kernels.

Where ours differ on purpose, DIFFERENCES says at which points, and why.
"""

import numpy
import pytest

import minidl as dl
from tests.primitives.edge_points import ELEMENTWISE, arity, pairs, points
from tests.primitives.test_edges import EXECUTIONS

torch = pytest.importorskip(
    "torch", reason="PyTorch, the oracle, is not installed: pip install -e '.[oracle]'"
)
pytestmark = pytest.mark.oracle

F = torch.nn.functional

ORACLES = {
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "divide": torch.divide,
    "power": torch.pow,
    "negative": torch.negative,
    "absolute": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "relu": torch.relu,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "clip": lambda x: torch.clamp(x, 0, 3),
    "clip beyond the dtype": lambda x: torch.clamp(x, -1000, 299),
    "where": lambda a, b: torch.where(a > b, a, b),
    "where with a number": lambda x: torch.where(x > 0, x, 0.1),
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "arcsin": torch.arcsin,
    "arccos": torch.arccos,
    "arctan": torch.arctan,
    "arctan2": torch.arctan2,
    "arcsinh": torch.arcsinh,
    "arccosh": torch.arccosh,
    "arctanh": torch.arctanh,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log2": torch.log2,
    "log10": torch.log10,
    "logaddexp": torch.logaddexp,
    "erf": torch.erf,
    "erfinv": torch.erfinv,
    "mod": torch.remainder,
    "nan_to_num": torch.nan_to_num,
    "square": torch.square,
    "root by power": lambda x: x**0.5,
    "cube": lambda x: x**3,
}
#: Operations whose results are bool, or do not change with small changes of the inputs.
WITHOUT_GRADIENT = {
    *("sign", "floor", "ceil", "trunc", "rint", "floor_divide"),
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "invert"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
    *("isnan", "isinf", "isfinite", "isclose"),
}

#: Where gradients differ on purpose: the points, as a function of the inputs, and the reason.
DIFFERENCES = {
    ("absolute", 0): (numpy.isnan, "sign(NaN) is NaN, as in NumPy and JAX; PyTorch has 0"),
    ("relu", 0): (numpy.isnan, "NaN is not above 0, so it gets no gradient, as in JAX"),
    ("divide", 1): (
        lambda a, b: numpy.abs(b) == numpy.finfo(b.dtype).max,
        "an infinite gradient times a quotient that rounds to 0 in PyTorch, and not here",
    ),
    ("power", 1): (
        lambda a, b: (a == 0) & (b >= 0),
        "0**b is constant for b > 0: an infinite gradient stops there, where PyTorch has NaN",
    ),
    ("arccosh", 0): (lambda x: x < 1, "out of its domain: NaN, or an infinity of another sign"),
    **{
        ("arctan2", index): (
            lambda a, b: a * a + b * b == 0,
            "the gradient at the origin is 0, an infinite one included; PyTorch has 0 times infinity",
        )
        for index in (0, 1)
    },
    ("nan_to_num", 0): (
        lambda x: ~numpy.isfinite(x),
        "what is replaced has no gradient; PyTorch multiplies an infinite one by 0",
    ),
    **{
        ("logaddexp", index): (
            lambda a, b: (a == b) & numpy.isinf(a),
            "equal infinities share the gradient, as equal numbers do; PyTorch has NaN",
        )
        for index in (0, 1)
    },
    ("tanh", 0): (lambda x: x > 5, "1 - y * y and 1 - y**2 round differently where y is close to 1"),
    ("sigmoid", 0): (lambda x: x > 5, "y * (1 - y) and y - y * y round differently where y is close to 1"),
    **{
        (name, index): (
            lambda a, b: numpy.isnan(a + b),
            "NaN is neither larger, smaller nor equal, so neither gets a gradient, as in JAX",
        )
        for name in ("maximum", "minimum")
        for index in (0, 1)
    },
}


def test_every_operation_of_the_table_has_an_oracle():
    assert ELEMENTWISE.keys() == ORACLES.keys() | WITHOUT_GRADIENT


def inputs_of(name, dtype):
    return pairs(dtype) if arity(ELEMENTWISE[name][1]) == 2 else (points(dtype),)


@pytest.mark.parametrize("upstream", [1.0, numpy.inf])
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_pytorchs(dtype, execution, upstream):
    def gradients(nests):
        found = []
        for name, xs in nests.items():
            y = ELEMENTWISE[name][0](*xs)
            found.append(dl.grad(y, list(xs), gradient=dl.full(y.shape, upstream, dtype)))
        return found

    arrays = {name: inputs_of(name, dtype) for name in ORACLES}
    xs = {name: [dl.tensor(a, requires_grad=True) for a in row] for name, row in arrays.items()}
    function = gradients if execution == "eager" else dl.compile(gradients, kernels=execution)
    with numpy.errstate(all="ignore"):
        results = function(xs)
    problems = []
    for (name, row), ours in zip(arrays.items(), results, strict=True):
        theirs = [torch.tensor(a, requires_grad=True) for a in row]
        z = ORACLES[name](*theirs)
        expected = torch.autograd.grad(z, theirs, torch.full_like(z, upstream))
        for index, (g, h) in enumerate(zip(ours, expected, strict=True)):
            allowed, _ = DIFFERENCES.get((name, index), (lambda *a: numpy.zeros(a[0].shape, bool), ""))
            with numpy.errstate(all="ignore"):
                compared = ~allowed(*row)
            tolerance = 1e-5 if dtype == "float32" else 1e-12
            a, b = g.numpy()[compared], h.numpy()[compared]
            wrong = ~numpy.isclose(a, b, tolerance, numpy.finfo(dtype).tiny, equal_nan=True)
            at = [x[compared][wrong].tolist() for x in row]
            problems += [
                f"{name}, input {index}, at {place}: {mine}, PyTorch {other}"
                for *place, mine, other in zip(*at, a[wrong].tolist(), b[wrong].tolist(), strict=True)
            ]
    assert not problems, "\n" + "\n".join(problems)


#: Where second derivatives differ on purpose; NaN of PyTorch's is never compared.
SECOND_DIFFERENCES = {
    **{
        name: (lambda x: numpy.abs(x) == 1, "infinite at the end of the domain, where ours are NaN")
        for name in ("arcsin", "arccos", "arctanh")
    },
    "arccosh": (lambda x: x <= 1, "infinite at the end of the domain, and NaN beyond"),
    "arctan2": (lambda a, b: a * a + b * b == 0, "the gradient at the origin is 0, which is constant"),
    "power": (
        lambda a, b: (a < 0) & (b == 0),
        "negative numbers have no powers beside b = 0: no derivative by b",
    ),
}


def seconds_of_pytorch(function, arrays):
    """Return the derivative by each input of each gradient's sum."""
    xs = [torch.tensor(x, requires_grad=True) for x in arrays]
    found = []
    for first in torch.autograd.grad(function(*xs).sum(), xs, create_graph=True):
        seconds = [None] * len(xs)
        if first.requires_grad:
            seconds = torch.autograd.grad(first.sum(), xs, retain_graph=True, allow_unused=True)
        found += [numpy.zeros_like(arrays[0]) if g is None else g.numpy(force=True) for g in seconds]
    return found


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_second_derivatives_are_pytorchs(execution):
    """At 0, at equal inputs and elsewhere: a formula for an edge must not cut the next derivative off."""
    line = numpy.array([0.0, 1, -1, 0.5, -0.5, 2])
    grid = tuple(x.ravel() for x in numpy.meshgrid(line, line))
    arrays = {name: grid if arity(ELEMENTWISE[name][1]) == 2 else (line,) for name in ORACLES}

    def second(nests):
        found = []
        for name, xs in nests.items():
            firsts = dl.grad(ELEMENTWISE[name][0](*xs).sum(), list(xs), create_graph=True)
            found.append([g for first in firsts for g in dl.grad(first.sum(), list(xs), retain_graph=True)])
        return found

    function = second if execution == "eager" else dl.compile(second, kernels=execution)
    with numpy.errstate(all="ignore"):
        results = function(
            {name: [dl.tensor(a, requires_grad=True) for a in row] for name, row in arrays.items()}
        )
    problems = []
    for (name, row), ours in zip(arrays.items(), results, strict=True):
        excused, _ = SECOND_DIFFERENCES.get(name, (lambda *a: numpy.zeros(a[0].shape, bool), ""))
        for index, (one, other) in enumerate(zip(ours, seconds_of_pytorch(ORACLES[name], row), strict=True)):
            close = numpy.isclose(one.numpy(), other, 1e-9, 1e-9) | numpy.isnan(other) | excused(*row)
            problems += [
                f"{name}, derivative {index}, at {[x[i] for x in row]}: {one.numpy()[i]}, PyTorch {other[i]}"
                for i in numpy.flatnonzero(~close)
            ]
    assert not problems, "\n" + "\n".join(problems)
