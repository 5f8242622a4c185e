"""check_optimizer: right optimizers pass, and each mistake fails its row."""

import numpy
import pytest

import minidl as dl
from minidl.checks import check_optimizer


def momentum(x, g, state):
    state["v"] = 0.9 * state.get("v", 0.0) + g
    return x - 0.1 * state["v"]


def adam(x, g, state):
    state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
    return x - 0.01 * m / (numpy.sqrt(v) + 1e-8)


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (lambda p: dl.SGD(p, 0.1, momentum=0), lambda x, g, state: x - 0.1 * g),
        (lambda p: dl.SGD(p, 0.1, momentum=0.9), momentum),
        (lambda p: dl.Adam(p, 0.01), adam),
        (lambda p: dl.RMSProp(p, 0.01), None),
        (lambda p: dl.AdamW(p, 0.01), None),
    ],
)
def test_minidls_own_pass(make, formula):
    report = check_optimizer(make, formula)
    assert report.passed, report
    assert str(report).startswith("check_optimizer ")


class Momentum(dl.Optimizer):
    """Momentum, with one part to replace."""

    def initial_state(self, parameter):
        return {"v": dl.zeros_like(parameter)}

    def update(self, parameter, gradient, rate, v):
        v.assign(0.9 * v + gradient)
        parameter.assign(parameter - rate * v)


def failures(kind, formula=momentum):
    return [row.test for row in check_optimizer(lambda p: kind(p, 0.1), formula).failures]


def test_a_right_one_of_a_user_passes():
    assert failures(Momentum) == []


def test_a_wrong_formula():
    class Wrong(Momentum):
        def update(self, parameter, gradient, rate, v):
            v.assign(0.9 * v + 0.1 * gradient)
            parameter.assign(parameter - rate * v)

    assert failures(Wrong) == ["steps follow the formula"]


def test_state_in_python():
    class Kept(Momentum):
        def __init__(self, *arguments):
            self.kept = {}
            super().__init__(*arguments)

        def update(self, parameter, gradient, rate, v):
            self.kept[id(parameter)] = 0.9 * self.kept.get(id(parameter), 0.0) + gradient.numpy()
            parameter.assign(parameter - rate * self.kept[id(parameter)])

    found = failures(Kept)
    assert "a saved state continues bit for bit" in found
    assert "compiled steps equal plain ones" in found


def test_state_that_all_share():
    shared = {}

    class Shared(Momentum):
        def update(self, parameter, gradient, rate, v):
            moment = shared.setdefault(parameter.shape, dl.zeros_like(parameter))
            moment.assign(0.9 * moment + gradient)
            parameter.assign(parameter - rate * moment)

    assert "two optimizers share nothing" in failures(Shared, None)


def test_a_learning_rate_that_is_not_used():
    class Fixed(Momentum):
        def update(self, parameter, gradient, rate, v):
            v.assign(0.9 * v + gradient)
            parameter.assign(parameter - 0.1 * v)

    assert failures(Fixed) == ["factors of Parameters count", "a new learning rate counts from the next step"]


def test_a_moment_of_zero():
    class Divides(Momentum):
        def update(self, parameter, gradient, rate, v):
            parameter.assign(parameter - rate * gradient / v)
            v.assign(gradient)

    assert "steps change Parameters, and keep their type" in failures(Divides, None)
