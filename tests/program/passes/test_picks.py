"""One element of each row, picked by comparison."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes import picks, pipeline
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated, names

RNG = numpy.random.default_rng(0)


def loss_and_gradient(weight, labels):
    def function(x):
        loss = dl.softmax_cross_entropy(x @ weight, labels)
        return loss, dl.grad(loss, weight)

    return function


def test_a_cross_entropy_is_computed_row_by_row_with_its_gradient():
    weight = dl.Parameter(RNG.normal(size=(8, 5)).astype("float32"))
    x, labels = RNG.normal(size=(7, 8)).astype("float32"), dl.tensor(RNG.integers(0, 5, 7))
    program = recorded(loss_and_gradient(weight, labels), x)
    with_comparisons = picks.compare_picks(program)
    assert not {"gather", "scatter_add"} & set(names(with_comparisons))
    for ours, theirs in zip(evaluated(with_comparisons, x), evaluated(program, x), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    kinds = [type(step).__name__ for step in pipeline.optimize(program).steps if not step.is_view]
    assert kinds.count("Rows") == 1


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_losses_of_classes_that_exist_or_do_not(kernels, dtype):
    x = dl.tensor((RNG.normal(size=(2, 6, 5)) * 20).astype("float32"))
    labels = RNG.integers(0, 5, (2, 6)).astype(dtype)
    step = dl.compile(lambda x, t: dl.softmax_cross_entropy(x, t, reduction="none"), kernels=kernels)
    for _ in range(2):
        expected = dl.softmax_cross_entropy(x, labels, reduction="none").numpy()
        numpy.testing.assert_allclose(step(x, labels).numpy(), expected, rtol=1e-6, atol=1e-6)
        labels = labels[::-1].copy()
    labels[1, 2] = 5
    with pytest.raises(ValueError, match="class numbers must be in"):
        step(x, labels)


def test_positions_that_may_not_exist_are_gathered():
    x = dl.tensor(RNG.normal(size=(4, 3)))
    places = numpy.array([0, -1, 2, 1])

    def picked(x, places):
        return x[numpy.arange(4), places]

    step = dl.compile(picked, kernels="numpy")
    numpy.testing.assert_array_equal(step(x, places).numpy(), picked(x, places).numpy())
    with pytest.raises(IndexError):
        step(x, numpy.array([0, 1, 2, 3]))
    program = recorded(lambda x: x[numpy.arange(4), numpy.array([0, -1, 2, 1])], x.numpy())
    assert "gather" in names(picks.compare_picks(program))


def test_other_orders_of_rows_are_gathered():
    def function(x):
        return x[numpy.array([1, 0, 2]), dl.clip((x[:, 0] * 3).astype("int64"), 0, 2)]

    x = RNG.normal(size=(3, 3))
    program = recorded(function, x)
    assert "gather" in names(picks.compare_picks(program))


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 2)])
def test_a_cross_entropy_and_its_gradient_are_one_pass_over_the_rows(shape, dtype, kernels):
    x = RNG.normal(size=(*shape, 4)).astype(dtype)
    labels = dl.tensor(RNG.integers(0, 5, shape))
    weight = dl.Parameter((RNG.normal(size=(4, 5)) * 9).astype(dtype))

    def step(x):
        loss = dl.softmax_cross_entropy(x @ weight, labels)
        return loss, dl.grad(loss, weight)

    compiled = dl.compile(step, kernels=kernels)
    for _ in range(2):
        for ours, theirs in zip(compiled(x), step(dl.tensor(x)), strict=True):
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)
        labels.assign(labels.numpy()[::-1].copy())
    steps = pipeline.optimize(recorded(step, x)).steps
    (rows,) = (step for step in steps if type(step).__name__ == "Rows")
    sums = [member for member in rows.members if member.name == "sum"]
    assert len(sums) == 2  # of the powers, and of the element that is picked


def test_picks_of_differences_are_differences_of_picks_to_the_last_bit():
    labels = dl.tensor(RNG.integers(0, 5, 7))

    def function(x):
        inside = dl.clip(labels, 0, 4)
        return (x - x.max(axis=1, keepdims=True))[numpy.arange(7), inside], (x - x)[numpy.arange(7), inside]

    x = RNG.normal(size=(7, 5))
    program = recorded(function, x)
    after = picks.compare_picks(program)
    assert "gather" not in names(after)
    for ours, theirs in zip(evaluated(after, x), evaluated(program, x), strict=True):
        numpy.testing.assert_array_equal(ours, theirs)
