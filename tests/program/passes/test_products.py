"""Sums of many products with a short inner axis become one product."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes import pipeline
from minidl.program.passes.products import merge_products
from minidl.program.program import Gemm
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated

KERNELS = ["numpy", pytest.param("c", marks=needs_c)]
BEFORE = pipeline.PASSES[: pipeline.PASSES.index(merge_products)]
STEPS = 6


def most_terms(program):
    return max(len(step.terms) for step in program.steps if isinstance(step, Gemm))


def recurrence(x, weight):
    """Steps that are put together by nothing else."""
    h = x[:, 0] * 0.5
    for t in range(STEPS):
        h = dl.tanh(x[:, t] + h @ weight)
    return (h * h).sum()


def from_a_constant(x, weight):
    h = dl.zeros((x.shape[0], 8), x.dtype)
    for t in range(STEPS):
        h = dl.tanh(x[:, t] + h @ weight)
    return (h * h).sum()


def put_together_in_another_order(x, weight):
    h, states = x[:, 0] * 0.5, []
    for t in range(STEPS):
        states.append(h)
        h = dl.tanh(x[:, t] + h @ weight)
    return (dl.stack(states[::-1], axis=1) ** 3).sum() + h.sum()


def on_the_right(x, weight):
    """A state that is multiplied from the left."""
    h = x[:, 0].T * 0.5
    for t in range(STEPS):
        h = dl.tanh(x[:, t].T + weight @ h)
    return (h * h).sum()


def few(x, weight):
    h = x[:, 0] * 0.5
    for t in range(3):
        h = dl.tanh(x[:, t] + h @ weight)
    return (h * h).sum()


MERGED = [recurrence, from_a_constant, put_together_in_another_order]
FUNCTIONS = [*MERGED, on_the_right, few]


def gradient_of(function, dtype):
    weight = dl.Parameter(numpy.random.default_rng(0).normal(size=(8, 8)).astype(dtype) / 3)

    def gradient(x):
        loss = function(x, weight)
        return loss, dl.grad(loss, weight)

    return gradient


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_sum_of_products_is_one_product(function, rng):
    x = rng.normal(size=(5, STEPS, 8))
    program = recorded(gradient_of(function, "float64"), x)
    for improve in BEFORE:
        program = improve(program)
    after = merge_products(program)
    (x,) = [x.reshape(program.inputs[0].shape)]
    for ours, theirs in zip(evaluated(after, x), evaluated(program, x), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    assert most_terms(after) == (1 if function in MERGED else most_terms(program))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_gradients_are_what_they_were(function, kernels, threads, dtype, rng):
    gradient = gradient_of(function, dtype)
    compiled = dl.compile(gradient, kernels=kernels, threads=threads)
    for _ in range(2):
        x = rng.normal(size=(7, STEPS, 8)).astype(dtype)
        for ours, theirs in zip(compiled(x), gradient(dl.tensor(x)), strict=True):
            tolerance = 1e-4 if dtype == "float32" else 1e-11
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layer", [dl.RNN, dl.LSTM, dl.GRU])
def test_recurrent_weights_have_one_product_each(layer, rng):
    network = layer(4, 5, return_sequences=True, seed=0)
    weights = network.parameters()

    def step(x):
        return tuple(dl.grad((network(x) ** 2).sum(), weights))

    program = pipeline.optimize(recorded(step, rng.normal(size=(3, 6, 4)).astype("float32")))
    assert most_terms(program) <= 2
