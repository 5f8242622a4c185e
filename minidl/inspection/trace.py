"""A trace of a network: every operation of one forward pass, layer by layer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import devices
from minidl.errors import RecordingError
from minidl.layers.layer import Layer, layer_hook
from minidl.layers.normalize import Normalize
from minidl.mode import mode, no_grad
from minidl.nests import leaves, named_leaves
from minidl.primitives.elementwise import cast, negative
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.shape import broadcast_to_, detach, reshape_, transpose_
from minidl.program.program import Instruction, Program, Value
from minidl.program.recorder import Recorder
from minidl.tensor import Parameter, Tensor, tensor


@dataclass(eq=False)
class LayerCall:
    """One call of a Layer.

    Attributes
    ----------
    name : the dotted name of the Layer in the network
    items : in order, the instructions of the Layer itself and the calls of Layers inside
    inputs, outputs : the values that it took and returned
    """

    layer: Layer
    name: str
    items: list[Instruction | LayerCall] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    @property
    def instructions(self) -> list[Instruction]:
        """Its own instructions, without those of the calls inside."""
        return [item for item in self.items if isinstance(item, Instruction)]

    def parts(self) -> list[LayerCall | list[Instruction]]:
        """Return the calls inside and lists of instructions between them; a product begins a new list."""
        parts: list[LayerCall | list[Instruction]] = []
        waiting: list[Instruction] = []
        for item in self.items:
            if isinstance(item, LayerCall):
                parts += [waiting, item]
                waiting = []
            elif item.primitive is matmul_:
                factors = [step for step in waiting if step.primitive.kind == "view" and _reads(item, step)]
                parts.append([step for step in waiting if step not in factors])
                waiting = [*factors, item]
            else:
                waiting.append(item)
        return [part for part in [*parts, waiting] if part]

    def calls(self) -> Iterator[LayerCall]:
        """Yield this call and all inside it, outer ones first."""
        yield self
        for item in self.items:
            if isinstance(item, LayerCall):
                yield from item.calls()


@dataclass
class NetworkTrace:
    """The forward pass of a network for one observation.

    Attributes
    ----------
    root : the call of the network
    inputs, outputs : the values that the network takes and returns, by name: that of the argument, or the
        place of an output in what forward() returns, such as "0" or "mean"; "" for a single output
    parameters : the dotted name of each value that is a Parameter
    texts : the text of each value that is a Parameter, state or a transpose of one: ``encoder.0.weight.T``
    program : the whole recording
    """

    root: LayerCall
    inputs: list[tuple[str, Value]]
    outputs: list[tuple[str, Value]]
    parameters: dict[Value, str]
    texts: dict[Value, str]
    program: Program

    def formula(self, steps: list[Instruction]) -> str:
        """Return a formula of x, y and z for some operations; their names if it is long; "" for views."""
        names = [step.name for step in steps if step.primitive.kind != "view"]
        text = _Formula(steps, self.texts).text()
        more = [f"{len(names) - 4} more"] if len(names) > 4 else []
        return text if text and names else ", ".join(names[:4] + more)


def trace(network: Layer, inputs: tuple[Any, ...]) -> NetworkTrace:
    """Run a network on one observation in evaluation mode, and leave it as it was.

    A Normalize that is not fitted yet returns its input unchanged.

    Parameters
    ----------
    inputs : for each input, the shape of one observation, or an array of observations, of which the
        first is used
    """
    return trace_tensors(network, [one_observation(x, network) for x in inputs])


def trace_tensors(network: Layer, samples: list[Tensor]) -> NetworkTrace:
    """Run a network on inputs as they are, as trace() does."""
    if mode.recorder is not None:
        raise RecordingError(
            "a network cannot be traced (summary, plot, to_onnx) inside a compiled function: do it outside"
        )
    names = {id(layer): name for name, layer in network.named_layers()}
    recorder = _PermissiveRecorder(samples)
    root = LayerCall(network, "")
    stack: list[LayerCall] = []
    assigned = 0  # how many instructions belong to a call already

    def new_instructions() -> list[Instruction]:
        nonlocal assigned
        new = recorder.program.steps[assigned:]
        assigned += len(new)
        return new  # type: ignore[return-value]

    def hook(layer: Layer, arguments: tuple[Any, ...]) -> Any:
        call = LayerCall(layer, names.get(id(layer), "")) if stack else root
        if stack:
            stack[-1].items += [*new_instructions(), call]
        stack.append(call)
        call.inputs = [recorder.value_of(x) for x in arguments if isinstance(x, Tensor)]
        if isinstance(layer, Normalize) and not layer.fitted:
            layer.offset.assign(layer.offset.zeros_like())
            layer.factor.assign(layer.factor.ones_like())
        outputs = layer.forward(*arguments)
        call.items += new_instructions()
        call.outputs = [recorder.value_of(x) for x in leaves(outputs) if isinstance(x, Tensor)]
        stack.pop()
        return outputs

    mode.recorder = recorder
    try:
        with _preserved(network), no_grad(), layer_hook(hook):
            network.eval()
            outputs = [(n, x) for n, x in named_leaves(network(*samples)) if isinstance(x, Tensor)]
        program = recorder.finish([x for _, x in outputs])
    finally:
        mode.recorder = None
        recorder.rewind()
    held = {id(x): name for name, x in network.named_tensors()}
    texts = {value: held[id(value.tensor)] for value in recorder.values.values() if id(value.tensor) in held}
    parameters = {value: name for value, name in texts.items() if isinstance(value.tensor, Parameter)}
    for step in program.steps:
        if isinstance(step, Instruction) and step.primitive is transpose_ and step.inputs[0] in texts:
            texts[step.output] = f"{texts[step.inputs[0]]}.T"
    named_inputs = list(zip(_argument_names(network, len(samples)), program.inputs, strict=True))
    # Behind the outputs, a program has the checks of values.
    named_outputs = [(name, value) for (name, _), value in zip(outputs, program.outputs, strict=False)]
    return NetworkTrace(root, named_inputs, named_outputs, parameters, texts, program)


def _argument_names(network: Layer, count: int) -> list[str]:
    """Return the names of the arguments of forward(); numbers for those in ``*arguments``."""
    named = [
        parameter.name
        for parameter in inspect.signature(network.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return [named[i] if i < len(named) else str(i) for i in range(count)]


#: Operators of operations of two inputs, with their precedence.
_INFIX = {"add": ("+", 1), "subtract": ("-", 1), "multiply": ("*", 2), "divide": ("/", 2), "matmul": ("@", 2)}

#: Operations that a formula leaves out; the shape of its result is shown next to it.
_SILENT = (detach, broadcast_to_, reshape_)


class _Formula:
    """Writes operations as one formula, if they form one that is short."""

    longest = 44

    def __init__(self, steps: list[Instruction], texts: dict[Value, str]):
        self.steps = steps
        self.texts = texts
        self.makers = {step.output: step for step in steps}
        self.letters: dict[Value, str] = {}  # x, y and z for inputs from outside, in order of appearance
        self.written: set[Value] = set()
        self.repeats = False

    def text(self) -> str:
        """Return the formula, or "" if it would not be readable."""
        if len(self.steps) > self.longest:
            return ""
        formula = self._of(self.steps[-1].output, 0)
        is_whole = all(step.output in self.written or step.output in self.texts for step in self.steps)
        short = len(self.letters) <= 3 and len(formula) <= self.longest
        return formula if short and is_whole and not self.repeats else ""

    def _of(self, value: Value, precedence: int) -> str:
        if value in self.texts:
            return self.texts[value]
        step = self.makers.get(value)
        if step is None:
            if value.kind == "constant":
                return f"{devices.to_numpy(value.array).item():.4g}" if value.size == 1 else "constant"
            return self.letters.setdefault(value, "xyz"[min(len(self.letters), 2)])
        # A result that is used twice would appear twice, as if it were computed twice.
        self.repeats |= value in self.written
        self.written.add(value)
        if self.repeats:
            return ""
        if step.primitive in _SILENT or (step.primitive is cast and step is not self.steps[-1]):
            return self._of(step.inputs[0], precedence)
        if step.primitive is negative:
            return f"-{self._of(step.inputs[0], 3)}"
        if step.name in _INFIX:
            sign, own = _INFIX[step.name]
            text = f"{self._of(step.inputs[0], own)} {sign} {self._of(step.inputs[1], own + 1)}"
            return f"({text})" if own < precedence else text
        return f"{step.name}({', '.join(self._of(x, 0) for x in step.inputs)})"


def _reads(step: Instruction, other: Instruction) -> bool:
    return other.output in step.inputs


class _PermissiveRecorder(Recorder):
    """A Recorder that lets Python read values: what it records is never replayed."""

    def refuse_reading(self, x: Tensor, reader: str) -> None:  # type: ignore[override]
        """Allow it."""


@contextmanager
def _preserved(network: Layer) -> Iterator[None]:
    """Restore the attributes of all Layers and the gradients of all Parameters after a ``with`` block."""
    layers = [network, *(layer for _, layer in network.named_layers())]
    attributes = [dict(vars(layer)) for layer in layers]
    gradients = [(parameter, parameter.grad) for parameter in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None  # a Recorder refuses Parameters that have one
    try:
        yield
    finally:
        for layer, before in zip(layers, attributes, strict=True):
            vars(layer).clear()
            vars(layer).update(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def one_observation(x: Any, network: Layer) -> Tensor:
    """Return one observation, with a batch axis, for a shape or from an array of observations."""
    parameter = next(iter(network.parameters()), None)
    device = "cpu" if parameter is None else parameter.device
    if hasattr(x, "dtype"):
        return tensor(x[:1]).to(device)
    shape = (x,) if isinstance(x, int) else tuple(x)
    if not all(isinstance(length, int) and length >= 0 for length in shape):
        raise TypeError(f"expected the shape of one observation or an array of observations, got {x!r}")
    dtype = numpy.float32 if parameter is None else parameter.dtype
    # Small positive numbers, valid for every layer, and different ones, so that their variance is not 0.
    values = numpy.linspace(0.1, 0.9, math.prod(shape), dtype=dtype).reshape(1, *shape)
    return tensor(values).to(device)
