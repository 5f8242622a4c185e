"""What a function uses: recorders that compile nothing and refuse nothing.

apply(), assign(), Layers and Generators report to the current recorder. A UsageRecorder collects which
Tensors, Layers and Generators a function reads and changes, while the function runs as usual. An
OperationTrace also keeps every operation, so that a wrong gradient can be traced to its cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy

from minidl import devices
from minidl.layers.layer import Layer, layer_hook
from minidl.mode import mode
from minidl.primitives.primitive import Primitive
from minidl.random.generator import Generator
from minidl.tensor import Tensor


class UsageRecorder:
    """Reports what a function uses: Layers before they compute, Generators before they draw.

    Parameters
    ----------
    found : called with each Layer, Generator, or Tensor from outside the function
    """

    current_phase = "backward"  # forward, backward and update make no difference here

    def __init__(self, found: Callable[[Layer | Generator | Tensor], None]):
        self.found = found
        self.started = Tensor(numpy.empty(0)).created_at  # Tensors made from now on are the function's own
        self.assigned: dict[int, Tensor] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is computed within a ``with`` block."""
        outer = mode.layer_hook

        def report(layer: Layer, inputs: tuple[Any, ...]) -> Any:
            self.found(layer)
            return layer.forward(*inputs) if outer is None else outer(layer, inputs)

        mode.recorder = self
        try:
            with layer_hook(report):
                yield
        finally:
            mode.recorder = None

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Report the inputs of a primitive that has been computed, if they come from outside."""
        for x in inputs:
            if x.created_at < self.started:
                self.found(x)

    def before_assign(self, x: Tensor) -> None:
        """Report a Tensor that is about to be assigned a new value."""
        if x.created_at < self.started:
            self.found(x)
            self.assigned[id(x)] = x

    def before_draw(self, generator: Generator) -> None:
        """Report a Generator that is about to be drawn from."""
        self.found(generator)

    def before_seeding(self, generator: Generator) -> None:
        """Report a Generator that is about to be given another state."""
        self.found(generator)

    def before_attribute(self, owner: Any, name: str) -> None:
        """Report a Layer of which an attribute is about to be set."""
        if isinstance(owner, Layer):
            self.found(owner)

    def before_gradient(self, x: Tensor) -> None:
        """Ignore that a gradient is read or replaced."""

    def before_data(self, x: Tensor) -> None:
        """Allow the array of a Tensor to be read."""

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Allow Python to read the values of a Tensor."""

    def infer(self, primitive: Primitive, arrays: list[Any], attributes: dict[str, Any]) -> None:
        """Let a primitive be computed."""

    def check(self, x: Tensor, holds: Any, message: Any) -> bool:
        """Let values be checked."""
        return True

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Ignore phases."""
        return nullcontext()


@dataclass
class TracedOperation:
    """One primitive that was applied.

    Attributes
    ----------
    arrays : copies of the values of the inputs at that time
    line : of the user's code
    taped : whether the tape was on
    """

    primitive: Primitive
    inputs: tuple[Tensor, ...]
    attributes: dict[str, Any]
    out: Tensor
    arrays: list[devices.Array]
    line: str
    taped: bool


class OperationTrace(UsageRecorder):
    """A UsageRecorder that keeps every operation, every reading and every array that was overwritten."""

    def __init__(self, found: Callable[[Layer | Generator | Tensor], None]):
        super().__init__(found)
        self.operations: list[TracedOperation] = []
        self.readings: list[tuple[Tensor, str, str]] = []
        self.overwritten: list[tuple[Tensor, str]] = []
        self.differentiates = False  # whether the function itself calls backward() or grad()
        self.current_phase = "forward"
        self._values: dict[int, tuple[Tensor, devices.Array]] = {}

    def remember(self, x: Tensor) -> devices.Array:
        """Return the values that a Tensor had when it was first seen."""
        return self._values.setdefault(id(x), (x, devices.copy(x.data)))[1]

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Keep an operation, and notice inputs whose values have changed since they were first seen."""
        from minidl.program.recorder import users_line

        super().record(primitive, inputs, attributes, out)
        line = users_line()
        if primitive.kind == "assign":
            self._values.clear()  # the values of its views have changed too, as they should
            arrays = [devices.copy(x.data) for x in inputs]
            self.operations.append(
                TracedOperation(primitive, inputs, attributes, out, arrays, line, mode.grad_enabled)
            )
            return
        arrays = [self.remember(x) for x in inputs]
        for x, before in zip(inputs, arrays, strict=True):
            if not _same(x.data, before):
                copies = [devices.copy(array) for array in arrays]
                with devices.current(copies[0]):
                    primitive.forward(devices.array_module(copies[0]), *copies, **attributes)
                guilty = any(not _same(a, b) for a, b in zip(copies, arrays, strict=True))
                culprit = (
                    f"the forward of '{primitive.name}'" if guilty else f"something before '{primitive.name}'"
                )
                self.overwritten.append((x, f"{culprit} overwrites its input of shape {x.shape} ({line})"))
                self._values[id(x)] = (x, devices.copy(x.data))
        self.remember(out)
        self.operations.append(
            TracedOperation(primitive, inputs, attributes, out, arrays, line, mode.grad_enabled)
        )

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Keep which method reads the values of a Tensor, and in which line."""
        from minidl.program.recorder import users_line

        self.readings.append((x, reader, users_line()))

    def finish(self) -> None:
        """Notice arrays that were overwritten after their last use."""
        for x, before in self._values.values():
            if not _same(x.data, before):
                made = f"the result of '{x.primitive.name}'" if x.primitive else "a Tensor"
                self.overwritten.append((x, f"{made} of shape {x.shape} is overwritten after it was used"))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Note that the function differentiates."""
        self.differentiates |= name == "backward"
        outer, self.current_phase = self.current_phase, name
        try:
            yield
        finally:
            self.current_phase = outer

    def needed(self, outputs: list[Tensor]) -> set[int]:
        """Return the ids of all Tensors that outputs were computed from, or of all, if it differentiates."""
        found = {id(y) for y in outputs}
        for operation in reversed(self.operations):
            if self.differentiates or id(operation.out) in found or operation.primitive.kind == "assign":
                found.update(id(x) for x in operation.inputs)
        return found

    def descendants(self, x: Tensor) -> set[int]:
        """Return the ids of all Tensors that were computed from x, and of x."""
        reached = {id(x)}
        for operation in self.operations:
            if any(id(source) in reached for source in operation.inputs):
                reached.add(id(operation.out))
        return reached


def _same(a: devices.Array, b: devices.Array) -> bool:
    return bool(numpy.array_equal(devices.to_numpy(a), devices.to_numpy(b), equal_nan=a.dtype.kind == "f"))
