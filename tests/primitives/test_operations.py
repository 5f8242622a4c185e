"""Operations that are compositions: values against NumPy, gradients of orders one and two, and compiled.

An operation joins by a row in OPERATIONS: ours, NumPy's of the same meaning, and the shapes of the inputs.
"""

import functools

import numpy
import pytest
import scipy.special

import minidl as dl
from minidl.checks import check_gradients
from minidl.program.cpu.kernel_cache import compiler

KERNELS = [
    "numpy",
    pytest.param("c", marks=pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")),
]
INDICES = numpy.array([[1, 0, 2, 2], [0, 0, 1, 2]])
MASK = numpy.array([[True, False, True], [False, False, True]])


def both(name, *arguments, **keywords):
    """Return a function of ours and the one of NumPy's of the same name, with the same arguments."""
    theirs = getattr(numpy, name)
    return lambda *xs: getattr(dl, name)(*xs, *arguments, **keywords), lambda *xs: theirs(
        *xs, *arguments, **keywords
    )


def einsums(subscripts):
    return lambda *xs: dl.einsum(subscripts, *xs), lambda *xs: numpy.einsum(subscripts, *xs)


def both_of(function):
    """Return a function of minidl or numpy and inputs, with ours and with NumPy's."""
    return functools.partial(function, dl), functools.partial(function, numpy)


def joined(name, *arguments):
    """The same for functions that take a list of arrays."""
    theirs = getattr(numpy, name)
    return lambda *xs: getattr(dl, name)(list(xs), *arguments), lambda *xs: theirs(list(xs), *arguments)


def resized(x, lengths, nearest):
    """Resize by numpy.interp, which repeats the values at the ends, or by the positions of cells."""
    for axis, length in enumerate(lengths, 1):
        places = (numpy.arange(length) + 0.5) * x.shape[axis] / length
        if nearest:
            x = x.take(places.astype(int), axis)
        else:
            centres = numpy.arange(x.shape[axis]) + 0.5
            x = numpy.apply_along_axis(lambda line, p=places, c=centres: numpy.interp(p, c, line), axis, x)
    return x


def positive(x):
    return x * x + 1


OPERATIONS = {
    # reductions
    "prod": (*both("prod"), (2, 3)),
    "prod along an axis": (*both("prod", axis=1), (2, 5)),
    "prod of axes": (*both("prod", axis=(0, 2), keepdims=True), (2, 3, 2)),
    "prod of nothing": (*both("prod", axis=0), (0, 3)),
    "all": (lambda x: dl.all(x > 0, axis=0), lambda x: numpy.all(x > 0, axis=0), (2, 3)),
    "any": (lambda x: dl.any(x > 0, axis=1), lambda x: numpy.any(x > 0, axis=1), (2, 3)),
    "all of nothing": (*both("all", axis=1), (2, 0)),
    "any of nothing": (*both("any", axis=1), (2, 0)),
    "count_nonzero": (*both("count_nonzero", axis=1), (2, 3)),
    "argmin": (*both("argmin"), (2, 3)),
    "argmin along an axis": (*both("argmin", axis=1, keepdims=True), (2, 3)),
    "log_softmax": (dl.log_softmax, lambda x: scipy.special.log_softmax(x, axis=-1), (2, 3)),
    **{
        f"norm {ord} over {axis}": (
            lambda x, ord=ord, axis=axis: dl.norm(x, ord, axis),
            lambda x, ord=ord, axis=axis: numpy.linalg.norm(x, ord, axis),
            (3, 4),
        )
        for ord, axis in [
            (None, None),
            (None, 1),
            (2, 0),
            (1, 1),
            (3, 1),
            (0, 1),
            (0.5, 1),
            (-1, 0),
            (numpy.inf, 1),
            (-numpy.inf, 0),
            ("fro", (0, 1)),
            (1, (0, 1)),
            (-1, (1, 0)),
            (numpy.inf, (0, 1)),
        ]
    },
    # running sums
    "cumsum": (*both("cumsum"), (2, 3)),
    "cumsum along an axis": (*both("cumsum", axis=0), (3, 2)),
    "cumprod": (*both("cumprod", axis=1), (2, 7)),
    "cummax": (lambda x: dl.cummax(x, 1), lambda x: numpy.maximum.accumulate(x, 1), (2, 6)),
    "cummin": (lambda x: dl.cummin(x, 0), lambda x: numpy.minimum.accumulate(x, 0), (5, 2)),
    # sorting
    "sort": (*both("sort"), (2, 5)),
    "sort the first axis": (*both("sort", axis=0), (5, 2)),
    "sort all": (*both("sort", axis=None), (2, 3)),
    "argsort": (*both("argsort", axis=-1), (2, 5)),
    "topk": (lambda x: dl.topk(x, 2)[0], lambda x: -numpy.sort(-x)[:, :2], (2, 5)),
    "smallest": (lambda x: dl.topk(x, 2, axis=0, largest=False)[0], lambda x: numpy.sort(x, 0)[:2], (4, 3)),
    # products
    "dot of vectors": (*both("dot"), (3,), (3,)),
    "dot of stacks": (*both("dot"), (2, 3, 4), (2, 4, 2)),
    "dot with a number": (*both("dot"), (), (2, 3)),
    "inner": (*both("inner"), (2, 3), (4, 3)),
    "outer": (*both("outer"), (2,), (3,)),
    "tensordot": (*both("tensordot", 1), (2, 3), (3, 2)),
    "tensordot of axes": (*both("tensordot", ((1, 2), (1, 0))), (2, 3, 4), (4, 3, 2)),
    "tensordot of none": (*both("tensordot", 0), (2,), (3,)),
    "matmul": (*both("matmul"), (2, 2, 3), (3, 4)),
    **{
        f"einsum {subscripts}": (*einsums(subscripts), *shapes)
        for subscripts, *shapes in [
            ("ij,jk->ik", (2, 3), (3, 4)),
            ("ij,jk", (2, 3), (3, 4)),
            ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
            ("bhqd,bhkd->bhqk", (1, 2, 3, 2), (1, 2, 4, 2)),
            ("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
            ("...ij,...jk->...ik", (2, 2, 3), (3, 2)),
            ("ij...,jk...->ik...", (2, 3, 2), (3, 2, 2)),
            ("ij->ji", (2, 3)),
            ("ij->", (2, 3)),
            ("ii", (3, 3)),
            ("ii->i", (3, 3)),
            ("iij->j", (3, 3, 2)),
            ("i,i->i", (3,), (3,)),
            ("i,j->ij", (2,), (3,)),
            ("a,ab,abc->abc", (2,), (2, 3), (2, 3, 2)),
            ("ij,ij->j", (1, 3), (2, 3)),
            ("ijk,ikj->i", (2, 3, 2), (2, 2, 3)),
        ]
    },
    "einsum by numbers": (*both_of(lambda m, x, y: m.einsum(x, [0, 1], y, [1, 2], [2, 0])), (2, 3), (3, 4)),
    "einsum by numbers alone": (
        *both_of(lambda m, x, y: m.einsum(x, [..., 7], y, [7, 30])),
        (2, 3),
        (3, 4),
    ),
    # resizing
    **{
        f"resize {interpolation} to {lengths}": (
            lambda x, n=lengths, i=interpolation: dl.resize(x, n, i),
            lambda x, n=lengths, i=interpolation: resized(x, n, i == "nearest"),
            (2, *shape, 2),
        )
        for interpolation in ("nearest", "linear")
        for shape, lengths in (((5,), (8,)), ((4, 5), (7, 3)), ((2, 3, 2), (3, 2, 5)))
    },
    # linear algebra
    "inv": (
        lambda x: dl.linalg.inv(x @ x.T + dl.eye(3, dtype="float64")),
        lambda x: numpy.linalg.inv(x @ x.T + numpy.eye(3)),
        (3, 3),
    ),
    "solve": (
        lambda a, b: dl.linalg.solve(a @ a.T + dl.eye(3, dtype="float64"), b),
        lambda a, b: numpy.linalg.solve(a @ a.T + numpy.eye(3), b),
        (3, 3),
        (3,),
    ),
    "cholesky": (
        lambda x: dl.linalg.cholesky(x @ x.T + dl.eye(3, dtype="float64")),
        lambda x: numpy.linalg.cholesky(x @ x.T + numpy.eye(3)),
        (3, 3),
    ),
    "slogdet": (lambda x: dl.linalg.slogdet(x)[1], lambda x: numpy.linalg.slogdet(x)[1], (2, 3, 3)),
    "det": (lambda x: dl.linalg.det(x), lambda x: numpy.linalg.det(x), (3, 3)),
    # arrangement
    "moveaxis": (*both("moveaxis", (0, 1), (-1, 0)), (2, 3, 4)),
    "ravel": (*both("ravel"), (2, 3)),
    "tile": (*both("tile", (2, 1, 3)), (2, 3)),
    "tile more axes": (*both("tile", 2), (2, 3)),
    "repeat": (*both("repeat", 2, axis=1), (2, 3)),
    "repeat all": (*both("repeat", 3), (2, 2)),
    "repeat by counts": (*both("repeat", [2, 0, 1], axis=1), (2, 3)),
    "flip": (*both("flip"), (2, 3)),
    "flip an axis": (*both("flip", axis=1), (2, 3)),
    "roll": (*both("roll", 2), (2, 3)),
    "roll axes": (*both("roll", (1, -2), axis=(0, 1)), (2, 3)),
    "split": (lambda x: dl.split(x, 3, axis=1)[1], lambda x: numpy.split(x, 3, axis=1)[1], (2, 6)),
    "split at": (lambda x: dl.split(x, [1, 4])[1], lambda x: numpy.split(x, [1, 4])[1], (6, 2)),
    "vstack": (*joined("vstack"), (3,), (2, 3)),
    "hstack": (*joined("hstack"), (2, 1), (2, 3)),
    "hstack of vectors": (*joined("hstack"), (2,), (3,)),
    "concatenate all": (*joined("concatenate", None), (2,), (2, 3)),
    "atleast_1d": (*both("atleast_1d"), ()),
    "atleast_2d": (*both("atleast_2d"), (3,)),
    "expand_dims": (*both("expand_dims", (0, -1)), (2, 3)),
    "squeeze": (*both("squeeze", (0, 2)), (1, 2, 1)),
    **{
        f"pad {mode}": (*both("pad", ((1, 2), (2, 0)), mode), (4, 3))
        for mode in ("edge", "reflect", "symmetric", "wrap")
    },
    "pad": (*both("pad", (1, 2), constant_values=3.0), (2, 3)),
    "take": (*both("take", [2, 0, 0], axis=1), (2, 3)),
    "take of all": (*both("take", [[5, 0]]), (2, 3)),
    "take_along_axis": (*both("take_along_axis", INDICES, axis=1), (2, 3)),
    "tril": (*both("tril", 1), (2, 3, 3)),
    "triu": (*both("triu", -1), (4, 3)),
    "diag of a vector": (*both("diag", 1), (3,)),
    "diag of a matrix": (*both("diag", -1), (3, 4)),
    "diagonal": (*both("diagonal", 1, 0, 2), (3, 2, 4)),
    "trace": (*both("trace", 1), (3, 4)),
    "meshgrid": (lambda a, b: dl.meshgrid(a, b)[0], lambda a, b: numpy.meshgrid(a, b)[0], (2,), (3,)),
    "meshgrid ij": (
        lambda a, b: dl.meshgrid(a, b, indexing="ij")[1],
        lambda a, b: numpy.meshgrid(a, b, indexing="ij")[1],
        (2,),
        (3,),
    ),
    # elements
    "clip by arrays": (
        lambda x, a: dl.clip(x, a - 1, a + 1),
        lambda x, a: numpy.clip(x, a - 1, a + 1),
        (3,),
        (3,),
    ),
    "reciprocal": (lambda x: dl.reciprocal(positive(x)), lambda x: numpy.reciprocal(positive(x)), (3,)),
    "square": (*both("square"), (3,)),
    "hypot": (*both("hypot"), (3,), (3,)),
    "sinc": (*both("sinc"), (3,)),
    "round": (*both("round", 1), (3,)),
    "mod": (lambda x: x % 0.7, lambda x: x % 0.7, (3,)),
    "floor_divide": (lambda x: 3 // positive(x), lambda x: 3 // positive(x), (3,)),
    "where": (lambda x: dl.where(MASK, x, -x), lambda x: numpy.where(MASK, x, -x), (2, 3)),
    # activations
    "gelu": (dl.gelu, lambda x: x * scipy.special.ndtr(x), (5,)),
    "gelu approximated": (
        lambda x: dl.gelu(x, approximate=True),
        lambda x: 0.5 * x * (1 + numpy.tanh((2 / numpy.pi) ** 0.5 * (x + 0.044715 * x**3))),
        (5,),
    ),
    "silu": (dl.silu, lambda x: x * scipy.special.expit(x), (5,)),
    "softsign": (dl.softsign, lambda x: x / (1 + abs(x)), (5,)),
    "leaky_relu": (lambda x: dl.leaky_relu(x, 0.1), lambda x: numpy.where(x > 0, x, 0.1 * x), (5,)),
    "elu": (lambda x: dl.elu(x, 2.0), lambda x: numpy.where(x > 0, x, 2 * numpy.expm1(x)), (5,)),
    "selu": (
        dl.selu,
        lambda x: 1.0507009873554805 * numpy.where(x > 0, x, 1.6732632423543772 * numpy.expm1(x)),
        (5,),
    ),
    "log_sigmoid": (dl.log_sigmoid, scipy.special.log_expit, (5,)),
}

every_operation = pytest.mark.parametrize("name", OPERATIONS)


def drawn(name):
    rng = numpy.random.default_rng(len(name))
    return [rng.uniform(-2, 2, shape) for shape in OPERATIONS[name][2:]]


@every_operation
def test_values_are_numpys(name):
    ours, theirs, *_ = OPERATIONS[name]
    inputs = drawn(name)
    result, expected = ours(*map(dl.tensor, inputs)), numpy.asarray(theirs(*inputs))
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-11, atol=1e-14)
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    in_float32 = ours(*(dl.tensor(x, "float32") for x in inputs))
    assert in_float32.dtype in (numpy.float32, expected.dtype if expected.dtype.kind != "f" else None)


@every_operation
def test_gradients(name):
    ours, inputs = OPERATIONS[name][0], drawn(name)
    if ours(*(dl.tensor(x, requires_grad=True) for x in inputs)).requires_grad:
        check_gradients(ours, *inputs, order=2)
    else:
        assert name.split()[0] in WITHOUT_GRADIENT or 0 in numpy.shape(inputs[0])


WITHOUT_GRADIENT = {"all", "any", "argmin", "argsort", "count_nonzero", "floor_divide", "norm", "round"}


@pytest.mark.parametrize("kernels", KERNELS)
def test_compiled_they_are_the_same(kernels):
    """All operations and their gradients in one program."""

    def all_of_them(nests):
        results = []
        for name, xs in nests.items():
            y = OPERATIONS[name][0](*xs)
            results.append(y)
            if y.requires_grad:
                results += dl.grad((y * y).sum(), list(xs))
        return results

    nests = {name: [dl.tensor(x, requires_grad=True) for x in drawn(name)] for name in OPERATIONS}
    compiled = dl.compile(all_of_them, kernels=kernels)(nests)
    for replayed, plain in zip(compiled, all_of_them(nests), strict=True):
        numpy.testing.assert_allclose(replayed.numpy(), plain.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_the_gradient_of_a_product_with_zeros(zeros):
    x = numpy.array([2.0, 3.0, 5.0, 7.0])
    x[:zeros] = 0
    others = [numpy.prod(numpy.delete(x, i)) for i in range(4)]
    t = dl.tensor(x, requires_grad=True)
    numpy.testing.assert_array_equal(dl.grad(dl.prod(t), t).numpy(), others)
    numpy.testing.assert_array_equal(dl.grad(dl.cumprod(t)[-1], t).numpy(), others)


def test_the_gradient_of_a_norm_at_0_is_0():
    x = dl.zeros((2, 3))
    x.requires_grad = True
    assert not dl.grad(dl.norm(x), x).numpy().any()
    for order in (1, 2, 0.5, 3, -1, -2.5):
        assert not dl.grad(dl.norm(x, order, axis=1).sum(), x).numpy().any()


@pytest.mark.parametrize("ord", [None, 1, 2, 3, numpy.inf])
def test_a_norm_of_integers_is_computed_in_floats(ord):
    for x in (numpy.array([100, -128], "int8"), numpy.array([True, True]), numpy.array([2**40, 1])):
        norm = dl.norm(dl.tensor(x), ord)
        assert norm.dtype == numpy.float32
        expected = numpy.linalg.norm(x.astype("float64"), ord)
        numpy.testing.assert_allclose(norm.item(), expected, rtol=1e-6)


@pytest.mark.parametrize(("ord", "axis"), [(None, None), (2, 1), ("fro", (0, 1))])
def test_the_second_derivative_of_a_norm_where_elements_are_0(ord, axis):
    x = numpy.array([[0.0, 3.0, 0.0, 4.0]])
    unit = x.ravel() / 5
    hessian = dl.hessian(lambda x: dl.norm(x, ord, axis).sum())(dl.tensor(x)).numpy().reshape(4, 4)
    numpy.testing.assert_allclose(hessian, (numpy.eye(4) - numpy.outer(unit, unit)) / 5, atol=1e-15)


@pytest.mark.parametrize("kernels", [None, *KERNELS])
def test_of_equal_elements_topk_takes_the_first(kernels):
    x = dl.tensor([[1, 1, 0, 1, 0], [0, 2, 0, 2, 0]])
    both = [lambda x: dl.topk(x, 3), lambda x: dl.topk(x, 3, largest=False)]
    largest, smallest = (dl.compile(f, kernels=kernels) if kernels else f for f in both)
    assert [part.tolist() for part in largest(x)] == [[[1, 1, 1], [2, 2, 0]], [[0, 1, 3], [1, 3, 0]]]
    assert [part.tolist() for part in smallest(x)] == [[[0, 0, 1], [0, 0, 0]], [[2, 4, 0], [0, 2, 4]]]
    assert dl.topk(dl.tensor([1.0, numpy.nan, 3.0]), 2)[1].tolist() == [1, 2]
    numpy.testing.assert_array_equal(dl.topk(x, 1, axis=0)[1][0].numpy(), dl.argmax(x, axis=0).numpy())


def test_triangles_keep_the_dtype():
    for dtype in ("bool", "uint8", "int32", "float16", "float32"):
        x = numpy.ones((3, 3), dtype)
        for ours, theirs in ((dl.tril, numpy.tril), (dl.triu, numpy.triu)):
            assert ours(dl.tensor(x)).dtype == dtype
            numpy.testing.assert_array_equal(ours(dl.tensor(x)).numpy(), theirs(x))


def test_integers_stay_integers():
    x = dl.tensor([[3, 1], [2, 0]])
    for y in (dl.prod(x), dl.cumsum(x, 0), dl.cumprod(x, 1), dl.sort(x), x // 2, x % 2, dl.square(x), x & 1):
        assert y.dtype == numpy.int64
    assert dl.prod(dl.tensor([True, False])).dtype == numpy.int64
    assert (x[0] | dl.tensor([4, 4])).numpy().tolist() == [7, 5]
    assert (~dl.tensor([True, False])).numpy().tolist() == [False, True]
    assert (~dl.tensor(numpy.array([0, 255], "uint8"))).numpy().tolist() == [255, 0]


def test_ties_and_nan_are_sorted_as_numpy_does():
    x = numpy.array([2.0, numpy.nan, 1.0, 2.0, -numpy.inf, 1.0])
    numpy.testing.assert_array_equal(dl.sort(x).numpy(), numpy.sort(x))
    numpy.testing.assert_array_equal(dl.argsort(x).numpy(), numpy.argsort(x, kind="stable"))


def test_functions_take_lists_and_arrays():
    assert dl.sum([1.0, 2.0]).item() == 3
    assert dl.transpose([[1, 2]]).shape == (2, 1)
    assert dl.concatenate([[1.0], numpy.ones(1, "float32")]).numpy().tolist() == [1, 1]
    assert dl.matmul([[1.0, 2.0]], [[3.0], [4.0]]).item() == 11


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: dl.einsum("ij,jk->ik", dl.ones((2, 3))), "describes 2 operands, got 1"),
        (
            lambda: dl.einsum("ij,jk->ik", dl.ones((2, 3)), dl.ones((2, 3))),
            "'j' of .* have the lengths 3 and 2",
        ),
        (lambda: dl.einsum("ijk->i", dl.ones((2, 3))), "does not describe the axes of shape"),
        (lambda: dl.einsum("ij->ik", dl.ones((2, 3))), "names 'k', which no operand has"),
        (lambda: dl.tensordot(dl.ones((2, 3)), dl.ones((2, 3)), 1), "differ in length"),
        (lambda: dl.split(dl.ones(5), 2), "an axis of length 5 has no 2 equal parts"),
        (lambda: dl.topk(dl.ones(3), 4), "an axis of length 3 has no 4 elements"),
        (lambda: dl.linalg.inv(dl.ones((2, 3))), r"square matrices .* got shape \(2, 3\)"),
        (lambda: dl.linalg.inv(dl.zeros((2, 2))), "[Ss]ingular"),
        (lambda: dl.linalg.solve(dl.eye(2), dl.ones(3)), "does not fit"),
        (lambda: dl.pad(dl.ones(3), 1, "mean"), "unknown mode 'mean'"),
        (lambda: dl.resize(dl.ones((1, 2, 2, 1)), (3, 3), "cubic"), 'is "nearest" or "linear", got .cubic'),
        (lambda: dl.resize(dl.ones((1, 2, 2, 1)), (3, 3, 3)), "resize: lengths is .* or 2 of them"),
        (lambda: dl.resize(dl.ones((1, 0, 1)), 3), "resize takes .* got shape .1, 0, 1."),
        (lambda: dl.norm(dl.ones((2, 2)), "nuc", (0, 1)), "no order 'nuc' over 2 axes"),
        (lambda: dl.take_along_axis(dl.ones((2, 2)), dl.tensor([0]), 0), "takes integers of 2 axes"),
        (lambda: dl.moveaxis(dl.ones((2, 2)), (0, 1), 0), "2 axes cannot go to 1 positions"),
    ],
)
def test_bad_input_is_refused_with_a_clear_error(action, message):
    with pytest.raises(ValueError, match=message):
        action()


#: Operations that the stand-in for CuPy lacks (it has no linalg and no cupyx), or whose row has host arrays.
NOT_ON_THE_STAND_IN = {"inv", "solve", "cholesky", "slogdet", "det", "gelu", "where", "take_along_axis"}


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - NOT_ON_THE_STAND_IN))
def test_on_a_gpu_they_are_the_same(name, strict_gpu):
    ours, inputs = OPERATIONS[name][0], drawn(name)
    on_gpu = ours(*(dl.tensor(x, device="gpu") for x in inputs))
    assert on_gpu.device == "gpu:0"
    numpy.testing.assert_allclose(on_gpu.numpy(), ours(*map(dl.tensor, inputs)).numpy(), rtol=1e-12)


