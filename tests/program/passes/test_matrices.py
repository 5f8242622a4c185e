"""Work on more than two axes, done on matrices."""

import numpy
import pytest

import minidl as dl
from minidl.program.program import Group
from tests.program.networks import needs_c

KERNELS = ["numpy", pytest.param("c", marks=needs_c)]


def groups_of(step):
    return [part for part in step.programs[0].executor.program.steps if isinstance(part, Group)]


def test_empty_arrays_of_many_axes_stay_empty():
    step = dl.compile(lambda x: (x * 2 + x.sum(), x.sum()))
    results = step(numpy.zeros((2, 0, 3)))
    assert [result.shape for result in results] == [(2, 0, 3), ()]


@pytest.mark.parametrize("kernels", KERNELS)
def test_images_and_the_output_of_a_dense_layer_are_one_group(rng, kernels):
    x, w = rng.normal(size=(8, 5, 6, 1)), rng.normal(size=(7, 30))
    z = rng.normal(size=(8, 7))
    step = dl.compile(lambda x, z, w: dl.tanh((z @ w).reshape(8, 5, 6, 1) - x) ** 2, kernels=kernels)
    result = step(*map(dl.tensor, (x, z, w)))
    expected = numpy.tanh((z @ w).reshape(x.shape) - x) ** 2
    numpy.testing.assert_allclose(result.numpy(), expected.astype(result.dtype), rtol=1e-4, atol=1e-6)
    assert [group.shape for group in groups_of(step)] == [(8, 30)]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_sum_of_everything_follows_what_it_sums(rng, kernels):
    x, scale = rng.normal(size=(4, 5, 6, 3)), rng.normal(size=3)
    step = dl.compile(lambda x, scale: ((x * scale).sum(), (x * 2).sum()), kernels=kernels)
    results = step(dl.tensor(x), dl.tensor(scale))
    expected = (x * scale).sum(), (x * 2).sum()
    numpy.testing.assert_allclose([result.item() for result in results], expected, rtol=1e-5)
