"""What a function touches: a stand-in for the recorder that watches, and refuses nothing.

apply(), assign(), Layers and Generators tell a recorder what they do. A Witness in its place learns which
Tensors, Layers and Generators a function reads and changes, while the function runs as it always does. A
Trace keeps every step as well, so that a wrong gradient can be followed to the operation it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy

from minidl import devices
from minidl.layers.layer import Layer
from minidl.mode import mode
from minidl.primitives.primitive import Primitive
from minidl.random.generator import Generator
from minidl.tensor import Tensor


class Witness:
    """Passes on what a function uses: Layers before they compute, Generators before they draw.

    Parameters
    ----------
    found : called with each Layer, Generator, or Tensor from outside the function
    """

    current_phase = "backward"  # phases are not told apart

    def __init__(self, found: Callable[[Layer | Generator | Tensor], None]):
        self.found = found
        self.started = Tensor(numpy.empty(0)).created_at  # Tensors made from now on are the function's own
        self.assigned: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is computed in a ``with`` block."""
        mode.recorder = self
        try:
            yield
        finally:
            mode.recorder = None

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Take note of one primitive, which has been computed."""
        for x in inputs:
            if x.created_at < self.started:
                self.found(x)

    def before_assign(self, x: Tensor) -> None:
        """Take note of a Tensor that is about to be assigned a new value."""
        if x.created_at < self.started:
            self.found(x)
            self.assigned[id(x)] = x

    def before_draw(self, generator: Generator) -> None:
        """Take note of a Generator that is about to be drawn from."""
        self.found(generator)

    def guard(self, owner: Any, *names: str) -> None:
        """Take note of a Layer that is about to compute."""
        if isinstance(owner, Layer):
            self.found(owner)

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Take note that Python reads the values of a Tensor."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Take no note of phases."""
        return nullcontext()


@dataclass
class Step:
    """One primitive that was applied: to what, to which values, in which line, with the tape or without."""

    primitive: Primitive
    inputs: tuple[Tensor, ...]
    attributes: dict[str, Any]
    out: Tensor
    arrays: list[devices.Array]
    line: str
    taped: bool


class Trace(Witness):
    """A Witness that keeps every step, every reading, and every array that was overwritten."""

    def __init__(self, found: Callable[[Layer | Generator | Tensor], None]):
        super().__init__(found)
        self.steps: list[Step] = []
        self.readings: list[tuple[Tensor, str, str]] = []
        self.overwritten: list[tuple[Tensor, str]] = []
        self._values: dict[int, tuple[Tensor, devices.Array]] = {}

    def keep(self, x: Tensor) -> devices.Array:
        """Return the values that a Tensor had when it was first seen."""
        return self._values.setdefault(id(x), (x, devices.copy(x.data)))[1]

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Keep one step; notice inputs that are no longer what they were."""
        from minidl.program.recorder import users_line

        super().record(primitive, inputs, attributes, out)
        line = users_line()
        if primitive.kind == "assign":
            self._values.clear()  # views of the target have changed too, and rightly
            arrays = [devices.copy(x.data) for x in inputs]
            self.steps.append(Step(primitive, inputs, attributes, out, arrays, line, mode.grad_enabled))
            return
        arrays = [self.keep(x) for x in inputs]
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
        self.keep(out)
        self.steps.append(Step(primitive, inputs, attributes, out, arrays, line, mode.grad_enabled))

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Keep who reads the values of a Tensor, and where."""
        from minidl.program.recorder import users_line

        self.readings.append((x, reader, users_line()))

    def finish(self) -> None:
        """Notice what was overwritten after its last use."""
        for x, before in self._values.values():
            if not _same(x.data, before):
                made = f"the result of '{x.primitive.name}'" if x.primitive else "a Tensor"
                self.overwritten.append((x, f"{made} of shape {x.shape} is overwritten after it was used"))

    def descendants(self, x: Tensor) -> set[int]:
        """Return the ids of all Tensors that were computed from x, and of x."""
        reached = {id(x)}
        for step in self.steps:
            if any(id(source) in reached for source in step.inputs):
                reached.add(id(step.out))
        return reached


def _same(a: devices.Array, b: devices.Array) -> bool:
    return bool(numpy.array_equal(devices.to_numpy(a), devices.to_numpy(b), equal_nan=a.dtype.kind == "f"))
