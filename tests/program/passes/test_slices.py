"""Gradients of slices that tile an axis, put side by side; and slices that are taken first."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes.slices import join_slices, slice_first
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


# --- slices that come first -------------------------------------------------------------------------


def gates_of_a_sum(x):
    z = x * 2.0 + x[:1]  # broadcast along the rows
    return dl.sigmoid(z[:, :4]) * dl.tanh(z[:, 4:])


def gates_with_a_bias(x):
    z = x + x[0]
    return dl.sigmoid(z[1:3, :4]) * dl.tanh(z[4:6, 4:])


def rows_of_a_sum(x):
    z = x + x * x
    return dl.exp(z[3]) * z[0]


def read_as_a_whole_too(x):
    z = x * 2.0
    return dl.sigmoid(z[:, :4]) * z[:, 4:], z + 1


def multiplied(x):
    z = x * 2.0
    return z[:, :4] @ z[:, 4:].T


def more_than_there_is(x):
    z = dl.exp(x)
    return (dl.sin(z[:, 1:]) * dl.cos(z[:, :-1]),)[0]


def returned_too(x):
    z = dl.exp(x)
    return z[:, :4] + z[:, 4:], z


SLICED = [gates_of_a_sum, gates_with_a_bias, rows_of_a_sum]
LEFT = [read_as_a_whole_too, multiplied, more_than_there_is, returned_too]


@pytest.mark.parametrize("function", [*SLICED, *LEFT])
def test_results_stay_the_same_to_the_last_bit(function, rng):
    x = rng.normal(size=(10, 8))
    program = recorded(function, x)
    after = slice_first(program)
    for ours, theirs in zip(evaluated(after, x), evaluated(program, x), strict=True):
        numpy.testing.assert_array_equal(ours, theirs)
    assert (names(after) != names(program)) is (function in SLICED)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", [*SLICED, *LEFT])
def test_compiled_functions_with_slices_compute_the_same(function, kernels, rng):
    x = rng.normal(size=(10, 8)).astype("float32")
    results, expected = dl.compile(function, kernels=kernels)(x), function(dl.tensor(x))
    pairs = zip(results, expected, strict=True) if isinstance(results, tuple) else [(results, expected)]
    for result, right in pairs:
        numpy.testing.assert_allclose(result.numpy(), right.numpy(), rtol=1e-5, atol=1e-6)


def test_long_chains_of_elementwise_steps_are_sliced_without_recursion(rng):
    def function(x):
        for _ in range(1500):
            x = x * 1.001
        return x[:, :4] + x[:, 4:]

    x = rng.normal(size=(2, 8))
    program = recorded(function, x)
    after = slice_first(program)
    numpy.testing.assert_array_equal(evaluated(after, x)[0], evaluated(program, x)[0])
    assert names(after).count("multiply") == 2 * 1500


def test_an_lstm_has_one_group_for_each_step(rng):
    lstm = dl.LSTM(40, 40, seed=0)
    step = dl.compile(lambda x: lstm(x), kernels="numpy", threads=2)
    step(rng.normal(size=(50, 6, 40)).astype("float32"))
    executor = step.programs[0].executor
    tasks = [scheduled for phase in executor.schedule.phases for scheduled in phase]
    groups = [s for s in tasks if "sigmoid" in s.task.name or "+" in s.task.name]
    assert len(groups) == 6
    assert len(executor.schedule.phases) == 1
