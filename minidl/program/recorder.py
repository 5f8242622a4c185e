"""The recorder: told by apply() and assign() what happens, it writes a Program.

It also refuses what a record cannot honour: Python reading a value that the next replay will
compute anew, or a view that an assignment made stale.
"""

from __future__ import annotations

import linecache
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy

from minidl import devices
from minidl.errors import RecordingError
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import detach
from minidl.program.program import Instruction, Program, Value
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor, mark_assigned

_PACKAGE = str(Path(__file__).parent.parent)


def users_line() -> str:
    """Return file, number and text of the line outside minidl that is being executed."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    name, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(name, number).strip()
    return f"{Path(name).name}, line {number}" + (f": {text}" if text else "")


class _Gone:
    """Stands in for the array of a Tensor that lived only while a function was being recorded."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(
            "this Tensor was made inside a compiled function and kept outside of it, where replays do not "
            "renew it: return it from the function instead"
        )

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # whoever asks what kind of array this is gets the answer, too
        return self.array


class Recorder:
    """Writes down primitives as they are applied; `finish` gives the Program."""

    def __init__(self, inputs: list[Tensor]):
        self.started = Tensor(numpy.empty(0)).created_at  # Tensors made from now on are not outside state
        self.program = Program([], [], [], {})
        self.values: dict[int, Value] = {}  # by the Tensor's number
        self.made: list[weakref.ref[Tensor]] = []  # weak, so that recording needs no more memory than eager
        self.stale: dict[Value, str] = {}
        self.views: dict[Value, list[Value]] = {}
        self.guards: list[tuple[Any, str, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}
        self.current_phase = "forward"
        for x in inputs:
            value = Value(x.shape, x.dtype, "input", x.data)
            self._remember(x, value)
            self.program.inputs.append(value)

    def _remember(self, x: Tensor, value: Value) -> None:
        self.values[x.created_at] = value
        if x.created_at > self.started:
            self.made.append(weakref.ref(x))

    def value_of(self, x: Tensor) -> Value:
        """Return the value that a Tensor stands for; one from outside becomes state."""
        value = self.values.get(x.created_at)
        if value is None:
            if x.created_at > self.started:
                value = Value(x.shape, x.dtype, "constant", x.data)
            else:
                if x.requires_grad and x.grad is not None:
                    raise RecordingError(
                        "a Parameter has a gradient from before the compiled function was called: "
                        "make the step inside the function, or call optimizer.zero_grad() first"
                    )
                value = Value(x.shape, x.dtype, "state", x.data, x)
                if isinstance(x, Parameter):
                    for factor in ("learning_rate_factor", "l2_factor"):
                        self.guards.append((x, factor, getattr(x, factor)))
            self._remember(x, value)
        if value in self.stale:
            raise RecordingError(
                f"{users_line()} uses a view of a Tensor that was assigned a new value in between; "
                "take the view again, or a .copy() before the assignment"
            )
        return value

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Note one primitive, or one assignment."""
        values = [self.value_of(x) for x in inputs]
        if primitive.kind == "assign":
            self._assign(values[0], inputs[0], values[1])
            return
        output = Value(out.shape, out.dtype)
        self.program.steps.append(
            Instruction(primitive, values, dict(attributes), output, self.current_phase)
        )
        if primitive.kind == "view":
            self.views.setdefault(values[0], []).append(output)
        self._remember(out, output)

    def _assign(self, old: Value, target: Tensor, new: Value) -> None:
        state = next((s for s in self.program.updates if s.tensor is target), None)
        if state is None:
            state = old
            if state.kind != "state":
                raise RecordingError(
                    f"{users_line()} assigns to a Tensor made inside the compiled function; "
                    "compute a new Tensor instead, or make it outside"
                )
        waiting = list(self.views.get(old, []))
        while waiting:
            view = waiting.pop()
            self.stale[view] = users_line()
            waiting.extend(self.views.get(view, []))
        # From here on the Tensor stands for a value of its own, so that later views of it are known
        # to be views of the Tensor and not of what was assigned.
        assigned = Value(new.shape, new.dtype)
        self.program.steps.append(Instruction(detach, [new], {}, assigned, self.current_phase))
        self.program.updates[state] = assigned
        self.values[target.created_at] = assigned

    def before_assign(self, x: Tensor) -> None:
        """Note the value of a Tensor that is about to be assigned another."""
        if x.created_at <= self.started and id(x) not in self.before:
            self.before[id(x)] = (x, devices.copy(x.data))

    def before_draw(self, generator: Generator) -> None:
        """Note the state of a Generator that is about to be drawn from."""
        if id(generator) not in self.before:
            self.before[id(generator)] = (generator, generator.state_dict())

    def rewind(self) -> None:
        """Undo what the recorded call did to Tensors and Generators outside of it."""
        for changed, before in self.before.values():
            if isinstance(changed, Generator):
                changed.load_state_dict(before)
            else:
                devices.write(changed.data, before)
                mark_assigned(changed)

    def refuse_reading(self, x: Tensor, reader: str) -> NoReturn:
        """Refuse to hand a value to Python while recording."""
        raise RecordingError(
            f"{users_line()} reads the value of a Tensor ({reader}) inside a compiled function. A replay "
            "repeats the recorded operations and not the Python code around them, so Python cannot "
            "decide by values: use minidl.where, return the Tensor, or take this part out of the function"
        )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Label what is recorded inside."""
        outer, self.current_phase = self.current_phase, name
        try:
            yield
        finally:
            self.current_phase = outer

    def guard(self, owner: Any, *names: str) -> None:
        """Record anew if a plain setting or a Parameter among an object's attributes is replaced later."""
        for name in dict.fromkeys((*vars(owner), *names)):
            value = getattr(owner, name)
            if value is None or isinstance(value, (bool, int, float, str, Parameter)):
                self.guards.append((owner, name, value))

    def gradients(self) -> list[Tensor]:
        """Return the outside leaves that the function left with a gradient it computed."""
        return [
            value.tensor
            for value in self.values.values()
            if value.kind == "state"
            and value.tensor is not None
            and value.tensor.grad is not None
            and value.tensor.grad.created_at in self.values
        ]

    def release(self) -> None:
        """Make results of the recording unusable outside: later replays do not compute them anew."""
        for reference in self.made:
            x = reference()
            if x is not None:
                x.data = _Gone()
                x.inputs = None

    def finish(self, outputs: list[Tensor]) -> Program:
        """Return the Program of everything recorded, with these outputs."""
        self.program.outputs = [self.value_of(x) for x in outputs]
        return self.program
