import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.optimizers.line_search import SUFFICIENT_DECREASE, Point, line_search

#: Functions of one number with a descent from 0 to the right.
CURVES = {
    "parabola": lambda x: ((x - 3) ** 2, 2 * (x - 3)),
    "steep": lambda x: (1e6 * (x - 1e-3) ** 2, 2e6 * (x - 1e-3)),
    "flat": lambda x: (numpy.cosh((x - 50) / 20), numpy.sinh((x - 50) / 20) / 20),
    "waves": lambda x: (numpy.cos(x) - 0.01 * x, -numpy.sin(x) - 0.01),
    "quartic": lambda x: ((x - 2) ** 4 - x, 4 * (x - 2) ** 3 - 1),
    "wall": lambda x: (-x if x < 2 else numpy.inf, -1.0),
    "logarithm": lambda x: (x - numpy.log(x + 0.1), 1 - 1 / (x + 0.1)),
}


def search(curve, first, curvature):
    calls = []

    def objective(vector):
        calls.append(vector[0])
        total, slope = curve(vector[0])
        return float(total), numpy.array([slope])

    start = numpy.zeros(1)
    total, gradient = objective(start)
    found = line_search(
        objective, Point(0, start, total, gradient, gradient[0]), numpy.ones(1), first, curvature
    )
    return found, (total, gradient[0]), len(calls) - 1


@pytest.mark.parametrize("name", [name for name in CURVES if name != "wall"])
@pytest.mark.parametrize("curvature", [0.1, 0.9])
@given(first=st.floats(1e-6, 1e3))
def test_both_wolfe_conditions_hold(name, curvature, first):
    with numpy.errstate(invalid="ignore", over="ignore"):
        found, (total, slope), calls = search(CURVES[name], first, curvature)
    assert found.total <= total + SUFFICIENT_DECREASE * found.step * slope
    assert abs(found.slope) <= curvature * abs(slope)
    assert calls <= 25
    assert found.vector[0] == found.step


def test_a_parabola_takes_two_looks():
    found, _, calls = search(CURVES["parabola"], 1.0, 0.1)
    assert found.step == pytest.approx(3)
    assert calls == 2


def test_where_it_is_not_finite_is_too_far():
    found, _, _ = search(CURVES["wall"], 1e3, 0.1)
    assert 0 < found.step < 2


def test_uphill_finds_nothing():
    assert search(lambda x: (abs(x), -1.0), 1.0, 0.1)[0] is None  # the slope lies
