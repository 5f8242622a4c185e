"""The recorder: told by apply(), assign() and attributes what happens, it writes a Program.

It also refuses what a record cannot honour: Python reading a value that the next replay will
compute anew, or a view that an assignment made stale.
"""

from __future__ import annotations

import linecache
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy

from minidl import devices
from minidl.errors import RecordingError
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import detach
from minidl.program.lowered.check import check_
from minidl.program.program import Instruction, Program, Value
from minidl.program.shape_inference import NeedsValues, has_inference, result_without_values
from minidl.random.generator import Generator
from minidl.tensor import Tensor, mark_assigned
from minidl.tracking import MISSING, TracedNumber, Tracked, changes

#: The folder of minidl: frames of code in it are not the user's.
PACKAGE = str(Path(__file__).parent.parent)

#: A place in a source file: its name and the number of a line.
Place = tuple[str, int]


def users_place(depth: int = 1) -> Place:
    """Return the place outside minidl that is being executed."""
    frame = sys._getframe(depth)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def described(place: Place) -> str:
    """Return file, number and text of a line."""
    name, number = place
    text = linecache.getline(name, number).strip()
    return f"{Path(name).name}, line {number}" + (f": {text}" if text else "")


def users_line() -> str:
    """Return file, number and text of the line outside minidl that is being executed."""
    return described(users_place(2))


@dataclass(eq=False)
class ValueCheck:
    """A check of the values of an argument, by its position; see value_checks.check_values."""

    position: int
    holds: Callable[[numpy.ndarray], bool]
    message: Callable[[numpy.ndarray], str]


@dataclass
class Gradient:
    """The ``.grad`` of a leaf around a recorded call.

    ``before`` and ``after`` are Tensors or None; ``value`` is the program's input that stands for ``before``,
    once it is read.
    """

    leaf: Tensor
    before: Tensor | None
    after: Tensor | None = None
    value: Value | None = None


class ChangeLog:
    """Notes what a function is about to change outside of it, and can undo it."""

    current_phase = "forward"

    def __init__(self) -> None:
        self.started = Tensor(numpy.empty(0)).created_at  # Tensors made from now on are not outside state
        self.arrays: dict[int, tuple[Tensor, Any]] = {}
        self.generators: dict[int, tuple[Generator, Any]] = {}
        self.gradients: dict[int, Gradient] = {}
        self.attributes: dict[tuple[int, str], tuple[Tracked, str, Any]] = {}

    def before_assign(self, x: Tensor) -> None:
        """Note the value of a Tensor that is about to be assigned another."""
        if id(x) not in self.arrays:  # a view made inside, too, may lie in memory from outside
            self.arrays[id(x)] = (x, devices.copy(x._array))

    def before_draw(self, generator: Generator) -> None:
        """Note the state of a Generator that is about to be drawn from."""
        if id(generator) not in self.generators:
            self.generators[id(generator)] = (generator, generator.state_dict())

    def before_seeding(self, generator: Generator) -> None:
        """Note the state of a Generator that is about to be given another one."""
        self.before_draw(generator)

    def before_gradient(self, x: Tensor) -> None:
        """Note the gradient of a Tensor that is about to be read or replaced."""
        if x.created_at <= self.started and id(x) not in self.gradients:
            self.gradients[id(x)] = Gradient(x, x._grad)

    def before_attribute(self, owner: Tracked, name: str) -> None:
        """Note an attribute that is about to be set or deleted."""
        if (id(owner), name) not in self.attributes:
            self.attributes[id(owner), name] = (owner, name, vars(owner).get(name, MISSING))

    def before_data(self, x: Tensor) -> None:
        """Take note that the array of a Tensor is asked for."""

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Take note that Python reads the values of a Tensor."""

    def infer(self, primitive: Primitive, arrays: list[Any], attributes: dict[str, Any]) -> Any:
        """Let a primitive be computed."""

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Take note of a primitive that has been applied."""

    def check(
        self,
        x: Tensor,
        holds: Callable[[numpy.ndarray], bool],
        message: Callable[[numpy.ndarray], str],
    ) -> bool:
        """Let values be checked."""
        return True

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Label what is recorded inside."""
        outer, self.current_phase = self.current_phase, name
        try:
            yield
        finally:
            self.current_phase = outer

    def rewind(self) -> None:
        """Undo what was noted: arrays, Generators, gradients and attributes become what they were."""
        for x, before in reversed(self.arrays.values()):  # some may share memory
            devices.write(x._array, before)
            mark_assigned(x)
        for generator, state in self.generators.values():
            generator.load_state_dict(state)
        for gradient in self.gradients.values():
            gradient.leaf._grad = gradient.before
        for owner, name, value in self.attributes.values():
            set_attribute(owner, name, value)


def set_attribute(owner: Tracked, name: str, value: Any) -> None:
    """Set an attribute, or delete it for MISSING, as if it had been set from outside."""
    if value is MISSING:
        vars(owner).pop(name, None)
    else:
        vars(owner)[name] = value
    changes.count += 1


@dataclass
class _Notes:
    """Where in the user's code a program comes from: the places of its steps and of its constants."""

    steps: list[Place] = field(default_factory=list)
    constants: dict[Value, Place] = field(default_factory=dict)


