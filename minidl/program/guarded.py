"""One thing that a compiled function may rely on: what it held when it was seen, and what it holds now."""

from __future__ import annotations

import array
import random
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from minidl import devices
from minidl.tracking import MISSING


def same(a: Any, b: Any) -> bool:
    """Return whether two values of attributes or variables mean the same, to the bit."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return bool(a.hex() == b.hex())  # 0.0 is not -0.0, and NaN is NaN
    if isinstance(a, numpy.generic):
        return bool(a.tobytes() == b.tobytes())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, slice):
        return same((a.start, a.stop, a.step), (b.start, b.stop, b.step))
    if isinstance(a, types.FunctionType):
        return _is_same_function(a, b)
    if isinstance(a, types.MethodType):
        return a.__self__ is b.__self__ and a.__func__ is b.__func__
    return isinstance(a, (bool, int, complex, str, bytes, numpy.dtype, range, frozenset)) and bool(a == b)


def _is_same_function(a: types.FunctionType, b: types.FunctionType) -> bool:
    """Return whether two functions have the same code, and what they read besides means the same."""
    # A variable of the other function could be changed later, which nobody would notice: only shared ones do.
    return (
        a.__code__ is b.__code__
        and a.__globals__ is b.__globals__
        and same(a.__defaults__, b.__defaults__)
        and not (a.__kwdefaults__ or b.__kwdefaults__ or vars(a) or vars(b))
        and all(x is y for x, y in zip(a.__closure__ or (), b.__closure__ or (), strict=True))
    )


@dataclass(eq=False)
class Guarded:
    """Something that can change, what it held when it was seen, and how a message calls it.

    ``read`` returns what it holds now, as a tuple; ``write`` puts such a tuple back.
    """

    name: str
    read: Callable[[], tuple[Any, ...]]
    write: Callable[[tuple[Any, ...]], None]
    kind: str = ""
    of: Any = None
    seen: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        self.seen = self.read()

    def difference(self) -> str | None:
        """Return how it differs from what was seen, or None."""
        now = self.read()
        if len(now) == len(self.seen) and all(map(same, now, self.seen)):
            self.seen = now  # equal values that are other objects: the next comparison is by identity
            return None
        changed = [(a, b) for a, b in zip(self.seen, now, strict=False) if not same(a, b)]
        if len(now) == len(self.seen) == 1 and all(map(is_short, (*self.seen, *now))):
            return f"{self.name} was {self.seen[0]!r} and is {now[0]!r}"
        if changed and all(map(is_short, changed[0])):
            return f"{self.name} held {changed[0][0]!r} and holds {changed[0][1]!r}"
        return f"{self.name} was changed"


def is_short(value: Any) -> bool:
    """Return whether a message can show a value."""
    return isinstance(value, (bool, int, float, str)) and len(repr(value)) < 40


def guarded_sequence(name: str, x: Any) -> Guarded:
    """Return the guard of the items of a list or deque."""

    def write(seen: tuple[Any, ...]) -> None:
        x.clear()
        x.extend(seen)

    return Guarded(name, lambda: tuple(x), write, "sequence", x)


def guarded_mapping(name: str, x: Any) -> Guarded:
    """Return the guard of the keys and values of a dict."""

    def write(seen: tuple[Any, ...]) -> None:
        if isinstance(x, types.MappingProxyType):
            return  # the dict behind it is found, and put back, where it was changed
        x.clear()
        x.update(zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True))

    return Guarded(name, lambda: (*x.keys(), *x.values()), write, "mapping", x)


def guarded_set(name: str, x: Any) -> Guarded:
    """Return the guard of the members of a set."""

    def write(seen: tuple[Any, ...]) -> None:
        x.clear()
        x.update(seen[0])

    return Guarded(name, lambda: (frozenset(x),), write)


def _contents(x: numpy.ndarray) -> tuple[Any, ...]:
    return (x.shape, x.dtype, x.tobytes())


def guarded_array(name: str, x: Any) -> Guarded:
    """Return the guard of an array: its shape, dtype and bytes, and the mask of a masked one."""

    def read() -> tuple[Any, ...]:
        host: Any = devices.to_numpy(x)
        is_masked = type(host) is not numpy.ndarray and isinstance(host, numpy.ma.MaskedArray)
        parts = [host.mask, host] if is_masked else [host]
        # As plain arrays: NumPy's constant `masked` has no bytes of its own.
        return tuple(part for array in map(numpy.asarray, parts) for part in _contents(array))

    def write(seen: tuple[Any, ...]) -> None:
        if read() != seen:
            *mask, shape, dtype, contents = seen
            values = numpy.frombuffer(contents, dtype).reshape(shape)
            devices.write(x, devices.to_device(values, devices.device_of(x)))
            if mask:
                x.mask = numpy.frombuffer(mask[2], mask[1]).reshape(mask[0])

    return Guarded(name, read, write)


def guarded_bytes(name: str, x: Any) -> Guarded:
    """Return the guard of a bytearray or an array of the module array."""

    def write(seen: tuple[Any, ...]) -> None:
        if isinstance(x, memoryview):
            x.cast("B")[:] = seen[0]
        else:
            x[:] = type(x)(seen[0]) if isinstance(x, bytearray) else array.array(x.typecode, seen[0])

    return Guarded(name, lambda: (bytes(x),), write)


def guarded_cell(name: str, cell: types.CellType) -> Guarded:
    """Return the guard of a closure variable."""

    def read() -> tuple[Any, ...]:
        try:
            return (cell.cell_contents,)
        except ValueError:  # not bound yet
            return (MISSING,)

    def write(seen: tuple[Any, ...]) -> None:
        if seen[0] is not MISSING:
            cell.cell_contents = seen[0]

    return Guarded(name, read, write, "cell", cell)


def guarded_item(name: str, namespace: dict[str, Any], key: str) -> Guarded:
    """Return the guard of a name in a namespace: a global, or an attribute."""

    def write(seen: tuple[Any, ...]) -> None:
        if seen[0] is MISSING:
            namespace.pop(key, None)
        else:
            namespace[key] = seen[0]

    return Guarded(name, lambda: (namespace.get(key, MISSING),), write, "item", (namespace, key))


def guarded_slot(name: str, owner: Any, key: str) -> Guarded:
    """Return the guard of an attribute that lies in a slot."""

    def write(seen: tuple[Any, ...]) -> None:
        if getattr(owner, key, MISSING) is not seen[0] and seen[0] is not MISSING:
            object.__setattr__(owner, key, seen[0])

    return Guarded(name, lambda: (getattr(owner, key, MISSING),), write)


def guarded_function(name: str, x: types.FunctionType) -> Guarded:
    """Return the guard of the code and the default arguments of a function."""

    def write(seen: tuple[Any, ...]) -> None:
        x.__code__, x.__defaults__, x.__kwdefaults__ = seen

    return Guarded(name, lambda: (x.__code__, x.__defaults__, x.__kwdefaults__), write, "function", x)


def guarded_fixed_item(name: str, kind: type, key: str) -> Guarded:
    """Return the guard of one attribute of a class, which is never put back."""
    return Guarded(name, lambda: (vars(kind).get(key),), lambda seen: None, "item", (vars(kind), key))


def guarded_class(name: str, x: type) -> Guarded:
    """Return the guard of all attributes of a class, which are never put back."""
    attributes = vars(x)
    read = lambda: (*attributes.keys(), *attributes.values())
    return Guarded(name, read, lambda seen: None, "mapping", attributes)


def guarded_type(name: str, x: Any) -> Guarded:
    """Return the guard of which class an object is of."""

    def write(seen: tuple[Any, ...]) -> None:
        if type(x) is not seen[0]:
            x.__class__ = seen[0]

    return Guarded(f"the class of {name}", lambda: (type(x),), write, "type", x)


def guarded_bases(name: str, x: type) -> Guarded:
    """Return the guard of the classes that a class inherits from, which are never put back."""
    return Guarded(f"the bases of {name}", lambda: (x.__mro__,), lambda seen: None, "bases", x)


def guarded_random_state(name: str, read: Callable[[], Any], write: Callable[[Any], None]) -> Guarded:
    """Return the guard of a source of random numbers, by the text of its state."""
    state = read()
    return Guarded(name, lambda: (repr(read()),), lambda seen: write(state))


def shared_random_states() -> list[Guarded]:
    """Return the guards of the random numbers that everybody shares."""
    legacy: Any = numpy.random.mtrand._rand
    state = legacy.get_state()
    return [
        Guarded("random", lambda: (random.getstate(),), lambda seen: random.setstate(seen[0])),
        Guarded(
            "numpy.random",
            lambda: (legacy.get_state()[1].tobytes(), *legacy.get_state()[2:]),
            lambda seen: legacy.set_state(state),
        ),
    ]
