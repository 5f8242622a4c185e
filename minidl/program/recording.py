"""A recording: one program of a compiled function, and everything under which it may be replayed."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import devices
from minidl.errors import RecordingError
from minidl.program.arguments import rebuilt, tensors_in
from minidl.program.executor import Executor
from minidl.program.guards import Surroundings
from minidl.program.program import Program, Value
from minidl.program.recorder import Gradient, Recorder, ValueCheck
from minidl.tensor import Tensor, mark_assigned
from minidl.tracking import MISSING, Tracked, changes

_get_gradient = operator.attrgetter("_grad")
_is_none = functools.partial(operator.is_, None)


@dataclass(eq=False)
class GradientRule:
    """What a call does to the ``.grad`` of one leaf: which there must be before, which there is after.

    ``leaf`` is a Tensor, or the position of an argument; ``output`` the place of the new gradient among the
    outputs, None for none, "as before" for the same.
    """

    leaf: Tensor | int
    before: tuple[Any, ...] | None
    gradient: Gradient
    output: int | str | None

    @property
    def read(self) -> Value | None:
        """The input of the program that takes the gradient in, if it is read."""
        return self.gradient.value

    def tensor(self, leaves: list[Any]) -> Tensor:
        """Return the leaf."""
        return leaves[self.leaf] if isinstance(self.leaf, int) else self.leaf

    def fits(self, leaves: list[Any]) -> bool:
        """Return whether the leaf has such a gradient as it had when the function was recorded."""
        gradient = self.tensor(leaves)._grad
        return (None if gradient is None else _kind(gradient)) == self.before


@dataclass(eq=False)
class AttributeRule:
    """An attribute that a call sets, to a nest of new results or to a constant."""

    owner: Tracked
    name: str
    nest: Any
    is_read: bool
    made: set[int]  # the ids of the Tensors in it that a replay makes; others stay
    first: int = 0  # of these among the outputs

    def results(self) -> list[Tensor]:
        """Return the Tensors in it that a replay makes."""
        return [x for x in tensors_in(self.nest) if id(x) in self.made]

    def set(self, results: list[Tensor]) -> None:
        """Set the attribute to what a replay gave."""
        remaining = iter(results[self.first :])
        replace = lambda leaf: next(remaining) if id(leaf) in self.made else leaf
        vars(self.owner)[self.name] = rebuilt(self.nest, replace)
        changes.count += self.is_read


@dataclass(eq=False)
class Recording:
    """One program of a compiled function, ready to be replayed, and what it takes for granted.

    Attributes
    ----------
    original : the program as it was recorded
    result : what the function returned
    outside : Tensors from outside that it reads; ``updated`` are those that it assigns
    arguments : those that must be these very Tensors, by position
    """

    program: Program
    original: Program
    executor: Executor
    result: Any
    differentiable: list[bool]  # which of the results have a tape
    surroundings: Surroundings
    outside: list[Tensor]
    updated: list[Tensor]
    arguments: dict[int, Tensor]
    gradients: list[GradientRule]
    attributes: list[AttributeRule]
    objects: list[Any]  # whose ids are part of the key
    numbers: list[tuple[Callable[[list[float]], float], Value]]  # inputs, and how they follow from floats
    checks: list[ValueCheck]
    backward: dict[int, Any] = field(default_factory=dict)  # compiled functions for the gradients of results

    def __post_init__(self) -> None:
        self.surroundings.compare_arrays(self.outside)
        self._ids = {id(x) for x in self.outside} | {id(x._array) for x in self.outside}
        own = [not isinstance(rule.leaf, int) and rule.before is None for rule in self.gradients]
        self._without_gradient = [
            rule.leaf for rule, is_own in zip(self.gradients, own, strict=True) if is_own
        ]
        self._other_gradients = [rule for rule, is_own in zip(self.gradients, own, strict=True) if not is_own]
        self._shared_gradients = [
            (a, b)
            for a, b in itertools.combinations(self._other_gradients, 2)
            if a.gradient.before is b.gradient.before is not None
        ]
        self._ranges = [byte_range(x._array) for x in self.updated if isinstance(x._array, numpy.ndarray)]

    def is_valid(self, leaves: list[Any], numbers: list[float]) -> bool:
        """Return whether everything that the recording took for granted is still so."""
        return (
            (not self.numbers or self._can_compute(numbers))
            and all(map(_is_none, map(_get_gradient, self._without_gradient)))
            and (not self._other_gradients or self._gradients_fit(leaves))
            and self._arguments_fit(leaves)
            and self.surroundings.hold()
        )

    def _can_compute(self, numbers: list[float]) -> bool:
        """Return whether Python's arithmetic with the floats of a call raises nothing."""
        try:
            return all(type(compute(numbers)) is float for compute, _ in self.numbers)
        except ArithmeticError:
            return False

    def _gradients_fit(self, leaves: list[Any]) -> bool:
        """Return whether arguments, and leaves that had gradients, have such as they had."""
        return all(rule.fits(leaves) for rule in self._other_gradients) and all(
            a.tensor(leaves)._grad is b.tensor(leaves)._grad for a, b in self._shared_gradients
        )

    def _arguments_fit(self, leaves: list[Any]) -> bool:
        for i, leaf in enumerate(leaves):
            if i in self.arguments:
                if leaf is not self.arguments[i]:
                    return False
            elif id(leaf) in self._ids or id(array_of(leaf)) in self._ids or is_within(leaf, self._ranges):
                return False
        return True

    def difference(self, leaves: list[Any]) -> str:
        """Return in words what is no longer as it was recorded."""
        for rule in self.gradients:
            if not rule.fits(leaves):
                x = rule.tensor(leaves)
                had = "had no" if rule.before is None else "had a"
                return f"a Tensor of shape {x.shape} {had} gradient before"
        if not self._arguments_fit(leaves):
            return "an argument shares memory with other Tensors than before"
        return self.surroundings.difference() or "something that the function reads was changed"

    # --- replaying --------------------------------------------------------------------------------

    def check(self, leaves: list[Any]) -> None:
        """Make the checks of values that the function makes of its arguments."""
        for check in self.checks:
            array = array_of(leaves[check.position])
            if not check.holds(array):
                raise ValueError(check.message(array))

    def fill(self, leaves: list[Any], numbers: list[float]) -> None:
        """Copy the arguments, gradients and numbers of a call to the inputs of the program."""
        arrays = [array_of(leaf) for i, leaf in enumerate(leaves) if i not in self.arguments]
        arrays += [
            rule.tensor(leaves)._grad._array  # type: ignore[union-attr]
            for rule in self.gradients
            if rule.read is not None
        ]
        values = self.program.inputs
        for value, array in zip(values, arrays, strict=False):
            with devices.current(value.array):
                devices.array_module(value.array).copyto(value.array, array.reshape(value.shape))
        for compute, value in self.numbers:
            with devices.current(value.array):
                value.array[...] = compute(numbers)

    def collect(self, leaves: list[Any]) -> tuple[Any, list[Tensor]]:
        """Return the result of a replay, and all outputs; set the gradients and attributes that it sets."""
        for x in self.updated:
            mark_assigned(x)
        outputs = [Tensor(devices.copy(self.executor.array(value))) for value in self.program.outputs]
        for rule in self.gradients:
            if rule.output is None:
                rule.tensor(leaves)._grad = None
            elif isinstance(rule.output, int):
                rule.tensor(leaves)._grad = outputs[rule.output]
        for attribute in self.attributes:
            attribute.set(outputs)
        remaining = iter(outputs)
        same_object = {id(x) for x in self.outside}  # a Tensor from outside is returned itself

        def replace(leaf: Any) -> Any:
            result = next(remaining)
            return leaf if id(leaf) in same_object else result

        return rebuilt(self.result, replace), outputs


