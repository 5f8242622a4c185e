"""check_data: data that are fit to train on pass, and each fault fails its row."""

import numpy
import pytest

import minidl as dl
from minidl.checks import check_data


@pytest.fixture
def x(rng):
    return rng.normal(size=(120, 4)).astype("float32")


@pytest.fixture
def t(rng):
    return rng.integers(0, 3, 120)


def failures(*arguments, **options):
    return [row.test for row in check_data(*arguments, **options).failures]


def test_good_data_pass(x, t, rng):
    report = check_data(
        x, t, test_inputs=rng.normal(size=(9, 4)).astype("float32"), test_targets=t[:9], classes=3
    )
    assert report.passed, report
    assert failures(dl.tensor(x), x * 2) == []
    assert failures(x) == []


def test_digits_pass():
    train, test = dl.data.digits(train=200, test=50, cache=False)
    found = failures(train.images, train.labels, test_inputs=test.images, test_targets=test.labels)
    assert found == []


def test_lengths_that_differ(x, t):
    assert failures(x, t[:-1]) == ["inputs and targets are as many"]


@pytest.mark.parametrize("bad", [numpy.nan, numpy.inf])
def test_numbers_that_are_not_finite(x, t, bad):
    x[3, 1] = bad
    report = check_data(x, t)
    assert "all numbers are finite" in [row.test for row in report.failures]
    assert "the first at (3, 1)" in str(report)


def test_inputs_that_are_not_scaled(x, t):
    assert failures(x * 1e4, t) == ["inputs are scaled"]


def test_class_numbers(x, t):
    assert failures(x, t + 1) == ["class numbers begin at 0 and exist", "every class is there"]
    assert failures(x, t - 1) == ["class numbers begin at 0 and exist"]
    assert failures(x, t, classes=2) == ["class numbers begin at 0 and exist"]
    assert failures(x, t, classes=5) == ["every class is there"]


def test_a_rare_class(rng):
    t = numpy.zeros(3000, int)
    t[0] = 1
    assert failures(rng.normal(size=(3000, 2)), t) == ["every class is there"]


def test_contradictions_and_repetitions(x, t):
    x[1], t[0], t[1] = x[0], 0, 1
    assert failures(x, t) == ["observations are different"]
    assert failures(numpy.concatenate([x[2:], x[2:]])) == ["observations are different"]


def test_leaks(x, t):
    report = check_data(x, t, test_inputs=x[5:8], test_targets=t[5:8])
    assert [row.test for row in report.failures] == ["no test observation is in the training data"]
    assert "3 of 3 test observations" in str(report)


def test_test_data_of_another_form(x, t, rng):
    other = rng.normal(size=(9, 4))
    assert failures(x, test_inputs=other) == ["training and test data have one form"]
    assert failures(x, test_inputs=(50 + other).astype("float32")) == ["training and test data have one form"]


def test_sorted_classes_are_remarked(x):
    rows = {row.test: row for row in check_data(x, numpy.repeat([0, 1, 2], 40)).rows}
    assert "shuffle" in rows["observations are not sorted by class"].why
