"""Random numbers: drawing, and generators that work for NumPy and CuPy arrays alike."""

from minidl.random.drawing import (
    bernoulli,
    integers,
    normal,
    permutation,
    seed,
    truncated_normal,
    uniform,
)
from minidl.random.generator import Generator

__all__ = [
    "Generator",
    "bernoulli",
    "integers",
    "normal",
    "permutation",
    "seed",
    "truncated_normal",
    "uniform",
]
