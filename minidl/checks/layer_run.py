"""Runs of a layer for the tests of check_layer: example inputs, outputs and gradients in either mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.checks.isolation import Snapshot
from minidl.layers.layer import Layer
from minidl.nests import leaves
from minidl.tensor import Tensor, tensor


class Problem(Exception):
    """What is wrong with a layer."""


class Skip(Exception):
    """Why a test does not apply."""


class Examples:
    """Makes inputs for a layer: random ones of given shapes, or observations of given examples."""

    def __init__(self, shape: Any, axis: int | None, seed: int, dtype: Any, device: str):
        several = isinstance(shape, list) and not all(isinstance(part, int) for part in shape)
        self.parts = list(shape) if several else [shape]
        self.axis, self.seed, self.dtype, self.device = axis, seed, dtype, device

    def batch(self, observations: int, stream: int = 0, dtype: Any = None) -> list[Tensor]:
        """Return a Tensor for each input of the layer, with a number of observations."""
        rng = numpy.random.default_rng((self.seed, stream))
        return [self._input(part, observations, stream, rng, dtype or self.dtype) for part in self.parts]

    def _input(self, part: Any, observations: int, stream: int, rng: Any, dtype: Any) -> Tensor:
        if not hasattr(part, "dtype"):
            shape = (part,) if isinstance(part, int) else tuple(part)
            if self.axis is not None:
                shape = (*shape[: self.axis], observations, *shape[self.axis :])
            return tensor(rng.standard_normal(shape), dtype, device=self.device)
        array = devices.to_numpy(tensor(part).data)
        if self.axis is not None:
            places = (numpy.arange(observations) + stream) % array.shape[self.axis]
            array = numpy.take(array, places, axis=self.axis)
        return tensor(array, dtype if array.dtype.kind == "f" else None, device=self.device)


class LayerRun:
    """Runs a layer for a test that starts from the state in the snapshot."""

    snapshot: Snapshot

    def __init__(self, layer: Layer, examples: Examples, options: dict[str, Any]):
        self.layer, self.examples, self.options = layer, examples, options
        self.axis = examples.axis

    def outputs(self, inputs: Sequence[Tensor], training: bool = False) -> list[Tensor]:
        """Return all output Tensors, in training or evaluation mode."""
        self.layer.train(training)
        return tensors_of(self.layer(*inputs))

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return a weighted sum of all elements of the outputs, with random weights."""
        rng = numpy.random.default_rng(self.options["seed"])
        terms = [
            (y * tensor(rng.uniform(0.5, 1.5, y.shape), y.dtype, device=y.device)).sum()
            for y in outputs
            if y.dtype.kind == "f"
        ]
        if not terms:
            raise Skip("no output is floating-point")
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def gradients(self, inputs: Sequence[Tensor], training: bool = True) -> dict[str, Tensor]:
        """Return the gradient of each Parameter and floating-point input by name."""
        leaves = [Tensor(x.data, x.dtype.kind == "f") for x in inputs]
        total = self.loss(self.outputs(leaves, training))
        if not total.requires_grad:
            raise Problem("the outputs are cut off from inputs and Parameters: backward() has nowhere to go")
        total.backward()
        named: dict[str, Tensor] = dict(self.layer.named_parameters())
        named |= {f"input {i}": x for i, x in enumerate(leaves) if x.requires_grad}
        found = {name: x.grad for name, x in named.items() if x.grad is not None}
        for name, x in named.items():
            g = found.get(name)
            if g is not None and (g.shape, g.dtype, g.device) != (x.shape, x.dtype, x.device):
                raise Problem(f"{name} is {_kind(x)}, its gradient {_kind(g)}")
            x.grad = None
        return found


def tensors_of(result: Any) -> list[Tensor]:
    """Return the Tensors in the result of a layer, a Tensor or a nest of them; refuse everything else."""
    outputs = leaves(result)
    for i, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise Problem(f"output {i} is no Tensor, but {type(y).__module__}.{type(y).__name__}")
    return outputs


def _kind(x: Tensor) -> str:
    return f"{x.dtype} {x.shape} on {x.device}"
