"""Fitting the Normalize layers of a network to its training data, one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from minidl.layers.layer import Layer, layer_hook
from minidl.layers.normalize import Normalize, Statistics
from minidl.mode import no_grad

Batches = Callable[[], Iterable[tuple[Any, ...]]]


class _Reached(Exception):
    """Ends a pass through the network that has reached the layers it was made for."""


def fit_normalization(network: Layer, batches: Batches, refit: bool = False) -> None:
    """Fit the Normalize layers of a network to their inputs, one after another.

    Parameters
    ----------
    batches : function that returns an iterable over the mini-batches, each a tuple of inputs
    refit : also fit the layers that are already fitted
    """
    layers: list[Layer] = [network, *(layer for _, layer in network.named_layers())]
    wanted = [layer for layer in layers if isinstance(layer, Normalize) and (refit or not layer.fitted)]
    if not wanted:
        return
    first = next(iter(batches()), None)
    if first is None:
        raise ValueError(f"{wanted[0]!r}: there are no mini-batches to fit it to")
    for layer in _in_order(network, wanted, first):
        statistics = Statistics(layer)

        def observe(
            reached: Layer,
            inputs: tuple[Any, ...],
            layer: Normalize = layer,
            statistics: Statistics = statistics,
        ) -> Any:
            if reached is layer:
                statistics.add(inputs[0])
                raise _Reached
            return reached.forward(*inputs)

        for inputs in batches():
            _run(network, inputs, observe)
        layer.set_statistics(statistics)


def _in_order(network: Layer, wanted: list[Normalize], inputs: tuple[Any, ...]) -> list[Normalize]:
    """Return the layers in the order in which the network calls them."""
    order: list[Normalize] = []

    def observe(reached: Layer, arguments: tuple[Any, ...]) -> Any:
        if isinstance(reached, Normalize) and any(reached is layer for layer in wanted):
            if not any(reached is layer for layer in order):
                order.append(reached)
            if len(order) == len(wanted):
                raise _Reached
            return arguments[0].astype(reached.offset.dtype)
        return reached.forward(*arguments)

    _run(network, inputs, observe)
    return order


def _run(network: Layer, inputs: tuple[Any, ...], observe: Callable[[Layer, tuple[Any, ...]], Any]) -> None:
    with no_grad(), network.evaluating(), layer_hook(observe), contextlib.suppress(_Reached):
        network(*inputs)
