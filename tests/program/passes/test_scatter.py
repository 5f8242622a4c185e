"""The gradient of a lookup is added to what it is to be added to, where it is the only reader."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes.scatter import add_to_sums
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated, names

KERNELS = ["numpy", pytest.param("c", marks=needs_c)]
WORDS, UNITS = 700, 60


def tied(table, words):
    """A product with the table that the words were looked up in."""
    return (dl.tanh(table[words]) @ table.T * 0.1).sum()


def looked_up_twice(table, words):
    return (dl.sin(table[words]) * dl.cos(table[words * 2 % 5])).sum()


def along_the_columns(table, words):
    return (dl.sin(table[:, words % 7]) ** 2).sum() + (table @ table.T).sum() * 0.01


def step_of(function, dtype="float32"):
    table = dl.Parameter(numpy.random.default_rng(0).normal(size=(WORDS, UNITS)).astype(dtype))
    optimizer = dl.SGD([table], 0.1, momentum=0.0)

    def step(words):
        loss = function(table, words)
        loss.backward()
        optimizer.step()
        return loss

    return step, table


@pytest.mark.parametrize("function", [tied, looked_up_twice, along_the_columns])
def test_one_step_adds_and_the_results_stay(function):
    words = numpy.array([3, 0, 3, 5, -1])
    program = recorded(step_of(function)[0], words)
    after = add_to_sums(program)
    assert names(program).count("scatter_add") - names(after).count("scatter_add") == 1
    assert names(after).count("add_at") == 1
    for ours, theirs in zip(evaluated(after, words), evaluated(program, words), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("function", [tied, looked_up_twice, along_the_columns])
def test_compiled_steps_train_alike(function, kernels, threads, dtype, rng):
    plain, expected = step_of(function, dtype)
    step, table = step_of(function, dtype)
    step = dl.compile(step, kernels=kernels, threads=threads)
    for _ in range(3):
        words = rng.integers(-WORDS, WORDS, (9, 5))
        numpy.testing.assert_allclose(step(words).numpy(), plain(words).numpy(), rtol=1e-4)
        numpy.testing.assert_allclose(table.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert "add_at" in names(step.programs[0].executor.program)


@pytest.mark.parametrize("kernels", KERNELS)
def test_words_outside_of_the_table_are_refused(kernels):
    step = dl.compile(step_of(tied)[0], kernels=kernels)
    step(numpy.zeros((9, 5), "int64"))
    with pytest.raises(IndexError):
        step(numpy.full((9, 5), WORDS))


def test_what_else_reads_a_sum_sees_it_without_the_words(rng):
    """A product that is read again is copied before the words are added."""

    def function(table, words):
        table = dl.Parameter(table)
        gradient = dl.grad(tied(table, words), table)
        other = dl.grad((dl.sin(table) ** 2).sum(), table)
        lookup = dl.grad(dl.sin(table[words]).sum(), table)
        return gradient, other, other + lookup

    table, words = rng.normal(size=(6, 4)), numpy.array([1, 1, 5])
    step = dl.compile(function, kernels="numpy")
    for _ in range(2):
        for ours, theirs in zip(step(table, words), function(table, words), strict=True):
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