@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize(
    ("given", "wanted"), [("float32", "float64"), ("float16", "float32"), ("int32", "float32")]
)
def test_sums_in_another_dtype(name, given, wanted, kernels, rng):
    x = (100 * rng.normal(size=(3, 500))).astype(given)
    expected = getattr(numpy, name)(x, axis=1, dtype=wanted)
    ours = lambda x: getattr(dl, name)(x, axis=1, dtype=wanted)
    result = (dl.compile(kernels=kernels)(ours) if kernels else ours)(dl.tensor(x))
    assert result.dtype == wanted
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-12 if wanted == "float64" else 1e-5)
    through_numpy = getattr(numpy, name)(dl.tensor(x), axis=1, dtype=wanted)
    numpy.testing.assert_allclose(through_numpy.numpy(), result.numpy(), rtol=1e-6)


def test_a_sum_in_another_dtype_has_a_gradient_in_its_own():
    x = dl.tensor(numpy.ones(3, "float32"), requires_grad=True)
    dl.sum(x * 2, dtype="float64").backward()
    assert x.grad.dtype == "float32"
    assert x.grad.tolist() == [2, 2, 2]


def test_a_sum_of_integers_keeps_the_dtype_asked_for():
    assert dl.sum(dl.tensor(numpy.ones(3, "int8")), dtype="int8").dtype == "int8"