@dataclass(eq=False)
class Run:
    """A function that has run once while it was recorded."""

    recorder: Recorder
    inputs: list[Tensor]
    result: Any
    outputs: list[Tensor]


def _kind(x: Tensor) -> tuple[Any, ...]:
    return (x.shape, x.dtype, x.device)


def byte_range(array: numpy.ndarray) -> tuple[int, int]:
    """Return the addresses between which an array lies."""
    return numpy.lib.array_utils.byte_bounds(array)


def is_within(leaf: Any, ranges: list[tuple[int, int]]) -> bool:
    """Return whether an argument is a view into one of several ranges of memory."""
    array = array_of(leaf)
    if not ranges or not isinstance(array, numpy.ndarray) or array.base is None:
        return False
    low, high = byte_range(array)
    return any(low < end and start < high for start, end in ranges)


def array_of(leaf: Any) -> Any:
    """Return the array of a Tensor, or an array itself."""
    return leaf._array if isinstance(leaf, Tensor) else leaf


def shared_arguments(
    recorder: Recorder, leaves: list[Any], identical: dict[int, Tensor]
) -> dict[int, Tensor]:
    """Return the arguments, by position, that are state of the function as well: no copy will do for them."""
    outside = {id(x) for x in recorder.outside}
    updated = [state.array for state in recorder.program.updates if isinstance(state.array, numpy.ndarray)]
    shared: dict[int, Tensor] = {}
    for i, leaf in enumerate(leaves):
        if i in identical:
            continue
        if id(leaf) in outside:
            shared[i] = leaf
        elif any(array_of(leaf) is array for array in updated) or is_within(
            leaf, [byte_range(a) for a in updated]
        ):
            if not isinstance(leaf, Tensor):
                raise RecordingError(
                    f"argument {i} of a compiled function shares its memory with a Tensor that the function "
                    "assigns: pass a copy"
                )
            shared[i] = leaf
    return shared


