"""Values at edge points, in every dtype, against NumPy: eagerly and by both kernels; gradients that must be
right where a factor is 0 or infinite. Intended differences stand in DIFFERENCES with their reasons."""

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.calls import CALLS
from minidl.program.cpu.kernel_cache import compiler
from minidl.program.cpu.loops import C_TYPES
from minidl.program.program import Group
from tests.primitives.edge_points import (
    ELEMENTWISE,
    ELSEWHERE,
    FLOATS,
    INTEGERS,
    NOT_FOR_BOOL,
    NOT_FOR_FLOATS,
    arity,
    converted,
    pairs,
    points,
)
from tests.primitives.test_gradients import BUILT_IN

EXECUTIONS = [
    "eager",
    "numpy",
    pytest.param("c", marks=pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")),
]

#: How far results may be from NumPy's, relatively: a few units in the last place.
TOLERANCES = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-14}

#: (operation, dtype kind) that are not compared, with the reason.
DIFFERENCES = {
    ("power", "i"): "NumPy refuses negative powers of integers; see test_integers_to_integer_powers",
}


#: (operation, dtype kind) that C cannot compute; a group that has one of them is left to NumPy.
WITHOUT_C = {
    ("erfinv", "f"),
    *((name, kind) for name in ("erfinv", "mod", "floor_divide", "cube", "power") for kind in "iub"),
}


def test_every_elementwise_primitive_is_in_the_table():
    elementwise = {name for name, p in BUILT_IN.items() if p.kind == "elementwise"}
    assert elementwise <= ELEMENTWISE.keys() | ELSEWHERE.keys()


def refuse_numpy(group, block, scratch):
    """Stand in for the calls of NumPy for an elementwise group: none should be left to it."""
    raise AssertionError(f"NumPy computes {[member.name for member in group.members]}")


def executed(execution, function, *arrays):
    """Return what a function of several results gives, eagerly or compiled."""
    if execution != "eager":
        function = dl.compile(function, kernels=execution)
    with numpy.errstate(all="ignore"):
        return function(*map(dl.tensor, arrays))


def table(dtype):
    """Return the operations of a dtype, with their inputs: (name, ours, NumPy's, arrays)."""
    kind = numpy.dtype(dtype).kind
    for name, (ours, theirs) in ELEMENTWISE.items():
        if (name, kind) in DIFFERENCES or name in {"b": NOT_FOR_BOOL, "f": NOT_FOR_FLOATS}.get(kind, ()):
            continue
        arrays = pairs(dtype) if arity(theirs) == 2 else (points(dtype),)
        yield name, ours, theirs, arrays


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_values_are_numpys(dtype, execution, monkeypatch):
    kind = numpy.dtype(dtype).kind
    rows = [row for row in table(dtype) if execution != "c" or (row[0], kind) not in WITHOUT_C]
    one, (left, right) = points(dtype), pairs(dtype)

    def all_of_them(x, a, b):
        return [ours(a, b) if len(arrays) == 2 else ours(x) for _, ours, _, arrays in rows]

    if execution == "c" and numpy.dtype(dtype) in C_TYPES:
        monkeypatch.setitem(CALLS, Group, refuse_numpy)
    results = executed(execution, all_of_them, one, left, right)
    for (name, _, theirs, arrays), result in zip(rows, results, strict=True):
        with numpy.errstate(all="ignore"):
            expected = numpy.asarray(theirs(*(converted(name, array) for array in arrays)))
        assert result.dtype == expected.dtype, f"{name} of {dtype}"
        numpy.testing.assert_allclose(
            result.numpy(), expected, TOLERANCES.get(expected.dtype.name, 0), err_msg=f"{name} of {dtype}"
        )


