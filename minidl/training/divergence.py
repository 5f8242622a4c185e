"""Where a training went wrong: the first layer that gave something that is not a finite number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.layers.layer import Layer, layer_hook
from minidl.mode import no_grad
from minidl.tensor import Tensor
from minidl.training.loaders import ArraySource
from minidl.training.state import capture, restore

if TYPE_CHECKING:
    from minidl.training.fit import Fit


def find_cause(fit: Fit, step: int) -> str:
    """Say what was not finite; leave the network as it was before the step that spoiled it.

    The steps since the last snapshot are made again, which gives the same numbers, until the one
    that failed or one that leaves weights that are not finite.
    """
    batch = _repeat(fit, step)
    if batch is None:
        return "the steps before it cannot be made again to find the layer"
    inputs, targets = batch
    for kind, arrays in (("input", inputs), ("target", targets)):
        for i, array in enumerate(arrays):
            if not _is_finite(array):
                return f"{kind} {i} of the mini-batch is not finite"
    layer = first_layer_not_finite(fit.network, inputs)
    if layer:
        return f"the first layer whose output was not finite is {layer}"
    if fit.step + 1 < step:
        return f"the update of step {fit.step + 1} left weights that are not finite"
    return "the outputs of all layers were finite, the loss of them was not (it may not know these targets)"


def _repeat(fit: Fit, step: int) -> Any:
    """Bring the training to just before a step; return the mini-batch of that step."""
    restore(fit, fit.snapshot)
    if not isinstance(fit.source, ArraySource) or fit.by_lbfgs:
        return None
    while True:
        for inputs, targets in fit.source.epoch(fit.epoch, fit.position):
            batch = fit.trainer.prepared(inputs, targets)
            if fit.step + 1 >= step:
                return batch
            before = capture(fit)
            fit.trainer.train_step(*batch)
            if not all(_is_finite(parameter.data) for parameter in fit.network.parameters()):
                restore(fit, before)
                return batch
            fit.step += 1
            fit.position += 1
        fit.epoch, fit.position = fit.epoch + 1, 0


def first_layer_not_finite(network: Layer, inputs: tuple[Any, ...]) -> str:
    """Return the name of the first Layer, innermost first, that gives values that are not finite."""
    names = {id(layer): name for name, layer in network.named_layers()}
    found: list[str] = []

    def observe(layer: Layer, arguments: tuple[Any, ...]) -> Any:
        outputs = layer.forward(*arguments)
        several = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        if not found and not all(_is_finite(x.data) for x in several if isinstance(x, Tensor)):
            name = names.get(id(layer))
            title = f"{type(layer).__name__}({layer.extra_repr()})"
            found.append(f"{name}, {title}" if name else f"the network itself, {title}")
        return outputs

    with no_grad(), layer_hook(observe), numpy.errstate(all="ignore"):
        network(*(Tensor(x) for x in inputs))
    return found[0] if found else ""


def _is_finite(array: Any) -> bool:
    with devices.current(array):
        return array.dtype.kind != "f" or bool(devices.array_module(array).isfinite(array).all())
