import numpy
import pytest

import minidl as dl
from minidl.inspection.trace import trace
from tests.inspection.networks import Tied, TwoInputs

FORMULAS = {
    "(x - 1) * (x + 2)": lambda x, w: (x - 1) * (x + 2),
    "x - (x - 1)": lambda x, w: x - (x - 1),
    "x - 1 - x": lambda x, w: x - 1 - x,
    "x / (x * 2)": lambda x, w: x / (x * 2),
    "exp(-x)": lambda x, w: dl.exp(-x),
    "x @ w": lambda x, w: x @ w,
    "softplus(x) + sigmoid(x)": lambda x, w: dl.softplus(x) + dl.sigmoid(x),
    "exp, multiply": lambda x, w: dl.exp(x) ** 2,
    "sum(x)": lambda x, w: x.sum(axis=1, keepdims=True),
}


@pytest.mark.parametrize(("text", "function"), FORMULAS.items())
def test_operations_read_as_a_formula(text, function):
    class Computes(dl.Layer):
        def __init__(self):
            self.w = dl.Parameter(numpy.eye(3))

        def forward(self, x):
            return function(x, self.w)

    traced = trace(Computes(), (3,))
    assert [traced.formula(part) for part in traced.root.parts()] == [text]


def test_long_formulas_are_the_names_of_their_operations():
    class Computes(dl.Layer):
        def forward(self, x):
            for _ in range(4):
                x = dl.exp(dl.tanh(x * 0.25))
            return x

    traced = trace(Computes(), (3,))
    assert traced.formula(traced.root.parts()[0]) == "multiply, tanh, exp, multiply, 8 more"


def test_calls_of_layers_are_nested_as_the_layers_are():
    traced = trace(Tied(), ((4, 3, 1),))
    assert [call.name for call in traced.root.calls()] == [
        "",
        "encoder",
        "encoder.0",
        "encoder.1",
        "encoder.2",
    ]
    dense = next(call for call in traced.root.calls() if call.name == "encoder.1")
    assert [step.name for step in dense.instructions] == ["matmul", "add"]
    assert [value.shape for value in dense.inputs] == [(1, 12)]
    assert [value.shape for value in dense.outputs] == [(1, 6)]
    assert sorted(traced.parameters.values()) == ["bias", "encoder.1.bias", "encoder.1.weight"]
    assert "encoder.1.weight.T" in traced.texts.values()


def test_inputs_and_outputs_are_in_order():
    traced = trace(TwoInputs(), (3, numpy.zeros((7, 5), "float32")))
    assert [(name, value.shape) for name, value in traced.inputs] == [("x", (1, 3)), ("z", (1, 5))]
    assert [(name, value.shape) for name, value in traced.outputs] == [("0", (1, 2)), ("1", (1, 4))]


def test_outputs_in_a_nest_are_found():
    class Nested(dl.Layer):
        def forward(self, x):
            return {"double": x * 2, "more": [x + 1, (dl.exp(x),)]}

    traced = trace(Nested(), (3,))
    assert [traced.formula([step]) for step in traced.root.instructions] == ["x * 2", "x + 1", "exp(x)"]
    assert [name for name, _ in traced.outputs] == ["double", "more.0", "more.1.0"]


def test_what_is_no_observation_is_refused():
    with pytest.raises(TypeError, match="expected the shape of one observation or an array of observations"):
        trace(dl.Dense(3, 2), ("many",))
