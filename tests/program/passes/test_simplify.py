"""Passes on single instructions and on matrix products."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes import pipeline, simplify
from minidl.program.program import Gemm
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated, names


def test_dead_instructions_are_dropped_but_random_draws_stay():
    generator = dl.Generator(0)

    def function(x):
        dl.exp(x * 3)
        dl.primitives.random.random_uniform(x, generator=generator)
        return x + 1

    assert names(simplify.drop_dead(recorded(function, numpy.ones(2)))) == ["random_uniform", "add"]


def test_constants_are_folded():
    program = recorded(lambda x: x * (dl.sqrt(dl.full((), 16.0, "float64")) + 1), numpy.ones(2))
    program = simplify.drop_dead(simplify.fold_constants(program))
    assert names(program) == ["multiply"]
    assert program.steps[0].inputs[1].array == 5


def test_equal_expressions_are_merged_but_random_draws_are_not():
    generator = dl.Generator(0)

    def function(x):
        draws = [dl.primitives.random.random_uniform(x, generator=generator) for _ in range(2)]
        return dl.exp(x * 2) + dl.exp(x * 2) + draws[0] + draws[1]

    merged = names(simplify.merge_equal(recorded(function, numpy.ones(2))))
    assert merged.count("exp") == merged.count("multiply") == 1
    assert merged.count("random_uniform") == 2


def test_products_of_a_tied_weight_add_up_in_one_gemm():
    weight = dl.Parameter(numpy.random.default_rng(0).normal(size=(5, 3)))

    def function(x):
        y = (x @ weight) @ weight.T
        (y * y).sum().backward()
        gradient, weight.grad = weight.grad, None
        return gradient

    program = pipeline.optimize(recorded(function, numpy.random.default_rng(1).normal(size=(4, 5))))
    gemms = [step for step in program.steps if isinstance(step, Gemm)]
    assert [len(gemm.terms) for gemm in gemms] == [1, 1, 1, 2]
    assert gemms[-1].output is program.outputs[0]


def test_a_transpose_that_exchanges_nothing_leaves_its_product_alone(rng):
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    for function in (
        lambda a, b: (a @ b).transpose(0, 1) * 2,
        lambda a, b: dl.swapaxes(a @ a, 0, 0),
        lambda a, b: ((a @ b).T.transpose(0, 1) @ a).T.transpose(1, 0),
    ):
        step = dl.compile(function)
        for _ in range(2):
            y = step(dl.tensor(a), dl.tensor(b))
        numpy.testing.assert_allclose(y.numpy(), function(dl.tensor(a), dl.tensor(b)).numpy())


def test_broadcast_gradients_are_not_written_out():
    def function(x):
        x.requires_grad = True
        return dl.grad(dl.tanh(x).mean(), x)

    program = pipeline.optimize(recorded(function, numpy.ones((4, 3))))
    assert names(program) == ["tanh tanh_backward"]


def test_old_state_that_is_returned_is_copied():
    p = dl.Parameter([1.0, 2.0])

    def function(x):
        old = p.detach().reshape(2, 1).reshape(2)
        return old, p * x

    program = simplify.protect_old_state(simplify.drop_aliases(recorded(function, numpy.ones(2))))
    assert names(program)[-1] == "multiply" or "cast" in names(program)
    assert program.outputs[0] not in program.states


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_sums_of_negated_numbers_are_negated_sums(kernels, rng):
    x = rng.normal(size=(40, 30)).astype("float32")

    def function(x):
        return (-x).sum(axis=0), (-dl.exp(x)).sum(axis=1, keepdims=True), (-x).sum()

    program = recorded(function, x)
    after = simplify.drop_dead(simplify.negate_sums(program))
    assert names(after) == ["sum", "negative", "exp", "sum", "negative", "sum", "negative"]
    for result, right in zip(evaluated(after, x), evaluated(program, x), strict=True):
        assert numpy.array_equal(result, right)
    compiled = dl.compile(function, kernels=kernels)
    for result, right in zip(compiled(dl.tensor(x)), function(dl.tensor(x)), strict=True):
        numpy.testing.assert_allclose(result.numpy(), right.numpy(), rtol=1e-5, atol=1e-4)


def test_sums_of_negated_integers_stay(rng):
    """Their sums have another dtype, in which the smallest integer can be negated."""
    x = numpy.array([-128, 3], "int8")
    program = recorded(lambda x: (-x).sum(), x)
    assert names(simplify.negate_sums(program)) == names(program)
    assert dl.compile(lambda x: (-x).sum())(dl.tensor(x)).item() == -131