GRADIENTS = {
    "relu": (dl.relu, [-1.0, 0.0, 4.0], [0, 0, numpy.inf]),
    "clip": (lambda x: dl.clip(x, -1, 1), [-2.0, -1.0, 1.0, 2.0], [0, numpy.inf, numpy.inf, 0]),
    "maximum": (lambda x: dl.maximum(x, 0.0), [-1.0, 0.0, 4.0], [0, numpy.inf, numpy.inf]),
    "minimum": (lambda x: dl.minimum(x, 0.0), [-1.0, 0.0, 4.0], [numpy.inf, numpy.inf, 0]),
    "max": (lambda x: x.max(), [-1.0, 4.0, 4.0], [0, numpy.inf, numpy.inf]),
    "min": (lambda x: x.min(), [-1.0, -1.0, 4.0], [numpy.inf, numpy.inf, 0]),
    "where": (lambda x: dl.where(x > 0, x, 0.0), [-1.0, 4.0], [0, numpy.inf]),
}


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_an_infinite_gradient_stops_where_the_derivative_is_0(execution):
    def gradients(*xs):
        return [
            dl.grad(y, x, gradient=dl.full(y.shape, numpy.inf))
            for (f, _, _), x in zip(GRADIENTS.values(), xs, strict=True)
            for y in [f(x)]
        ]

    function = gradients if execution == "eager" else dl.compile(gradients, kernels=execution)
    xs = [dl.tensor(x, requires_grad=True) for _, x, _ in GRADIENTS.values()]
    for (name, (_, _, expected)), g in zip(GRADIENTS.items(), function(*xs), strict=True):
        numpy.testing.assert_array_equal(g.numpy(), expected, err_msg=name)


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**0.0, 0.0, 0.0),
        (lambda x: 0.0**x, 2.0, 0.0),
        (lambda x: 0.0**x, 0.0, 0.0),
        (lambda x: (x - 1.0) ** x, 1.0, 1.0),
        (lambda x: x**1, 0.0, 1.0),
        (lambda x: x**3, 0.0, 0.0),
        (lambda x: x**0.5, 4.0, 0.25),
        (lambda x: dl.stack([x, x, x]).std(), 3.0, 0.0),
        (lambda x: dl.grad(x**1, x, create_graph=True), 0.0, 0.0),
        (lambda x: dl.grad(x**2.0, x, create_graph=True), 0.0, 2.0),
        (lambda x: dl.grad(x**3, x, create_graph=True), 0.0, 0.0),
        (lambda x: dl.max(dl.stack([x, x * numpy.nan])), 1.0, numpy.nan),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_at_the_edge(function, x, expected, dtype):
    x = dl.tensor(x, dtype, requires_grad=True)
    assert dl.grad(function(x), x).item() == pytest.approx(expected, nan_ok=True)


def test_a_power_can_be_differentiated_by_its_exponent_at_0():
    a, b = dl.tensor([0.0, 0.0, 2.0, 1.0]), dl.tensor([2.0, 0.0, 0.0, 3.0], requires_grad=True)
    expected = [0, 0, numpy.log(2), 0]
    numpy.testing.assert_allclose(dl.grad((a**b).sum(), b).numpy(), expected, rtol=1e-6)


def test_integers_to_integer_powers():
    x = dl.tensor([-2, 0, 3])
    assert (x**3).numpy().tolist() == [-8, 0, 27]
    assert (x**2).dtype == numpy.int64
    assert (x**2.0).dtype == numpy.float32
    numpy.testing.assert_array_equal((x**2.0).numpy(), [4, 0, 9])


# --- reductions -----------------------------------------------------------------------------------

