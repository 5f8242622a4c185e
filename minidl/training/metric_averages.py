"""The figures of many mini-batches from what each of them contributes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy

from minidl import devices
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.tensor import Tensor

#: How many seconds figures may wait on a GPU before they are fetched, which waits for the GPU.
FLUSH_SECONDS = 0.5


class MetricAverages:
    """Adds up loss and metrics over mini-batches, each weighted by its number of observations.

    Parameters
    ----------
    metrics : the metrics by name, in the order in which their observations come
    """

    def __init__(self, metrics: Mapping[str, Callable[..., Tensor]]):
        self.metrics = metrics
        self.clear()

    def clear(self) -> None:
        """Start again from nothing."""
        self.observations = 0
        self.sums: dict[str, Any] = {}

    def add(self, observations: int, means: list[numpy.ndarray]) -> dict[str, float]:
        """Count one mini-batch in, by its loss and what its metrics observed; return its own figures."""
        self.observations += observations
        figures = {}
        for name, mean in zip(("loss", *self.metrics), means, strict=True):
            mean = mean.astype(numpy.float64)
            self.sums[name] = numpy.asarray(self.sums.get(name, 0.0) + observations * mean)
            figures[name] = self._figure(name, mean)
        return figures

    def figures(self) -> dict[str, float]:
        """Return the figures of all mini-batches that were added."""
        return {name: self._figure(name, total / self.observations) for name, total in self.sums.items()}

    @no_grad()
    def _figure(self, name: str, mean: numpy.ndarray) -> float:
        metric = self.metrics.get(name)
        if isinstance(metric, Metric):
            return float(metric.finish(Tensor(numpy.asarray(mean))).item())
        if mean.ndim == 0:
            return float(mean)
        return float(mean[0] / mean[1]) if mean[1] else 0.0  # as losses have it: nothing counts


class PendingFigures:
    """Figures of mini-batches that are still on the device that computed them.

    Fetching a number waits for the GPU, so the figures of many mini-batches are fetched together.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, list[Tensor]]] = []
        self._fetched = time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, observations: int, figures: list[Tensor]) -> None:
        """Add the figures of one mini-batch."""
        self._waiting.append((observations, figures))

    def are_due(self) -> bool:
        """Return whether the last fetch() is more than FLUSH_SECONDS ago."""
        return time.monotonic() - self._fetched > FLUSH_SECONDS

    def fetch(self) -> list[tuple[int, list[numpy.ndarray]]]:
        """Return (observations, figures on the host) of each mini-batch, and forget them here."""
        self._fetched = time.monotonic()
        waiting, self._waiting = self._waiting, []
        arrays = iter(devices.fetch([x.data for _, figures in waiting for x in figures]))
        return [(observations, list(islice(arrays, len(figures)))) for observations, figures in waiting]
