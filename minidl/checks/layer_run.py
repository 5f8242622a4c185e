"""Runs of a layer for the rows of check_layer: example inputs, outputs, gradients and traces in "
"either mode."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.checks.isolation import Snapshot
from minidl.checks.not_finite import is_own
from minidl.checks.tracing import OperationTrace, UsageRecorder
from minidl.layers.layer import Layer
from minidl.mode import no_grad
from minidl.nests import named_leaves
from minidl.primitives.primitive import Primitive
from minidl.tensor import Tensor, tensor

SEVERAL = 4  # observations in most batches


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

    @property
    def are_random(self) -> bool:
        """Whether inputs are random numbers, and no examples whose range may matter."""
        return not any(hasattr(part, "dtype") for part in self.parts)

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


class _OwnPrimitives(UsageRecorder):
    """Notices primitives that are not minidl's."""

    found_own = False

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Look at one primitive."""
        self.found_own |= is_own(primitive)


class LayerRun:
    """Runs a layer for a row that starts from the state in the snapshot.

    Attributes
    ----------
    snapshot : the state of the layer when the row began
    compared : how many numbers the row has compared
    wrong_gradients : whether an earlier row has found gradients that are wrong
    stateful : whether each call begins where the last one ended; then outputs() starts anew at each call
    """

    snapshot: Snapshot

    def __init__(self, layer: Layer, examples: Examples, options: dict[str, Any], order: int = 1):
        self.layer, self.examples, self.options, self.order = layer, examples, options, order
        self.axis = examples.axis
        self.compared = 0
        self._own: bool | None = None
        self.wrong_gradients = False  # whether they are known to be wrong
        self.stateful = any(
            getattr(part, "stateful", None) is True or (resets(part) and not hasattr(part, "stateful"))
            for part in self.parts()
        )

    def parts(self) -> list[Layer]:
        """Return the layer and all inside."""
        return [self.layer, *(part for _, part in self.layer.named_layers())]

    def observations(self, stream: int = 0, dtype: Any = None) -> list[Tensor]:
        """Return a batch of several observations."""
        return self.examples.batch(SEVERAL, stream, dtype)

    def several(self) -> int:
        """Return the axis of observations, or skip."""
        if self.axis is None:
            raise Skip("inputs have no observation dimension")
        return self.axis

    def outputs(self, inputs: Sequence[Tensor], training: bool = False) -> list[Tensor]:
        """Return all output Tensors, in training or evaluation mode."""
        self.layer.train(training)
        self.reset(inputs)
        return tensors_of(self.layer(*inputs))

    def arrays(self, inputs: Sequence[Tensor], training: bool = False) -> list[numpy.ndarray]:
        """Return the values of all outputs."""
        return [y.numpy() for y in self.outputs(inputs, training)]

    def from_the_start(self, inputs: Sequence[Tensor], training: bool = False) -> list[numpy.ndarray]:
        """Return the values of all outputs of a call that begins with the row's first state."""
        self.rewind()
        return self.arrays(inputs, training)

    def rewind(self) -> None:
        """Go back to the state with which the row began, random numbers included."""
        self.snapshot.rewind(self.snapshot.tensors)
        self.snapshot.restore_attributes()

    def reset(self, inputs: Sequence[Tensor]) -> None:
        """Let stateful layers start anew."""
        if self.stateful:
            reset(self.layer, inputs, self.axis)

    def loss(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return a weighted sum of all finite elements of the outputs, with random weights."""
        rng = numpy.random.default_rng(self.options["seed"])
        terms = []
        for y in outputs:
            if y.dtype.kind == "f":
                weights = tensor(rng.uniform(0.5, 1.5, y.shape), y.dtype, device=y.device)
                terms.append((y * weights).sum())
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
        named: dict[str, Tensor] = {name: p for name, p in self.layer.named_parameters() if p.requires_grad}
        named |= {f"input {i}": x for i, x in enumerate(leaves) if x.requires_grad}
        found = {name: x.grad for name, x in named.items() if x.grad is not None}
        for name, x in named.items():
            g = found.get(name)
            if g is not None and (g.shape, g.dtype, g.device) != (x.shape, x.dtype, x.device):
                raise Problem(f"{name} is {_kind(x)}, its gradient {_kind(g)}")
            x.grad = None
        return found

    def trace(self, inputs: Sequence[Tensor], training: bool = False) -> tuple[OperationTrace, list[Tensor]]:
        """Return every operation of a call that begins with the row's first state, and its outputs."""
        self.rewind()
        return self.trace_now(inputs, training)

    def trace_now(
        self, inputs: Sequence[Tensor], training: bool = False
    ) -> tuple[OperationTrace, list[Tensor]]:
        """Return every operation of a call from the layer's present state, and its outputs."""
        self.layer.train(training)
        self.reset(inputs)
        trace = OperationTrace(lambda found: None)
        with trace.recording():
            outputs = tensors_of(self.layer(*inputs))
        return trace, outputs

    def has_own_primitives(self) -> bool:
        """Return whether the layer applies primitives that are not minidl's."""
        if self._own is None:
            self.rewind()
            recorder = _OwnPrimitives(lambda found: None)
            with recorder.recording():
                for training in (False, True):
                    self.outputs(self.observations(), training)
            self._own = recorder.found_own
            self.rewind()
        return self._own

    def advance(self) -> None:
        """Let training change the state a little, as in its first steps."""
        with no_grad():
            for stream in range(11, 14):
                self.outputs(self.observations(stream), training=True)

    def has_gradients(self, inputs: Sequence[Tensor]) -> bool:
        """Return whether there is anything to differentiate for."""
        return any(x.dtype.kind == "f" for x in (*inputs, *self.layer.parameters()))


def resets(part: Layer) -> bool:
    """Return whether a layer carries state from call to call that reset_state() forgets."""
    return callable(getattr(part, "reset_state", None))


def reset(layer: Layer, inputs: Sequence[Tensor], axis: int | None) -> None:
    """Call the reset_state() of every layer that has one, with the batch size if it takes one."""
    for part in (layer, *(inner for _, inner in layer.named_layers())):
        if resets(part) and getattr(part, "stateful", True):
            method: Any = part.reset_state  # type: ignore[attr-defined]
            takes_batch = bool(inspect.signature(method).parameters)
            method(*([inputs[0].shape[axis or 0]] if takes_batch else []))


def tensors_of(result: Any) -> list[Tensor]:
    """Return the Tensors in the result of a layer, a Tensor or a nest of them; None counts as nothing."""
    outputs = [(name, y) for name, y in named_leaves(result) if y is not None]
    for i, (_, y) in enumerate(outputs):
        if not isinstance(y, Tensor):
            raise Problem(f"output {i} is no Tensor, but {type(y).__module__}.{type(y).__name__}")
    if not outputs:
        raise Problem("forward returns no Tensor: it ends without a return")
    return [y for _, y in outputs]


def perturb(layer: Layer, seed: int) -> None:
    """Move all Parameters a little from where they start: gains away from 1, biases and scales from 0."""
    rng = numpy.random.default_rng((seed, 7))
    for _, p in layer.named_parameters():
        values = devices.to_numpy(p.data).astype("float64")
        fan_in = int(numpy.prod(values.shape[:-1])) if values.ndim > 1 else 1
        moved = values * rng.uniform(0.8, 1.2, values.shape)
        size = float(numpy.sqrt((values**2).mean())) if values.size else 0.0
        typical = size if size else 0.3 / numpy.sqrt(fan_in)
        moved = numpy.where(values == 0, 0.5 * typical * rng.standard_normal(values.shape), moved)
        moved = numpy.asarray(moved)
        p.data = devices.to_device(moved.astype(p.dtype), p.device)


def _kind(x: Tensor) -> str:
    return f"{x.dtype} {x.shape} on {x.device}"