class Recorder(ChangeLog):
    """Writes down primitives as they are applied; `finish` gives the Program.

    Parameters
    ----------
    inputs : Tensors that stand for the arguments
    arguments : all of these, and those that are state, by their positions
    computes : whether results have values; without, Tensors are not written either, and NeedsValues is raised
        where a primitive can only be computed

    Attributes
    ----------
    needs_values : whether that has happened, even if the function caught it
    """

    is_rehearsal = True  # what is computed now is thrown away

    def __init__(self, inputs: list[Tensor], arguments: list[Tensor] | None = None, computes: bool = True):
        super().__init__()
        self.computes, self.needs_values = computes, False
        self.checks: list[ValueCheck] = []
        self.checked: list[Value] = []
        self.refusal: RecordingError | None = None
        self._positions = {id(x): i for i, x in enumerate(inputs if arguments is None else arguments)}
        self._numbers: dict[tuple[int, Any, str], tuple[TracedNumber, Tensor]] = {}
        self.program = Program([], [], [], {})
        self.notes = _Notes()
        self.values: dict[int, Value] = {}  # by the Tensor's created_at
        self.made: list[weakref.ref[Tensor]] = []  # weak, so that recording needs no more memory than eager
        self.outside: list[Tensor] = []  # state, and what shares its memory
        self.stale: dict[Value, str] = {}
        self.views: dict[Value, list[Value]] = {}
        self._by_memory: dict[Any, Tensor] = {}
        self._updated: dict[int, Value] = {}  # the state of an assigned Tensor, by its created_at
        for x in inputs:
            value = Value(x.shape, x.dtype, "input", x._array)
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
                value = Value(x.shape, x.dtype, "constant", x._array)
                self.notes.constants[value] = users_place(2)
            else:
                value = self._from_outside(x)
            self._remember(x, value)
        if value in self.stale:
            self.refuse(
                f"{users_line()} uses a view of a Tensor that was assigned a new value in between; "
                "take the view again, or a .copy() before the assignment"
            )
        return value

    def _from_outside(self, x: Tensor) -> Value:
        for gradient in self.gradients.values():
            if gradient.before is x:
                gradient.value = Value(x.shape, x.dtype, "input", devices.copy(x._array))
                self.program.inputs.append(gradient.value)
                return gradient.value
        if x.requires_grad and x.primitive is not None:
            self.refuse(
                f"{users_line()} uses the result of '{x.primitive.name}', which was computed outside of the "
                "compiled function and has its tape there: compute it inside, or use .detach() of it"
            )
        self.outside.append(x)
        twin = self._by_memory.setdefault(_memory(x._array), x)
        if twin is not x:  # another Tensor of the same array: one piece of state
            return self.value_of(twin)
        return Value(x.shape, x.dtype, "state", x._array, x)

    def infer(self, primitive: Primitive, arrays: list[Any], attributes: dict[str, Any]) -> Any:
        """Return an array without values where nothing is computed."""
        if self.computes:
            return None
        try:
            return result_without_values(primitive, arrays, attributes)
        except NeedsValues:
            self.needs_values = True
            raise

    def before_assign(self, x: Tensor) -> None:
        """Note the value of a Tensor that is about to be written."""
        if self.computes or not has_inference(x._array):
            super().before_assign(x)

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Note one primitive, or one assignment."""
        values = [self.value_of(x) for x in inputs]
        if primitive.kind == "assign":
            self._assign(values[0], inputs[0], values[1])
            return
        output = Value(out.shape, out.dtype)
        self._step(Instruction(primitive, values, dict(attributes), output, self.current_phase))
        if primitive.kind == "view":
            self.views.setdefault(values[0], []).append(output)
        self._remember(out, output)

    def _step(self, step: Instruction) -> None:
        self.program.steps.append(step)
        self.notes.steps.append(users_place(3))

    def _assign(self, old: Value, target: Tensor, new: Value) -> None:
        target = self._by_memory.get(_memory(target._array), target)
        state = self._updated.get(target.created_at)
        if state is None:
            state = old
            if state.kind != "state":
                what = "an argument of" if state.kind == "input" else "a Tensor made inside"
                self.refuse(
                    f"{users_line()} assigns to {what} the compiled function; "
                    "compute a new Tensor instead, or use a Tensor from outside"
                )
            self._updated[target.created_at] = state
        waiting = list(self.views.get(old, []))
        while waiting:
            view = waiting.pop()
            self.stale[view] = users_line()
            waiting.extend(self.views.get(view, []))
        # From here on the Tensor stands for a value of its own, so that later views of it are known
        # to be views of the Tensor and not of what was assigned.
        assigned = Value(new.shape, new.dtype)
        self._step(Instruction(detach, [new], {}, assigned, self.current_phase))
        self.program.updates[state] = assigned
        for x in self.outside:
            if self._by_memory.get(_memory(x._array)) is target:
                self.values[x.created_at] = assigned
        self.values[target.created_at] = assigned

    def before_seeding(self, generator: Generator) -> None:
        """Refuse to give a Generator another state, which a replay would not."""
        self.refuse(
            f"{users_line()} seeds a Generator or loads its state inside a compiled function: do it outside"
        )

    def number_input(self, number: TracedNumber, dtype: Any, device: str) -> Tensor:
        """Return the Tensor that stands for a number, an input of the program."""
        key = (id(number), dtype, device)
        if key not in self._numbers:
            x = Tensor(devices.scalar(number.value, dtype, device).copy())
            value = Value(x.shape, x.dtype, "input", x._array)
            self._remember(x, value)
            self._numbers[key] = (number, x)
        return self._numbers[key][1]

    def numbers(self) -> list[tuple[Callable[[list[float]], float], Value]]:
        """Return how the inputs that stand for numbers are computed from the float arguments of a call."""
        return [(number.compute, self.values[x.created_at]) for number, x in self._numbers.values()]

    def check(
        self,
        x: Tensor,
        holds: Callable[[numpy.ndarray], bool],
        message: Callable[[numpy.ndarray], str],
    ) -> bool:
        """Make a check of values a part of the program; that of an argument comes before all else."""
        position, value = self._positions.get(id(x)), self.value_of(x)
        if position is not None and value.kind == "input":
            self.checks.append(ValueCheck(position, holds, message))
            return True
        output = Value((), numpy.dtype(bool))
        self._step(
            Instruction(check_, [value], {"holds": holds, "message": message}, output, self.current_phase)
        )
        self.checked.append(output)
        return self.computes or value.kind != "result"

    def before_data(self, x: Tensor) -> None:
        """Refuse to hand an array to the user's code while recording."""
        if not sys._getframe(2).f_code.co_filename.startswith(PACKAGE):
            self.refuse_reading(x, ".data")

    def refuse(self, message: str) -> NoReturn:
        """Refuse to go on; this stands even if the function catches the error, as a plain one would not."""
        self.refusal = self.refusal or RecordingError(message)
        raise self.refusal

    def refuse_reading(self, x: Tensor, reader: str) -> NoReturn:
        """Refuse to hand a value to Python while recording."""
        self.refuse(
            f"{users_line()} reads the value of a Tensor ({reader}) inside a compiled function. A replay "
            "repeats the recorded operations and not the Python code around them, so Python cannot "
            "decide by values: use minidl.where, return the Tensor, or take this part out of the function"
        )

    def is_made_here(self, x: Tensor) -> bool:
        """Return whether a Tensor was made, or computed, by the function."""
        return x.created_at > self.started

    def finish(self, outputs: list[Tensor]) -> Program:
        """Return the Program of everything recorded, with these outputs.

        Raises
        ------
        RecordingError
            A Tensor that was assigned shares a part of its memory with another one.
        """
        self.program.outputs = [*map(self.value_of, outputs), *self.checked]
        self.program.inputs += [self.values[x.created_at] for _, x in self._numbers.values()]
        self._refuse_overlaps()
        return self.program

    def _refuse_overlaps(self) -> None:
        """Refuse a Tensor that is assigned and shares a part of its memory with another one from outside."""
        before = [g.before for g in self.gradients.values() if g.value is not None and g.before is not None]
        updated = {id(state.tensor) for state in self.program.updates}
        # Sorted by where they begin, those that overlap follow each other.
        places = sorted(
            ((*_bounds(x._array), i, x) for i, x in enumerate([*self.outside, *before]) if x._array.size),
            key=lambda place: place[:3],
        )
        for i, (_, high, _, x) in enumerate(places):
            for low, _, _, y in places[i + 1 :]:
                if low >= high:
                    break
                is_assigned = id(x) in updated or id(y) in updated
                is_gradient = any(x is g or y is g for g in before)
                is_same_state = _memory(x._array) == _memory(y._array) and not is_gradient
                if is_assigned and not is_same_state and _overlap(x._array, y._array):
                    assigned, other = (x, y) if id(x) in updated else (y, x)
                    raise RecordingError(
                        f"a Tensor of shape {assigned.shape} is assigned inside the compiled function, and "
                        f"one of shape {other.shape} from outside shares a part of its memory: take the view "
                        "inside the function, or use a .copy() of it"
                    )

    def release(self) -> None:
        """Make results of the recording unusable outside: later replays do not compute them anew."""
        problem = RuntimeError(
            "this Tensor was made inside a compiled function and kept outside of it, where replays do not "
            "renew it: return it from the function instead"
        )
        for reference in self.made:
            x = reference()
            if x is not None:
                x._array = devices.Unavailable(x._array, problem)
                x.inputs = None


def _memory(array: Any) -> Any:
    """Return what tells the memory of an array from that of others."""
    if isinstance(array, numpy.ndarray):
        address = array.__array_interface__["data"][0] if array.size else id(array)
        return (address, array.shape, array.strides, array.dtype)
    return (array.data.ptr if array.size else id(array), array.shape, array.strides, array.dtype)


def _bounds(array: Any) -> tuple[int, int]:
    """Return the addresses between which an array lies."""
    if isinstance(array, numpy.ndarray):
        return numpy.lib.array_utils.byte_bounds(array)
    return (array.data.ptr, array.data.ptr + array.nbytes)


def _overlap(a: Any, b: Any) -> bool:
    """Return whether two arrays share memory; where that takes too long to find out, they may."""
    xp = devices.array_module(a)
    if xp is not numpy or devices.array_module(b) is not numpy:
        with devices.current(a):
            return devices.device_of(a) == devices.device_of(b) and bool(xp.may_share_memory(a, b))
    try:
        return bool(numpy.shares_memory(a, b, max_work=100_000))  # type: ignore[arg-type]
    except numpy.exceptions.TooHardError:
        return True
