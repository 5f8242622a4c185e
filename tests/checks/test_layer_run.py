import numpy
import pytest

import minidl as dl
from minidl.checks import check_layer
from tests.checks.mistakes import outcomes, parameter
from tests.checks.random_layers import Embedding, Gate


@pytest.mark.parametrize("shape", [4, (4,), [4], numpy.ones((2, 4)), dl.ones((2, 4))])
def test_one_input_by_shape_or_example(shape):
    assert check_layer(dl.Dense(4, 3, seed=0), shape).passed


def test_several_inputs_and_outputs():
    assert check_layer(Gate(3, 0), [(3,), (3,)]).passed
    assert check_layer(Gate(3, 0), [numpy.ones((1, 3)), (3,)]).passed


def test_integer_inputs_by_example(rng):
    report = outcomes(Embedding(7, 3, rng), rng.integers(0, 7, (6, 2)))
    assert report["gradients agree with differences"] == "passed"
    assert "failed" not in report.values()


def test_another_observation_dimension():
    class Columns(dl.Layer):
        def __init__(self):
            self.weight = parameter(3, 4)

        def forward(self, x):
            return self.weight @ x

    assert "failed" not in outcomes(Columns(), (4,), observation_dimension=1).values()
    assert outcomes(Columns(), (4,), observation_dimension=0)["one observation"] == "failed"


def test_no_observation_dimension():
    class Total(dl.Layer):
        def forward(self, x):
            return (x * x).sum()

    report = outcomes(Total(), (2, 3), observation_dimension=None)
    assert report["several observations"] == "skipped"
    assert report["observations are independent in evaluation"] == "skipped"
    assert report["gradients agree with differences"] == "passed"
    assert "failed" not in report.values()