ARRAYS = {
    "ordinary": ([[1.0, 5.0, 2.0], [4.0, 3.0, 0.5]], (*FLOATS, "int8", "uint8", "int32", "int64")),
    "bool": ([[True, False], [False, False]], ("bool",)),
    "ties": ([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]], FLOATS),
    "extremes of int8": ([[-128, 127, 5]], ("int8",)),
    "extremes of uint8": ([[0, 255, 5]], ("uint8",)),
    "infinities": ([[numpy.inf, 1.0], [-numpy.inf, -numpy.inf]], FLOATS),
    "NaN": ([[numpy.nan, 1.0], [2.0, 3.0]], FLOATS),
    "signed zeros": ([[0.0, -0.0], [-0.0, -0.0]], FLOATS),
}
REDUCTIONS = {name: (getattr(dl, name), getattr(numpy, name)) for name in ("sum", "max", "min", "argmax")}
FLOATING_REDUCTIONS = {name: (getattr(dl, name), getattr(numpy, name)) for name in ("mean", "var", "std")}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("case", ARRAYS)
def test_reductions_are_numpys(case, execution):
    values, dtypes = ARRAYS[case]
    chosen = [
        (name, ours, theirs, axis)
        for name, (ours, theirs) in (REDUCTIONS | FLOATING_REDUCTIONS).items()
        for axis in (0, 1, -1, None)
    ]
    for dtype in dtypes:
        array = numpy.array(values, dtype)
        results = executed(execution, lambda x: [ours(x, axis=axis) for _, ours, _, axis in chosen], array)
        for (name, _, theirs, axis), result in zip(chosen, results, strict=True):
            floating = name in FLOATING_REDUCTIONS and dtype not in FLOATS
            expected = numpy.asarray(theirs(array.astype("float32") if floating else array, axis=axis))
            message = f"{name} over {axis} of {case}, {dtype}"
            assert result.dtype == expected.dtype, message
            tolerance = TOLERANCES.get(expected.dtype.name, 0)
            numpy.testing.assert_allclose(result.numpy(), expected, tolerance, err_msg=message)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_reductions_over_no_axes_and_of_no_elements(execution):
    def function(x, number, empty):
        return [
            dl.sum(x, ()),
            dl.sum(number, axis=0),
            number.max(axis=-1),
            number.argmax(),
            dl.softmax(number),
            empty.sum(axis=1),
            empty.argmax(axis=0),
            dl.softmax(empty),
            dl.log_softmax(empty),
            dl.logsumexp(empty, axis=1),
        ]

    arrays = numpy.array([1.0, 2.0]), numpy.array(3.0), numpy.ones((2, 0))
    results = [x.numpy() for x in executed(execution, function, *arrays)]
    expected = [[1, 2], 3, 3, 0, 1, [0, 0], numpy.ones(0), numpy.ones((2, 0)), numpy.ones((2, 0))]
    for result, right in zip(results, [*expected, [-numpy.inf] * 2], strict=True):
        numpy.testing.assert_array_equal(result, right, strict=False)
        assert result.shape == numpy.shape(right)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_variance_without_degrees_of_freedom_is_numpys():
    for values in ([1.0, 2.0], [3.0, 3.0], [1.0]):
        x = numpy.array(values)
        for ddof in (len(values), len(values) + 1):
            numpy.testing.assert_array_equal(dl.tensor(x).var(ddof=ddof).numpy(), x.var(ddof=ddof))
            numpy.testing.assert_array_equal(dl.tensor(x).std(ddof=ddof).numpy(), x.std(ddof=ddof))


def test_float16_is_reduced_in_float32():
    x = dl.tensor(numpy.full(3, 40000, "float16"))
    assert x.mean().numpy() == numpy.float16(40000)
    assert x.mean().dtype == numpy.float16
    ones, zeros = dl.ones((300, 300), "float16"), dl.zeros((300, 300), "float16")
    assert dl.mean_squared_error(ones, zeros).item() == 1
    probabilities = dl.softmax(dl.zeros(70000, "float16"))
    numpy.testing.assert_allclose(probabilities.numpy(), 1 / 70000, rtol=0.01)
    spread = dl.tensor(numpy.array([-20000, 20000], "float16"))
    assert spread.std().item() == 20000
    assert dl.logsumexp(dl.zeros(70000, "float16")).item() == pytest.approx(numpy.log(70000), rel=1e-3)


@pytest.mark.parametrize("axis", [2, -3, 7])
@pytest.mark.parametrize(
    "operation",
    [
        lambda x, axis: dl.concatenate([x, x], axis=axis),
        lambda x, axis: dl.stack([x, x], axis=axis + 1 if axis > 0 else axis - 1),
        lambda x, axis: dl.expand_dims(x, axis + 1 if axis > 0 else axis - 1),
        lambda x, axis: dl.transpose(x, (0, axis)),
        lambda x, axis: dl.swapaxes(x, 0, axis),
        lambda x, axis: dl.squeeze(x, axis),
        lambda x, axis: dl.sum(x, axis=axis),
        lambda x, axis: dl.mean(x, axis=(0, axis)),
        lambda x, axis: dl.argmax(x, axis=axis),
        lambda x, axis: dl.softmax(x, axis=axis),
        lambda x, axis: dl.std(x, axis=axis),
    ],
)
def test_an_axis_that_does_not_exist_is_refused(operation, axis):
    with pytest.raises(numpy.exceptions.AxisError, match=f"axis {axis}|axis {axis + 1}|axis {axis - 1}"):
        operation(dl.ones((1, 1)), axis)


def test_numpy_integers_are_axes():
    x, one = dl.ones((2, 1)), numpy.int64(1)
    assert x.sum(axis=one).shape == (2,)
    assert x.argmax(axis=one).shape == (2,)
    assert dl.squeeze(x, one).shape == (2,)
    assert dl.expand_dims(x, one).shape == (2, 1, 1)
    assert dl.swapaxes(x, one, 0).shape == (1, 2)
    assert dl.concatenate([x, x], one).shape == (2, 2)
    assert dl.stack([x, x], one).shape == (2, 2, 1)


# --- dtypes ---------------------------------------------------------------------------------------


