"""Normalize: input normalisation, fitted to the training data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from minidl import devices
from minidl.creation import full
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input, check_shape
from minidl.mode import mode
from minidl.tensor import Tensor, tensor

METHODS = ("zscore", "zerocenter", "rescale-zero-one", "rescale-symmetric", "none")

EXTENTS = ("auto", "element", "channel", "all")

#: Elements that are converted to float64 at a time.
_BLOCK = 2**20


class Normalize(Layer):
    """Shift and scale inputs by statistics of the training data: ``(x - offset) * factor``.

    The statistics are state: saved with the weights, not trained. A Trainer fits what is unfitted
    before it trains; without a Trainer, call `fit`.

    Parameters
    ----------
    shape : the shape of one observation, for example ``(784,)`` or ``(28, 28, 1)``
    method : ``"zscore"`` (mean 0, standard deviation 1), ``"zerocenter"`` (mean 0),
        ``"rescale-zero-one"``, ``"rescale-symmetric"`` (to [-1, 1]), ``"none"``, or a function of a
        Tensor
    over : which values share their statistics: those of each ``"element"``, of each ``"channel"`` (the
        last axis), or ``"all"``; ``"auto"`` is channel for three axes and more, else element

    Attributes
    ----------
    offset, factor : Tensors that broadcast to the shape; NaN until they are fitted
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        method: str | Callable[[Tensor], Tensor] = "zscore",
        over: str = "auto",
    ):
        if not callable(method) and method not in METHODS:
            raise ValueError(
                f"Normalize: method must be one of {', '.join(METHODS)} or a function; got {method!r}"
            )
        if over not in EXTENTS:
            raise ValueError(f"Normalize: over must be one of {', '.join(EXTENTS)}; got {over!r}")
        if not isinstance(shape, (tuple, list)):
            raise TypeError(f"Normalize: shape is that of one observation, for example (784,); got {shape!r}")
        self.shape = tuple(shape)
        self.method = method
        self.over = ("channel" if len(self.shape) >= 3 else "element") if over == "auto" else over
        statistics = {
            "element": self.shape,
            "channel": (*(1 for _ in self.shape[:-1]), *self.shape[-1:]),
            "all": tuple(1 for _ in self.shape),
        }[self.over]
        needs_data = method != "none" and not callable(method)
        self.offset = full(statistics, math.nan if needs_data else 0.0)
        self.factor = full(statistics, math.nan if needs_data else 1.0)

    @property
    def fitted(self) -> bool:
        """Whether the statistics are there: fitted, or loaded with the weights."""
        return not bool(numpy.isnan(devices.to_numpy(self.offset.data)).any())

    def fit(self, x: Any) -> Normalize:
        """Compute the statistics from all observations; return the Layer.

        Parameters
        ----------
        x : an array (observations, *shape), or an iterable of such mini-batches, which is read once

        Raises
        ------
        ValueError
            There are no observations, they have another shape, or they hold NaN or infinity; the
            statistics stay as they were.
        """
        statistics = Statistics(self)
        for batch in [x] if hasattr(x, "shape") else x:
            statistics.add(batch)
        self.set_statistics(statistics)
        return self

    def set_statistics(self, statistics: Statistics) -> None:
        """Use gathered statistics as this Layer's.

        Raises
        ------
        ValueError
            There were no observations, or they hold NaN or infinity; nothing is changed.
        """
        if not statistics.count:
            raise ValueError(f"{self!r}: there are no observations to fit it to")
        if not (numpy.isfinite(statistics.low) & numpy.isfinite(statistics.high)).all():
            raise ValueError(f"{self!r}: the observations to fit it to hold NaN or infinity")
        offset, factor = statistics.offset_and_factor(str(self.method))
        for mine, value in ((self.offset, offset), (self.factor, factor)):
            mine.assign(tensor(value.reshape(mine.shape).astype(mine.dtype), device=mine.device))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the normalised inputs, (batch, *shape); integers become floats."""
        check_input(self, x, ("batch", *self.shape), like=self.offset, kinds="fiub")
        if x.dtype.kind != "f":
            x = x.astype(self.offset.dtype)
        if callable(self.method):
            return self.method(x)
        if self.method == "none":
            return x
        # On a GPU, reading the statistics would wait for it at every step, so there only recording does.
        if (x.device == "cpu" or mode.recorder is not None) and not self.fitted:
            raise RuntimeError(f"{self!r} has no statistics yet: call fit(x) first; a Trainer does that")
        return (x - self.offset) * self.factor

    def extra_repr(self) -> str:
        """Return the shape, the method and which values share statistics."""
        method = getattr(self.method, "__name__", self.method)
        return f"{self.shape}, {method!r}, over={self.over!r}"


class Statistics:
    """Count, mean, squared deviations, smallest and largest value, gathered batch by batch in float64.

    Batches are merged by the formulas of Chan, Golub & LeVeque (1979), which stay exact where the mean
    is large compared with the spread.
    """

    def __init__(self, layer: Normalize):
        self.layer = layer
        kept = [i for i, length in enumerate(layer.offset.shape) if length == layer.shape[i] and length > 1]
        self.axes = tuple(i for i in range(len(layer.shape) + 1) if i - 1 not in kept)
        self.count = 0
        self.mean: Any = 0.0
        self.deviations: Any = 0.0
        self.low: Any = math.inf
        self.high: Any = -math.inf

    def add(self, batch: Any) -> None:
        """Add a batch, in blocks: as float64 it may need several times its memory."""
        array = devices.to_numpy(batch.data if isinstance(batch, Tensor) else batch)
        check_shape(self.layer, array.shape, ("batch", *self.layer.shape))
        rows = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
        for first in range(0, len(array) if array.size else 0, rows):
            self._add(array[first : first + rows].astype(numpy.float64))

    @numpy.errstate(invalid="ignore", over="ignore")  # NaN and infinity are refused at the end
    def _add(self, array: numpy.ndarray) -> None:
        mean = array.mean(axis=self.axes, keepdims=True)
        count = array.size // mean.size
        deviations = ((array - mean) ** 2).sum(axis=self.axes, keepdims=True)
        total = self.count + count
        shift = mean - self.mean
        self.deviations = self.deviations + deviations + shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total
        self.low = numpy.minimum(self.low, array.min(axis=self.axes, keepdims=True))
        self.high = numpy.maximum(self.high, array.max(axis=self.axes, keepdims=True))

    def offset_and_factor(self, method: str) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return what to subtract, and what to multiply by (1 where all values are equal)."""
        one = numpy.ones_like(self.mean)
        # Where all values are equal, rounding may still leave deviations, too small to divide by.
        spread = self.high - self.low
        if method == "zerocenter":
            return self.mean, one
        if method == "zscore":
            return self.mean, _inverse(numpy.sqrt(self.deviations / self.count) * (spread > 0))
        if method == "rescale-zero-one":
            return self.low, _inverse(spread)
        return (self.low + self.high) / 2, _inverse(spread / 2)


def _inverse(x: numpy.ndarray) -> numpy.ndarray:
    return 1 / numpy.where(x > 0, x, 1)
