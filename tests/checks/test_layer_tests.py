"""Each planted mistake is caught, where it should be, with its name and a sensible cause."""

import pytest

from minidl.checks import LayerError, assert_layer, check_layer
from tests.checks.planted import PLANTED


def test_there_are_enough():
    assert len(PLANTED) >= 30


@pytest.mark.parametrize("name", PLANTED)
def test_is_caught_and_explained(name):
    build, shape, row, words = PLANTED[name]
    report = check_layer(build(), shape)
    failed = {r.test: r.why for r in report.failures}
    assert row in failed, f"not caught in {row!r}:\n{report}"
    for word in words:
        assert word in failed[row], f"{word!r} is not in: {failed[row]}"


@pytest.mark.parametrize("name", PLANTED)
def test_fails_in_one_line_of_a_test_suite(name):
    build, shape, row, _ = PLANTED[name]
    with pytest.raises(LayerError, match=row):
        assert_layer(build(), shape)
