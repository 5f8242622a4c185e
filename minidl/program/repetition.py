"""Whether a function does the same when it runs again: its operations, and the attributes that it reads."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minidl import devices
from minidl.program.guarded import same
from minidl.tracking import Tracked

if TYPE_CHECKING:
    from minidl.program.program import Value
    from minidl.program.recorder import Place, Recorder


class _Probe:
    """In the place of an attribute of a class: notes which objects are asked for it before it is set."""

    def __init__(self, name: str, read: set[tuple[int, str]]):
        self.name, self.read = name, read
        self.written: set[int] = set()

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is not None:
            if id(owner) not in self.written:
                self.read.add((id(owner), self.name))
            if self.name in vars(owner):
                return vars(owner)[self.name]
        for base in kind.__mro__:
            inherited = vars(base).get(self.name, self)
            if not isinstance(inherited, _Probe):
                getter = getattr(type(inherited), "__get__", None)
                return inherited if getter is None else getter(inherited, owner, kind)
        raise AttributeError(f"{kind.__name__!r} object has no attribute {self.name!r}")

    def __set__(self, owner: Any, value: Any) -> None:
        self.written.add(id(owner))
        vars(owner)[self.name] = value

    def __delete__(self, owner: Any) -> None:
        self.written.add(id(owner))
        del vars(owner)[self.name]


@contextmanager
def probing(written: list[tuple[Tracked, str]]) -> Iterator[set[tuple[int, str]]]:
    """Within a ``with`` block, note which of several attributes are read before they are set.

    Yields the set of their (id of the owner, name).
    """
    read: set[tuple[int, str]] = set()
    classes = {
        (type(owner), name): _Probe(name, read)
        for owner, name in written
        if name not in vars(type(owner)) and not hasattr(getattr(type(owner), name, None), "__set__")
    }
    read |= {(id(owner), name) for owner, name in written if (type(owner), name) not in classes}
    for (kind, name), probe in classes.items():
        setattr(kind, name, probe)
    try:
        yield read
    finally:
        for kind, name in classes:
            delattr(kind, name)


def difference(first: Recorder, second: Recorder) -> Place | None:
    """Return the line at which two recordings of one function differ, or None if they do not."""
    same_value: dict[Value, Value] = {}

    def are_same(a: Value, b: Value) -> bool:
        if a.kind != b.kind or a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.kind == "state":
            return a.tensor is b.tensor
        if a.kind == "constant":
            x, y = devices.to_numpy(a.array), devices.to_numpy(b.array)
            return x is y or x.tobytes() == y.tobytes()
        return same_value.setdefault(a, b) is b

    steps = zip(first.program.steps, second.program.steps, second.notes.steps, strict=False)
    for one, other, place in steps:
        for a, b in zip(one.inputs, other.inputs, strict=False):
            if not are_same(a, b):
                return second.notes.constants.get(b, place)
        attributes, others = one.attributes, other.attributes  # type: ignore[union-attr]
        if (
            one.primitive is not other.primitive  # type: ignore[union-attr]
            or len(one.inputs) != len(other.inputs)
            or attributes.keys() != others.keys()
            or not all(_does_the_same(attributes[name], others[name]) for name in attributes)
        ):
            return place
        same_value[one.outputs[0]] = other.outputs[0]
    longer = max(first, second, key=lambda recorder: len(recorder.program.steps))
    shorter = min(len(first.program.steps), len(second.program.steps))
    if len(longer.program.steps) > shorter:
        return longer.notes.steps[shorter]
    return None


def _does_the_same(a: Any, b: Any) -> bool:
    """Return whether an attribute of a step means the same in two recordings, each of which made it anew."""
    if not (isinstance(a, types.FunctionType) and isinstance(b, types.FunctionType)):
        return same(a, b)
    return (
        a.__code__ is b.__code__
        and len(a.__closure__ or ()) == len(b.__closure__ or ())
        and all(
            _does_the_same(x.cell_contents, y.cell_contents)
            for x, y in zip(a.__closure__ or (), b.__closure__ or (), strict=True)
        )
    )


def same_steps(first: Recorder, second: Recorder) -> bool:
    """Return whether two recordings consist of the same operations, whatever these compute with."""
    steps, others = first.program.steps, second.program.steps
    return len(steps) == len(others) and all(
        a.operation is b.operation
        and [(x.shape, x.dtype) for x in a.outputs] == [(x.shape, x.dtype) for x in b.outputs]
        for a, b in zip(steps, others, strict=True)
    )
