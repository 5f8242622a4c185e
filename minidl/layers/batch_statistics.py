"""Statistics of BatchNorm layers over a whole data set, in place of running ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.layers.layer import Layer, layer_hook
from minidl.layers.normalization import BatchNorm
from minidl.mode import no_grad
from minidl.primitives.reduction import mean
from minidl.tensor import Tensor


def fit_batch_norm(network: Layer, mini_batches: Iterable[Any]) -> None:
    """Set the running statistics of all BatchNorm layers to those of a data set; other state stays.

    After a training, running statistics lag behind weights that still moved. This passes the data once
    more, each mini-batch normalised by its own statistics as in training, and takes the mean and the
    unbiased variance of all that reached each layer. MATLAB does it at the end of a training by default
    (``BatchNormalizationStatistics="population"``).

    Parameters
    ----------
    network : any Layer; layers besides BatchNorm compute as in evaluation, for example without dropout
    mini_batches : inputs, each mini-batch an array or, for several inputs, a tuple of arrays

    Raises
    ------
    ValueError
        There are no mini-batches, or one has a single value of each channel; nothing is changed.

    Examples
    --------
    >>> import numpy, minidl as dl
    >>> x = numpy.random.default_rng(0).normal(5, 2, (256, 3)).astype("float32")
    >>> layer = dl.BatchNorm(3)
    >>> fit_batch_norm(layer, dl.data.batches(x, batch_size=32))
    >>> bool(abs(layer.running_mean.numpy() - x.mean(axis=0)).max() < 1e-5)
    True
    """
    every = {id(layer): layer for layer in (network, *(layer for _, layer in network.named_layers()))}
    layers = {key: layer for key, layer in every.items() if isinstance(layer, BatchNorm)}
    before = {
        key: (layer.running_mean.copy(), layer.running_variance.copy()) for key, layer in layers.items()
    }
    gathered = {key: _Moments() for key in layers}

    def observe(layer: Layer, inputs: tuple[Any, ...]) -> Any:
        if id(layer) in gathered:
            gathered[id(layer)].add(inputs[0])
        return layer.forward(*inputs)

    batches = 0
    try:
        with no_grad(), network.evaluating(), layer_hook(observe):
            for layer in layers.values():
                layer.training = True  # network.evaluating() puts it back
            for batch in mini_batches:
                inputs = batch if isinstance(batch, (tuple, list)) else (batch,)
                device = network.parameters()[0].device if network.parameters() else "cpu"
                network(*(_on(x, device) for x in inputs))
                batches += 1
        if layers and not batches:
            raise ValueError("fit_batch_norm: there are no mini-batches to fit the layers to")
    except BaseException:
        with no_grad():
            for key, layer in layers.items():
                layer.running_mean.assign(before[key][0])
                layer.running_variance.assign(before[key][1])
        raise
    with no_grad():
        for key, layer in layers.items():
            center, variance = gathered[key].result() or before[key]
            layer.running_mean.assign(center.astype(layer.running_mean.dtype))
            layer.running_variance.assign(variance.astype(layer.running_variance.dtype))


def _on(x: Any, device: str) -> Tensor:
    return Tensor(x.data if isinstance(x, Tensor) else x).to(device)


class _Moments:
    """Count, mean and squared deviations of each channel, batch by batch in float64.

    Batches are merged by the formulas of Chan, Golub & LeVeque (1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.deviations: Any = 0.0

    def add(self, x: Tensor) -> None:
        """Add one batch (batch, ..., features)."""
        x = x.astype("float64")
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        center = mean(x, axes)
        total, shift = self.count + count, center - self.mean
        self.deviations = (
            self.deviations
            + ((x - center) ** 2).sum(axis=axes)
            + shift * shift * (self.count * count / total)
        )
        self.mean, self.count = self.mean + shift * (count / total), total

    def result(self) -> tuple[Tensor, Tensor] | None:
        """Return mean and unbiased variance, or None where nothing was added."""
        return (self.mean, self.deviations / (self.count - 1)) if self.count else None
