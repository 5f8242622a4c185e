"""The rows of check_layer: what is right passes, and each planted mistake fails the row that it should.

The zoo (tests/checks/zoo) has layers as users write them, and edits of their source; planted.py has small
layers with one mistake each.
"""

import numpy
import pytest

import minidl as dl
from minidl.checks import LayerError, assert_layer, check_layer
from minidl.checks.rows.table import ROWS
from tests.checks.planted import PLANTED
from tests.checks.zoo.mistakes import MISTAKES
from tests.checks.zoo.registry import layers

#: Every fourth mistake is in the quick run, all of them in the slow one.
QUICK = [name for i, name in enumerate(MISTAKES) if i % 4 == 0]
SLOW = [name for name in MISTAKES if name not in QUICK]


def test_there_are_enough():
    assert len(layers()) >= 60
    assert len(MISTAKES) >= 120
    assert len(PLANTED) >= 30


def test_titles_differ():
    titles = [row.title for row in ROWS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", layers())
def test_no_false_alarm(name):
    factory = layers()[name]
    assert_layer(factory(0), factory.case.shape, **factory.case.options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 10))
@pytest.mark.parametrize("name", layers())
def test_no_false_alarm_with_other_seeds(name, seed):
    factory = layers()[name]
    assert_layer(factory(seed), factory.case.shape, seed=seed, **factory.case.options)


def is_caught(mistake):
    report = check_layer(mistake.build(), mistake.case.shape, **mistake.case.options)
    failed = {row.test: row.why for row in report.failures}
    assert mistake.row in failed, f"not caught in {mistake.row!r}:\n{report}"
    for word in mistake.words:
        assert word in failed[mistake.row], f"{word!r} is not in: {failed[mistake.row]}"


@pytest.mark.parametrize("name", QUICK)
def test_a_mistake_in_the_zoo_is_caught_and_explained(name):
    is_caught(MISTAKES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_mistake_in_the_zoo_is_caught_and_explained(name):
    is_caught(MISTAKES[name])


@pytest.mark.slow
def test_one_mistake_is_told_once():
    several = []
    for name, mistake in MISTAKES.items():
        report = check_layer(mistake.build(), mistake.case.shape, **mistake.case.options)
        if len(report.failures) > 1:
            several.append((name, [row.test for row in report.failures]))
    assert len(several) <= 0.05 * len(MISTAKES), several


@pytest.mark.parametrize("name", PLANTED)
def test_is_caught_and_explained(name):
    build, shape, row, words = PLANTED[name]
    with pytest.raises(LayerError) as caught:
        assert_layer(build(), shape)
    failed = {r.test: r.why for r in caught.value.report.failures}
    assert row in failed, f"not caught in {row!r}:\n{caught.value}"
    for word in words:
        assert word in failed[row], f"{word!r} is not in: {failed[row]}"


def test_deliberate_gradients_fail_unless_they_are_skipped():
    for name in (
        "straight_through",
        "gradient_reversal",
        "vector_quantizer",
        "spectral_norm",
        "detached_backbone",
    ):
        factory = layers()[name]
        assert not check_layer(factory(0), factory.case.shape).passed


def test_an_infinite_mask_hides_no_wrong_rule():
    from tests.checks.mistakes import Broken, doubled_in_backward, parameter

    double, mask = doubled_in_backward(), numpy.array([True, False, True, True])
    for blocked in (-numpy.inf, -1e9):
        layer = Broken(lambda self, x, b=blocked: dl.where(mask, double(x) * self.gain, b), gain=parameter(4))
        report = check_layer(layer, (4,))
        assert [row.test for row in report.failures] == ["gradients agree with differences"]
        assert "counted twice" in str(report)
