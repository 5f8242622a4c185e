"""What is concluded from a wrong gradient alone, and the text plot of its errors."""

import numpy
import pytest

from minidl.checks.differences import KINK, RIGHT, UNMEASURED, WRONG, Comparison
from minidl.checks.hints import likely_cause, plot_errors

RIGHT_ONE = numpy.random.default_rng(0).normal(size=(4, 4))
COUNTS = {8: "the number of observations"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (-RIGHT_ONE, "wrong sign"),
        (2 * RIGHT_ONE, "counted twice"),
        (0.5 * RIGHT_ONE, "1/2 times the right gradient: a factor 2 is missing"),
        (8 * RIGHT_ONE, "8 is the number of observations; a division by it is missing"),
        (-RIGHT_ONE / 8, "wrong sign, and is 1/8 times the right gradient: 8 is the number of observations"),
        (3.25 * RIGHT_ONE, "3.25 times the right gradient: a constant factor"),
        (RIGHT_ONE.T, "transpose"),
        (0 * RIGHT_ONE, "cut off"),
        (RIGHT_ONE * [1, 2, 3, 4], "place along axis 1 alone"),
        (RIGHT_ONE * [[1], [2], [3], [4]], "place along axis 0 alone"),
        (RIGHT_ONE + numpy.array([0, 0, 1, 0]), "wrong only at place 2 of axis 1"),
        (RIGHT_ONE + numpy.inf, "not a finite number"),
    ],
)
def test_causes(given, words):
    assert words in likely_cause(given, RIGHT_ONE, COUNTS)


def test_what_is_not_measured_is_not_needed():
    measured = numpy.where(numpy.eye(4), RIGHT_ONE, numpy.nan)
    assert "wrong sign" in likely_cause(-RIGHT_ONE, measured, {})


def test_nothing_is_made_up():
    other = numpy.random.default_rng(1).normal(size=(4, 4))
    assert likely_cause(other, RIGHT_ONE, COUNTS) is None
    assert likely_cause(numpy.float64(0.3) * numpy.ones(()), numpy.ones(()), {}) is not None


def comparison(states):
    result = Comparison("x", numpy.zeros(numpy.shape(states)))
    result.states[...] = states
    return result


def test_the_map():
    text = plot_errors(comparison([[RIGHT, WRONG, KINK], [UNMEASURED, RIGHT, RIGHT]]))
    lines = text.splitlines()
    assert lines[0] == "where (. right, x wrong, ~ at a kink, blank not measured):"
    assert lines[1:] == ["  |.x~|", "  | ..|"]
    assert plot_errors(comparison(WRONG)) == ""
    assert plot_errors(comparison([WRONG, RIGHT])).splitlines()[1] == "  |x.|"


def test_a_map_of_many_axes_has_cells_for_blocks():
    states = numpy.full((4, 6, 32), RIGHT)
    states[0, 0, :16] = WRONG
    lines = plot_errors(comparison(states)).splitlines()
    assert "+ partly wrong" in lines[0]
    assert lines[1] == "  |++++++++........|"
    assert lines[2:] == ["  |................|"] * 7
