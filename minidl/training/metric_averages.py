"""MetricAverages: the figures of many mini-batches from what each of them contributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy

from minidl import devices
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.tensor import Tensor


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
        """Begin anew."""
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

    def add_all(self, pending: list[tuple[int, list[Tensor]]]) -> None:
        """Count mini-batches in, each (observations, means), and empty their list."""
        for observations, means in fetched(pending):
            self.add(observations, means)
        pending.clear()

    def figures(self) -> dict[str, float]:
        """Return the figures of all mini-batches so far."""
        return {name: self._figure(name, total / self.observations) for name, total in self.sums.items()}

    @no_grad()
    def _figure(self, name: str, mean: numpy.ndarray) -> float:
        metric = self.metrics.get(name)
        if isinstance(metric, Metric):
            return float(metric.finish(Tensor(numpy.asarray(mean))).item())
        return float(mean)


def fetched(pending: list[tuple[int, list[Tensor]]]) -> list[tuple[int, list[numpy.ndarray]]]:
    """Return mini-batches (observations, means) with their means on the host, all fetched at once."""
    arrays = iter(devices.fetch([x.data for _, means in pending for x in means]))
    return [(observations, list(islice(arrays, len(means)))) for observations, means in pending]