def gradient_rules(run: Run, outputs: list[Tensor]) -> list[GradientRule]:
    """Return what a run did to gradients; new ones are appended to the outputs."""
    positions = {id(x): i for i, x in enumerate(run.inputs)}
    places: dict[int, int] = {}  # among the outputs, of new gradients
    rules = []
    for gradient in run.recorder.gradients.values():
        after = gradient.leaf._grad
        output: int | str | None = None if after is None else "as before"
        if after is not None and after is not gradient.before:
            output = places.setdefault(id(after), len(outputs))
            if output == len(outputs):
                outputs.append(after)
        before = None if gradient.before is None else _kind(gradient.before)
        leaf: Tensor | int = positions.get(id(gradient.leaf), gradient.leaf)
        rules.append(GradientRule(leaf, before, gradient, output))
    return rules


def attribute_rules(run: Run, read: set[tuple[int, str]]) -> list[AttributeRule] | None:
    """Return the attributes that a run set; None if one of them holds what cannot be made again."""
    rules = []
    for owner, name, before in run.recorder.attributes.values():
        after = vars(owner).get(name, MISSING)
        if after is before:
            continue
        if after is MISSING or not _is_nest(after, run.recorder):
            return None
        made = {id(x) for x in tensors_in(after) if run.recorder.is_made_here(x)}
        rules.append(AttributeRule(owner, name, after, (id(owner), name) in read, made))
    return rules


def _is_nest(x: Any, recorder: Recorder) -> bool:
    """Return whether a value is made of plain values, results and Tensors from outside.

    A Parameter, or another leaf to be trained, that was made inside is an object of its own.
    """
    if type(x) in (list, tuple):
        return all(_is_nest(item, recorder) for item in x)
    if type(x) is dict:
        return all(_is_nest(item, recorder) for item in x.values())
    if isinstance(x, Tensor):
        return not (recorder.is_made_here(x) and x.requires_grad and x.primitive is None)
    return isinstance(x, (bool, int, float, complex, str, bytes, numpy.dtype, numpy.generic, type(None)))
