"""Tensors from nothing: bounds and values that are Tensors keep their gradients."""

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.kernel_cache import compiler

EXECUTIONS = [
    None,
    "numpy",
    pytest.param("c", marks=pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")),
]
WEIGHTS = numpy.array([[1.0, 2.0, 4.0, 8.0]])

MADE = {
    "full": (lambda a, b: dl.full((1, 4), a, "float64"), [[3] * 4], 15, 0),
    "full of one element": (lambda a, b: dl.full(4, a.reshape(1, 1), "float64"), [[3] * 4], 15, 0),
    "full_like": (lambda a, b: dl.full_like(dl.tensor(WEIGHTS), a), [[3] * 4], 15, 0),
    "linspace": (lambda a, b: dl.linspace(a, b, 4, dtype="float64"), [3, 5, 7, 9], 1 + 4 / 3 + 4 / 3, 34 / 3),
    "linspace from a number": (lambda a, b: dl.linspace(0, b, 4, dtype="float64"), [0, 3, 6, 9], 0, 34 / 3),
    "linspace without its end": (
        lambda a, b: dl.linspace(a, b, 4, endpoint=False, dtype="float64"),
        [3, 4.5, 6, 7.5],
        1 + 1.5 + 2 + 2,
        0.5 + 2 + 6,
    ),
}


@pytest.mark.parametrize("kernels", EXECUTIONS)
@pytest.mark.parametrize("name", MADE)
def test_a_tensor_of_one_element_gets_a_gradient(name, kernels):
    make, values, *expected = MADE[name]

    def step(a, b):
        y = make(a, b)
        return [y, *dl.grad((y * dl.tensor(WEIGHTS)).sum(), [a, b])]

    step = dl.compile(step, kernels=kernels) if kernels else step
    for _ in range(2):
        y, *gradients = step(*(dl.tensor(numpy.array(n), requires_grad=True) for n in (3.0, 9.0)))
        assert y.dtype == numpy.float64
        numpy.testing.assert_allclose(y.numpy(), numpy.reshape(values, y.shape), rtol=1e-15)
        numpy.testing.assert_allclose([g.item() for g in gradients], expected, rtol=1e-14)


def test_both_ends_of_linspace_are_exact():
    ends = [dl.tensor(n) for n in (numpy.float32(0.1), numpy.float32(1e8))]
    line = dl.linspace(*ends, 7)
    assert (line.dtype, line[0].item(), line[-1].item()) == (numpy.float32, ends[0].item(), ends[1].item())


def test_integers_between_tensors_are_rounded_down_as_in_numpy():
    for start, stop in ((0, 10), (3, -4)):
        line = dl.linspace(dl.tensor(start), dl.tensor(stop), 5, dtype="int32")
        assert line.dtype == numpy.int32
        assert line.tolist() == dl.linspace(start, stop, 5, dtype="int32").tolist()


def test_values_of_several_elements_and_bounds_with_gradients_are_refused():
    x = dl.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(ValueError, match="reshape"):
        dl.full(2, x)
    with pytest.raises(TypeError, match=r"arange has no gradient for its bounds: .* or \.detach"):
        dl.arange(x[1])
    assert dl.arange(x[1].detach()).tolist() == [0, 1]
