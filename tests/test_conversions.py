"""Values that go in and out: of Tensors to Python, of Python to Tensors, through compiled functions."""

from typing import NamedTuple

import numpy
import pytest

import minidl as dl


def test_one_element_becomes_a_number():
    assert int(dl.tensor([3.7])) == 3
    assert float(dl.tensor(2.5)) == 2.5
    assert [10, 20, 30][dl.tensor(2)] == 30
    with pytest.raises(TypeError, match="only an integer Tensor can be an index, got float32"):
        [1, 2][dl.tensor(1.0)]


def test_what_is_no_array_has_no_array_module():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got list"):
        dl.devices.array_module([1, 2])


def test_a_tensor_prints_without_its_values_while_it_is_recorded(capsys):
    @dl.compile
    def function(x):
        print(x * 2)
        return x * 2

    function(dl.ones((2, 3)))
    assert set(capsys.readouterr().out.splitlines()) == {"tensor(shape=(2, 3), dtype=float32)"}


class Pair(NamedTuple):
    first: dl.Tensor
    second: dl.Tensor


def test_named_tuples_pass_through_a_compiled_function():
    swap = dl.compile(lambda pair: Pair(pair.second * 2, pair.first * 3))
    for _ in range(2):
        result = swap(Pair(dl.ones(2), dl.ones(3)))
        assert isinstance(result, Pair)
        assert result.first.tolist() == [2, 2, 2]
        assert result.second.tolist() == [3, 3]


def test_a_shape_has_one_length_to_be_found():
    with pytest.raises(ValueError, match="Reshape: only one length may be -1, got"):
        dl.Reshape(-1, -1)


def test_probabilities_from_elsewhere_than_a_sigmoid(rng):
    z, t = rng.normal(size=(3, 2)), rng.uniform(size=(3, 2))
    p = dl.exp(-dl.softplus(dl.tensor(z, requires_grad=True)))
    expected = -(t * numpy.log(p.numpy()) + (1 - t) * numpy.log1p(-p.numpy())).mean()
    numpy.testing.assert_allclose(dl.binary_cross_entropy(p, t).item(), expected)
