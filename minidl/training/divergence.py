"""Where a training went wrong: the first layer whose output was not finite."""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.layers.layer import Layer, layer_hook
from minidl.mode import no_grad
from minidl.optimizers.base import BaseOptimizer
from minidl.tensor import Tensor
from minidl.training.arrays import Arrays, Batch
from minidl.training.capture import capture, restore
from minidl.training.checkpoints import Checkpoint
from minidl.training.loaders import ArrayLoader
from minidl.training.run_state import RunState

TARGETS = "the targets"


def find_cause(run: RunState, snapshot: Checkpoint, step: int) -> str:
    """Return what was not finite; leave the network as it was before the step that went wrong.

    The steps since the snapshot are repeated, which gives the same numbers, until the step that failed
    or a step that leaves weights that are not finite.
    """
    restore(run, snapshot)
    if not isinstance(run.loader, ArrayLoader) or run.trainer.optimizer.full_batch:
        return "the steps before it cannot be repeated to find the layer"
    inputs, targets, *weights = _repeat(run, run.loader, step)
    for kind, arrays in (("input", inputs), ("target", targets), *(("weight", x) for x in weights)):
        for i, array in enumerate(arrays):
            if not _is_finite(array):
                return f"{kind} {i} of the mini-batch is not finite"
    layer = first_layer_not_finite(run.network, inputs)
    if layer:
        return f"the first layer whose output was not finite is {layer}"
    if run.step + 1 < step:
        return f"the update of step {run.step + 1} left weights that are not finite"
    problem = _problem_of_targets(run, inputs, targets)
    if problem:
        return f"{TARGETS} were refused: {problem}"
    return f"the outputs of all layers were finite, but the loss was not (check {TARGETS})"


def advice(cause: str) -> str:
    """Return what may help against a cause: a learning rate does not, where the data are wrong."""
    if TARGETS in cause or "mini-batch is not finite" in cause:
        return "The data must change, not the training"
    return "A lower learning rate or clipped gradients (clip_global_norm) may help"


@no_grad()
def _problem_of_targets(run: RunState, inputs: Arrays, targets: Arrays) -> str:
    """Return what the loss says against the targets on the CPU, where it looks at their values."""
    outputs = run.trainer.plain_prediction_step(inputs)
    try:
        run.trainer.loss(*(x.to("cpu") for x in outputs), *(Tensor(devices.to_numpy(x)) for x in targets))
    except ValueError as error:
        return str(error)
    return ""


def _repeat(run: RunState, loader: ArrayLoader, step: int) -> Batch:
    """Bring the training to just before the step that went wrong; return the mini-batch of that step."""
    while True:
        for given in loader.epoch(run.epoch, run.position):
            batch = run.trainer.prepared(*given)
            if run.step + 1 >= step:
                return batch
            before = capture(run)
            run.trainer.take_step(*batch)
            if not has_finite_weights(run.trainer.optimizer):
                restore(run, before)
                return batch
            run.step += 1
            run.position += 1
        run.epoch, run.position = run.epoch + 1, 0


def has_finite_weights(optimizer: BaseOptimizer) -> bool:
    """Return whether all Parameters that are trained are finite; on a GPU this waits for the result."""
    trained = (parameter for parameter in optimizer.parameters if parameter.learning_rate_factor != 0)
    return all(_is_finite(parameter.data) for parameter in trained)


def first_layer_not_finite(network: Layer, inputs: tuple[Any, ...]) -> str:
    """Return the name of the first Layer, innermost first, whose output is not finite, or an empty string."""
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
