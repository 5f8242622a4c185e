"""Initial values of Parameters: functions from a shape and a random generator to a NumPy array.

All draws come from NumPy and are made in float64, so that CPU and GPU, float32 and float64 start
from the same numbers. For a weight of shape (in, out), ``fan_in`` is in and ``fan_out`` is out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from minidl.random.generator import Generator, as_generator
from minidl.tensor import Parameter

Shape = tuple[int, ...]
# In quotes, so that importing minidl does not import numpy.random.
Initializer = Callable[[Shape, "numpy.random.Generator"], numpy.ndarray]


def _fans(shape: Shape) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(f"this initializer needs a weight with two or more axes, got shape {shape}")
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


def glorot_uniform(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Uniform within sqrt(6 / (fan_in + fan_out)) of 0 (Glorot & Bengio, 2010)."""
    bound = math.sqrt(6 / sum(_fans(shape)))
    return generator.uniform(-bound, bound, shape)


def glorot_normal(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Normal with variance 2 / (fan_in + fan_out) (Glorot & Bengio, 2010)."""
    return generator.normal(0, math.sqrt(2 / sum(_fans(shape))), shape)


def he_normal(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Normal with variance 2 / fan_in, for layers before a ReLU (He et al., 2015)."""
    return generator.normal(0, math.sqrt(2 / _fans(shape)[0]), shape)


def he_uniform(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Uniform within sqrt(6 / fan_in) of 0, for layers before a ReLU (He et al., 2015)."""
    bound = math.sqrt(6 / _fans(shape)[0])
    return generator.uniform(-bound, bound, shape)


def orthogonal(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    More than two axes are taken as a matrix with the last axis as its columns.
    """
    _fans(shape)
    rows, columns = math.prod(shape[:-1]), shape[-1]
    normal = generator.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = numpy.linalg.qr(normal)
    q *= numpy.sign(numpy.diagonal(r))  # makes the distribution uniform over orthogonal matrices
    return (q if rows >= columns else q.T).reshape(shape)


def narrow_normal(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """Normal with standard deviation 0.01."""
    return generator.normal(0, 0.01, shape)


def zeros(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """All zeros."""
    return numpy.zeros(shape)


def ones(shape: Shape, generator: numpy.random.Generator) -> numpy.ndarray:
    """All ones."""
    return numpy.ones(shape)


_BY_NAME: dict[str, Initializer] = {
    function.__name__: function
    for function in (
        glorot_uniform,
        glorot_normal,
        he_normal,
        he_uniform,
        orthogonal,
        narrow_normal,
        zeros,
        ones,
    )
}


def initial_parameter(
    initializer: str | Initializer, shape: Shape, seed: int | Generator | None, l2_factor: float | None = None
) -> Parameter:
    """Return a float32 Parameter with initial values.

    Parameters
    ----------
    initializer : the name of a function of this module, or any function
        ``(shape, numpy_generator) -> array``
    seed : where the draws come from: an integer, a Generator or None

    Raises
    ------
    ValueError
        There is no initializer of that name, or it returned another shape.
    """
    if isinstance(initializer, str):
        if initializer not in _BY_NAME:
            raise ValueError(f"unknown initializer {initializer!r}: use one of {', '.join(_BY_NAME)}")
        initializer = _BY_NAME[initializer]
    values = numpy.asarray(initializer(shape, as_generator(seed).numpy))
    if values.shape != shape:
        raise ValueError(f"the initializer returned shape {values.shape}; expected {shape}")
    return Parameter(values.astype(numpy.float32), l2_factor=l2_factor)
