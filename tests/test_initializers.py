import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minidl as dl
from minidl import initializers
from minidl.initializers import initial_parameter

NAMES = [
    "glorot_uniform",
    "glorot_normal",
    "he_normal",
    "he_uniform",
    "orthogonal",
    "narrow_normal",
    "zeros",
    "ones",
]
RANDOM = NAMES[:6]
SHAPES = [(300, 400), (400, 300), (3, 5, 80, 100)]  # the last one is (height, width, in, out)


def drawn(name, shape, seed=0):
    return getattr(initializers, name)(shape, numpy.random.default_rng(seed))


def fans(shape):
    """Return how many inputs an output sees, and how many outputs an input reaches."""
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("glorot_uniform", lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out))),
        ("he_uniform", lambda fan_in, fan_out: math.sqrt(6 / fan_in)),
    ],
)
def test_uniform_values_fill_their_interval(name, bound, shape):
    values, limit = drawn(name, shape), bound(*fans(shape))
    assert values.dtype == numpy.float64
    assert -limit <= values.min() < -0.999 * limit
    assert 0.999 * limit < values.max() <= limit
    assert abs(values.mean()) < 0.01 * limit
    assert values.var() == pytest.approx(limit**2 / 3, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("he_normal", lambda fan_in, fan_out: 2 / fan_in),
        ("narrow_normal", lambda fan_in, fan_out: 1e-4),
    ],
)
def test_normal_values_have_their_variance(name, variance, shape):
    values, expected = drawn(name, shape), variance(*fans(shape))
    assert values.var() == pytest.approx(expected, rel=0.02)
    assert abs(values.mean()) < 0.02 * math.sqrt(expected)
    assert (abs(values) > 3 * math.sqrt(expected)).mean() == pytest.approx(0.0027, rel=0.25)  # not cut off


@given(arrays.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6))
def test_orthogonal_rows_or_columns(shape):
    values = drawn("orthogonal", shape)
    assert values.shape == shape
    matrix = values.reshape(-1, shape[-1])
    few = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    numpy.testing.assert_allclose(few @ few.T, numpy.eye(len(few)), atol=1e-12)


def test_orthogonal_matrices_are_spread_evenly():
    generator = numpy.random.default_rng(0)
    entries = numpy.array([initializers.orthogonal((3, 3), generator).ravel() for _ in range(2000)])
    numpy.testing.assert_allclose(entries.mean(axis=0), 0, atol=0.05)  # QR alone favours one sign
    numpy.testing.assert_allclose(entries.var(axis=0), 1 / 3, rtol=0.1)


def test_zeros_and_ones():
    assert not drawn("zeros", (2, 3)).any()
    assert (drawn("ones", (4,)) == 1).all()


@pytest.mark.parametrize("name", RANDOM)
def test_one_seed_gives_the_same_numbers(name):
    numpy.testing.assert_array_equal(drawn(name, (4, 5), seed=1), drawn(name, (4, 5), seed=1))
    assert (drawn(name, (4, 5), seed=1) != drawn(name, (4, 5), seed=2)).all()


@pytest.mark.parametrize("name", [name for name in RANDOM if name != "narrow_normal"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_weights_need_two_axes(name, shape):
    with pytest.raises(ValueError, match="needs a weight with two or more axes") as refusal:
        drawn(name, shape)
    assert str(shape) in str(refusal.value)


# --- initial_parameter ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_made_by_name(name):
    parameter = initial_parameter(name, (4, 5), seed=3)
    assert isinstance(parameter, dl.Parameter)
    assert parameter.dtype == numpy.float32
    numpy.testing.assert_array_equal(parameter.numpy(), drawn(name, (4, 5), seed=3).astype("float32"))


@given(st.integers(0, 2**32))
def test_seeds_are_numbers_or_generators(seed):
    expected = initial_parameter("he_normal", (2, 3), seed).tolist()
    for source in (dl.Generator(seed), numpy.random.default_rng(seed)):
        assert initial_parameter("he_normal", (2, 3), source).tolist() == expected


def test_a_shared_generator_goes_on():
    generator = dl.Generator(0)
    first, second = (initial_parameter("he_normal", (2, 3), generator).numpy() for _ in range(2))
    both = numpy.random.default_rng(0).normal(0, 1, (2, 2, 3))
    numpy.testing.assert_allclose([first, second], both, rtol=1e-6)  # the variance is 2 / 2


def test_functions_are_initializers_too():
    parameter = initial_parameter(lambda shape, generator: generator.integers(1, 2, shape), (2, 3), 0, 0.5)
    assert parameter.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert parameter.dtype == numpy.float32
    assert parameter.l2_factor == 0.5


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError, match="unknown initializer 'glorot': use one of glorot_uniform"
    ) as refusal:
        initial_parameter("glorot", (2, 3), 0)
    for name in NAMES:
        assert name in str(refusal.value)


def test_a_function_that_makes_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \(3, 2\); expected \(2, 3\)"):
        initial_parameter(lambda shape, generator: numpy.zeros(shape[::-1]), (2, 3), 0)
