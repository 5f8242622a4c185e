"""Arguments that are floats: one program for all values that are only computed with."""

import math

import numpy
import pytest

import minidl as dl

VALUES = [0.1, 0.2, 0.3, -0.0, 5.5, 1e30]


def program_count(function, plain=None):
    """Call with many floats; check each result; return how many programs there are."""
    x = numpy.array([0.5, 1.0, -2.0], "float32")
    compiled = dl.compile(function)
    for value in VALUES:
        numpy.testing.assert_array_equal(compiled(x, value).numpy(), function(dl.tensor(x), value).numpy())
    return len(compiled.programs)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: x * a,
        lambda x, a: a - x,
        lambda x, a: x + (1 - a) * x,
        lambda x, a: x * -a / 3 + abs(a),
        lambda x, a: dl.where(x > a, x, a),
        lambda x, a: (x * 2 * a).sum() + a,
    ],
)
def test_floats_that_are_only_computed_with_share_a_program(function):
    assert program_count(function) == 2  # of the first value, and of all others


@pytest.mark.parametrize(
    "function",
    [
        lambda x, a: x if a > 0.25 else -x,
        lambda x, a: x * math.floor(a),
        lambda x, a: x * math.sqrt(abs(a)),
        lambda x, a: x * (2.0 if a else 3.0),
        lambda x, a: x * len(str(a)),
    ],
)
def test_floats_that_python_looks_at_have_a_program_each(function):
    assert program_count(function) == len(VALUES)


def test_floats_in_nests_and_keywords():
    @dl.compile
    def weighted(losses, *, weights):
        return sum(w * loss for w, loss in zip(weights["of"], losses, strict=True))

    losses = [dl.tensor(1.0), dl.tensor(10.0)]
    for a, b in ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)):
        assert weighted(losses, weights={"of": (a, b)}).item() == a + 10 * b
    assert len(weighted.programs) == 2


def test_a_float_and_what_is_computed_from_it_by_two_dtypes():
    function = dl.compile(lambda x, y, a: (x * a, y * a, x.sum() * (a * a)))
    x, y = numpy.ones(2, "float32"), numpy.ones(2)
    for value in VALUES[:4]:
        for ours, theirs in zip(function(x, y, value), (x * numpy.float32(value), y * value), strict=False):
            assert ours.dtype == theirs.dtype
            numpy.testing.assert_array_equal(ours.numpy(), theirs)
    assert len(function.programs) == 2


def test_what_changes_from_call_to_call_is_named_after_a_few_recordings():
    function = dl.compile(lambda x, n: x.reshape(-1)[:n] * 1.0)

    def call_often():
        for n in range(1, 20):
            assert function(numpy.ones(20, "float32"), n).shape == (n,)

    with pytest.warns(RuntimeWarning, match=r"recorded 8 times.*an argument was 7 and is now 8"):
        call_often()
    assert len(function.programs) == 16