def test_float32_stays_float32():
    x, i = dl.ones((2, 2)), dl.tensor(numpy.ones((2, 2), "int64"))
    for y in (x @ i, i @ x, dl.concatenate([x, i]), dl.stack([i, x]), x + i, dl.where(i, x, i)):
        assert y.dtype == numpy.float32
    assert dl.softmax_cross_entropy(x, numpy.eye(2)).dtype == numpy.float32
    assert (i @ i).dtype == numpy.int64


def test_where_gives_numbers_the_dtype_of_the_values():
    mask = dl.tensor([True, False])
    for dtype in FLOATS:
        y = dl.where(mask, dl.ones(2, dtype), 0.1)
        assert y.dtype == dtype
        assert y.numpy()[1] == numpy.asarray(0.1, dtype)
    assert dl.where(mask, 1, 0).dtype == numpy.int64
    assert dl.where(mask, 1.0, 0).dtype == numpy.float32


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_where_takes_integer_conditions(execution):
    (y,) = executed(execution, lambda i, x: [dl.where(i, x, -x)], numpy.array([0, 1, 2]), numpy.ones(3))
    assert y.numpy().tolist() == [-1, 1, 1]


def test_numbers_beyond_a_dtype_can_be_compared():
    for dtype in ("int8", "uint8"):
        x = dl.tensor(numpy.array([1, 100], dtype))
        assert (x < 1000).numpy().all()
        assert (x > -1000).numpy().all()
        assert (x != 1000).numpy().all()
        with pytest.raises(OverflowError):
            x + 1000


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i4", ">i8"])
def test_arrays_of_foreign_byte_order_become_native(dtype, execution):
    array = numpy.array([1, 2, 3], dtype)
    if execution == "eager":
        y = dl.tensor(array) + 1
    else:
        y = dl.compile(lambda x: x + 1, kernels=execution)(array)
    assert y.numpy().tolist() == [2, 3, 4]
    assert y.dtype.isnative
    assert dl.tensor([1, 2], dtype=dtype).dtype.isnative
    assert dl.ones(2).astype(dtype).dtype.isnative


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_long_sums_do_not_lose_digits(execution):
    x = numpy.full((3, 1_000_000), 0.1, "float32")
    whole, rows, columns = executed(execution, lambda x, y: [x.sum(), x.sum(axis=1), y.sum(axis=0)], x, x.T)
    numpy.testing.assert_allclose(whole.numpy(), 300_000, 1e-5)
    numpy.testing.assert_allclose(rows.numpy(), 100_000, 1e-5)
    if execution == "c":  # NumPy adds row to row
        numpy.testing.assert_allclose(columns.numpy(), 100_000, 2e-5)


def test_a_limit_of_clip_may_be_missing_or_an_array():
    x = dl.tensor([-2.0, 0.5, 2.0], requires_grad=True)
    assert dl.clip(x, None, 1).numpy().tolist() == [-2, 0.5, 1]
    assert dl.clip(x, min=0).numpy().tolist() == [0, 0.5, 2]
    assert x.clip(numpy.array([0, 1, 0], "float32"), 1.5).numpy().tolist() == [0, 1, 1.5]
    upper = dl.tensor([1.0, 1.0, 1.0], requires_grad=True)
    gradients = dl.grad(dl.clip(x, -1.0, upper).sum(), [x, upper])
    assert [g.numpy().tolist() for g in gradients] == [[0, 1, 0], [0, 0, 1]]
    assert dl.clip(dl.tensor([1, 5]), 0.5, 2.5).numpy().tolist() == [1, 2.5]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize(
    "shapes", [((3, 5000), (3, 5000), (3, 5000)), ((5000,), (3, 1), ()), ((2, 2500), (), ())]
)
def test_where_of_many_elements(dtype, shapes, rng):
    condition = rng.random(shapes[0]) < 0.5
    a, b = (rng.choice(points(dtype), shape) for shape in shapes[1:])
    a, b = numpy.asarray(a, dtype), numpy.asarray(b, dtype)
    numpy.testing.assert_array_equal(dl.where(condition, a, b).numpy(), numpy.where(condition, a, b))


def test_relu_passes_an_infinite_gradient_of_many_elements(rng):
    x = dl.tensor(rng.normal(size=(70, 70)), requires_grad=True)
    g = numpy.where(rng.random(x.shape) < 0.5, numpy.inf, -0.0)
    expected = numpy.where(x.numpy() > 0, g, 0)
    numpy.testing.assert_array_equal(dl.grad(dl.relu(x), x, gradient=dl.tensor(g)).numpy(), expected)
