"""Drawing random numbers: what normal(), uniform() and the others return is drawn anew at every replay.

Each takes a ``generator``; by default all share one, which seed() starts anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from minidl.creation import zeros
from minidl.distributed.share import batch_draw
from minidl.primitives import random as draws
from minidl.primitives.elementwise import clip, floor
from minidl.primitives.mathematics import erfinv
from minidl.primitives.shape import broadcast_to
from minidl.primitives.sorting import argsort
from minidl.random.generator import Generator, default_generator
from minidl.tensor import Tensor, TensorLike, as_tensor


def seed(number: int | None = None) -> None:
    """Start the Generator anew that is used where none is given; the same number gives the same draws."""
    default_generator.load_state_dict(Generator(number).state_dict())


def uniform(
    shape: int | Sequence[int] = (),
    low: float = 0.0,
    high: float = 1.0,
    *,
    dtype: Any = numpy.float32,
    device: str = "cpu",
    generator: Generator | None = None,
) -> Tensor:
    """Return numbers from [low, high), each equally likely."""
    drawn = _drawn(draws.random_uniform, _template(shape, dtype, device), generator)
    return drawn if (low, high) == (0.0, 1.0) else low + (high - low) * drawn


def normal(
    shape: int | Sequence[int] = (),
    mean: float = 0.0,
    std: float = 1.0,
    *,
    dtype: Any = numpy.float32,
    device: str = "cpu",
    generator: Generator | None = None,
) -> Tensor:
    """Return normally distributed numbers."""
    drawn = _drawn(draws.random_normal, _template(shape, dtype, device), generator)
    return drawn if (mean, std) == (0.0, 1.0) else mean + std * drawn


def truncated_normal(
    shape: int | Sequence[int] = (),
    mean: float = 0.0,
    std: float = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    *,
    dtype: Any = numpy.float32,
    device: str = "cpu",
    generator: Generator | None = None,
) -> Tensor:
    """Return normally distributed numbers from ``low`` to ``high`` standard deviations from the mean."""
    if not low < high:
        raise ValueError(f"truncated_normal needs low < high, got low={low}, high={high}")
    reach = [math.erf(bound / math.sqrt(2)) for bound in (low, high)]
    drawn = uniform(shape, *reach, dtype=numpy.float64, device=device, generator=generator)
    return (mean + std * clip(erfinv(drawn) * math.sqrt(2), low, high)).astype(dtype)


def bernoulli(
    probability: TensorLike, shape: int | Sequence[int] | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Return bools that are True with a probability: a number, or one for each element."""
    probability = as_tensor(probability)
    if probability.dtype.kind != "f":
        probability = probability.astype(numpy.float32)
    if shape is not None:
        probability = broadcast_to(probability, shape)
    return _drawn(draws.random_uniform, probability.detach(), generator) < probability


def integers(
    low: int,
    high: int | None = None,
    shape: int | Sequence[int] = (),
    *,
    dtype: Any = numpy.int64,
    device: str = "cpu",
    generator: Generator | None = None,
) -> Tensor:
    """Return whole numbers from low up to, without, high; from 0 up to low if only one bound is given."""
    low, high = (0, low) if high is None else (low, high)
    if not low < high:
        raise ValueError(f"integers needs low < high, got low={low}, high={high}")
    drawn = uniform(shape, dtype=numpy.float64, device=device, generator=generator)
    return (clip(floor(drawn * float(high - low)), 0, high - low - 1) + low).astype(dtype)


def permutation(x: TensorLike, *, device: str = "cpu", generator: Generator | None = None) -> Tensor:
    """Return 0 .. x - 1 in random order for an integer x, or else the rows of x in random order."""
    if isinstance(x, (int, numpy.integer)):
        return argsort(uniform(int(x), dtype=numpy.float64, device=device, generator=generator))
    x = as_tensor(x)
    return x[permutation(len(x), device=x.device, generator=generator)]


def _drawn(draw: Callable[..., Tensor], x: Tensor, generator: Generator | None) -> Tensor:
    return batch_draw(draw, x, generator or default_generator)


def _template(shape: int | Sequence[int], dtype: Any, device: str) -> Tensor:
    """Return a Tensor for whose elements numbers are drawn."""
    if numpy.dtype(dtype) not in (numpy.float32, numpy.float64):
        raise TypeError(f"random numbers are drawn as float32 or float64, not {numpy.dtype(dtype)}")
    return zeros(shape, dtype, device)
