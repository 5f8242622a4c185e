"""Gradients of slices that tile an axis, put side by side."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes.slices import join_slices
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated, names

KERNELS = ["numpy", pytest.param("c", marks=needs_c)]


def weighted(parts):
    """The sum of parts, each with a weight of its own, so that no two gradients are equal."""
    return sum(((number + 1.5) * dl.sin(part)).sum() for number, part in enumerate(parts))


def gates(x):
    return weighted([x[:, 2 * i : 2 * i + 2] for i in range(4)])


def out_of_order(x):
    return weighted([x[:, 5:], x[:, :3], x[:, 3:5]])


def steps(x):
    """As a recurrent layer cuts its input: into halves again and again."""
    whole = x.reshape(2, 5, 8)

    def cut(y):
        n = y.shape[1]
        return [y[:, 0]] if n == 1 else [*cut(y[:, : n // 2]), *cut(y[:, n // 2 :])]

    return weighted(cut(whole))


def overlapping(x):
    return weighted([x[:, :5], x[:, 3:]])


def with_a_gap(x):
    return weighted([x[:, :3], x[:, 4:]])


def on_two_axes(x):
    return weighted([x[:5], x[5:, :4], x[5:, 4:]])


def every_other(x):
    return weighted([x[:, ::2], x[:, 1::2]])


def with_new_axes(x):
    return weighted([x[:, None, :4], x[:, None, 4:]])


def first_rows_and_the_rest(x):
    return weighted([x[0], x[1:]])


def used_twice(x):
    part = x[:, :4]
    return weighted([part, x[:, 4:], part * part])


FUNCTIONS = [
    gates,
    out_of_order,
    steps,
    overlapping,
    with_a_gap,
    on_two_axes,
    every_other,
    with_new_axes,
    first_rows_and_the_rest,
    used_twice,
]
JOINED = {gates: 1, out_of_order: 1, steps: 1, with_new_axes: 1, first_rows_and_the_rest: 1, used_twice: 1}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_gradient_stays_what_it_is(function, rng):
    x = rng.normal(size=(10, 8))

    def gradient(x):
        parameter = dl.Parameter(x)
        function(parameter).backward()
        return parameter.grad

    program = recorded(gradient, x)
    before = evaluated(program, x)
    after = join_slices(program)
    numpy.testing.assert_allclose(evaluated(after, x)[0], before[0], rtol=1e-12)
    assert names(after).count("concatenate") == JOINED.get(function, 0)
    if function in JOINED:
        assert "scatter_add" not in names(after)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_steps_compute_the_same(function, kernels, rng):
    x = rng.normal(size=(10, 8)).astype("float32")
    weight = dl.Parameter(dl.tensor(numpy.ones(8, "float32")))

    def step(x):
        loss = function(x * weight)
        loss.backward()
        return loss, weight.grad + 0

    expected = [part.numpy() for part in step(dl.tensor(x))]
    weight.grad = None
    compiled = dl.compile(step, kernels=kernels)
    for _ in range(2):
        for result, right in zip(compiled(dl.tensor(x)), expected, strict=True):
            numpy.testing.assert_allclose(result.numpy(), right, rtol=1e-4, atol=1e-5)
        weight.grad = None
