"""What a recording takes for granted of Python, and whether it still holds.

A compiled function replays Tensor operations. Everything else that decided them is found here, from the
code of the function and of the Python functions it can call: the globals, closure variables, default
arguments and attributes that they read, and what is in these. All of it is compared before each replay.
Attributes of `Tracked` objects are compared only when the counter of changes has moved on; the rest is
compared by identity, a few dozen nanoseconds each.
"""

from __future__ import annotations

import array
import collections
import dis
import enum
import functools
import itertools
import operator
import os
import random
import re
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.mode import mode
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor
from minidl.tracking import MISSING, Tracked, changes

if TYPE_CHECKING:
    from minidl.program.program import Value
    from minidl.program.recorder import Place, Recorder

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib")})

#: Names that read attributes which the code does not spell out.
_DYNAMIC = {"getattr", "hasattr", "vars", "__dict__", "attrgetter", "eval", "exec", "globals", "locals"}

_IMMUTABLE = (
    type(None), bool, int, float, complex, str, bytes, numpy.dtype, numpy.generic, range, slice,
    type(Ellipsis), enum.Enum, types.CodeType, Path,
)  # fmt: skip

#: Attributes of minidl's classes that others may replace.
_REPLACEABLE = {"forward", "training", "__call__", "step", "update", "begin_step", "observe"}

#: Views of dicts, which show their later contents.
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))

_get_array = operator.attrgetter("_array")
_get_flag = operator.attrgetter("requires_grad")
_get_kind = operator.attrgetter("shape", "dtype")


def is_users(namespace: dict[str, Any]) -> bool:
    """Return whether a module belongs to the user: not to minidl, Python or a library that knows no minidl.

    The code of libraries is not followed: it would lead anywhere, and does not change.
    """
    key = id(namespace)
    if key not in _users:
        file = namespace.get("__file__") or ""
        name = namespace.get("__name__") or ""
        if name.partition(".")[0] in ("minidl", "builtins", *sys.stdlib_module_names) and name != "__main__":
            _users[key] = False
        else:
            _users[key] = not file.startswith(_LIBRARIES) or any(
                str(getattr(value, "__module__", None) or getattr(value, "__name__", "")).partition(".")[0]
                == "minidl"
                for value in list(namespace.values())
                if isinstance(getattr(value, "__module__", ""), str | None)
            )
    return _users[key]


#: Whether the module with a namespace, by its id, belongs to the user.
_users: dict[int, bool] = {}


@dataclass
class _Names:
    """What code reads by name."""

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)  # attributes that it sets or deletes
    modules: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)  # that could be names of attributes or modules


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> _Names:
    """Return the names that code reads, the functions inside it included."""
    names = _Names()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL"):
            names.globals.add(instruction.argval)
        elif instruction.opname.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER", "IMPORT_FROM")):
            names.attributes.add(instruction.argval)
        elif instruction.opname in ("STORE_ATTR", "DELETE_ATTR"):
            names.stored.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            names.modules.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _names_in(constant)
            names.globals |= inner.globals
            names.attributes |= inner.attributes
            names.stored |= inner.stored
            names.modules |= inner.modules
            names.texts |= inner.texts
        elif isinstance(constant, tuple):  # of a pattern: case Options(scale=found)
            names.attributes |= {x for x in constant if isinstance(x, str)}
        elif isinstance(constant, str):
            names.texts.add(constant)
            names.attributes |= set(re.findall(r"[.](\w+)", constant)) if "{" in constant else set()
    return names


def same(a: Any, b: Any) -> bool:
    """Return whether two values of attributes or variables mean the same, to the bit."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a.hex() == b.hex()  # 0.0 is not -0.0, and NaN is NaN
    if isinstance(a, numpy.generic):
        return a.tobytes() == b.tobytes()
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


# --- one kind of thing that can change ------------------------------------------------------------


@dataclass(eq=False)
class _Guarded:
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
        if len(now) == len(self.seen) == 1 and all(map(_is_short, (*self.seen, *now))):
            return f"{self.name} was {self.seen[0]!r} and is {now[0]!r}"
        if changed and all(map(_is_short, changed[0])):
            return f"{self.name} held {changed[0][0]!r} and holds {changed[0][1]!r}"
        return f"{self.name} was changed"


def _is_short(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) and len(repr(value)) < 40


def _sequence(name: str, x: Any) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        x.clear()
        x.extend(seen)

    return _Guarded(name, lambda: tuple(x), write, "sequence", x)


def _mapping(name: str, x: Any) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        if isinstance(x, types.MappingProxyType):
            return  # the dict behind it is found, and put back, where it was changed
        x.clear()
        x.update(zip(seen[: len(seen) // 2], seen[len(seen) // 2 :], strict=True))

    return _Guarded(name, lambda: (*x.keys(), *x.values()), write, "mapping", x)


def _set(name: str, x: Any) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        x.clear()
        x.update(seen[0])

    return _Guarded(name, lambda: (frozenset(x),), write)


def _contents(name: str, x: Any) -> _Guarded:
    """Return the guard of an array: its shape, dtype and bytes."""

    def read() -> tuple[Any, ...]:
        host = devices.to_numpy(x)
        return (host.shape, host.dtype, host.tobytes())

    def write(seen: tuple[Any, ...]) -> None:
        if read() != seen:
            shape, dtype, contents = seen
            devices.write(
                x, devices.to_device(numpy.frombuffer(contents, dtype).reshape(shape), devices.device_of(x))
            )

    return _Guarded(name, read, write)


def _bytes(name: str, x: Any) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        if isinstance(x, memoryview):
            x.cast("B")[:] = seen[0]
        else:
            x[:] = type(x)(seen[0]) if isinstance(x, bytearray) else array.array(x.typecode, seen[0])

    return _Guarded(name, lambda: (bytes(x),), write)


def _cell(name: str, cell: types.CellType) -> _Guarded:
    def read() -> tuple[Any, ...]:
        try:
            return (cell.cell_contents,)
        except ValueError:  # not bound yet
            return (MISSING,)

    def write(seen: tuple[Any, ...]) -> None:
        if seen[0] is not MISSING:
            cell.cell_contents = seen[0]

    return _Guarded(name, read, write, "cell", cell)


def _item(name: str, namespace: dict[str, Any], key: str) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        if seen[0] is MISSING:
            namespace.pop(key, None)
        else:
            namespace[key] = seen[0]

    return _Guarded(name, lambda: (namespace.get(key, MISSING),), write, "item", (namespace, key))


def _slot(name: str, owner: Any, key: str) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        if getattr(owner, key, MISSING) is not seen[0] and seen[0] is not MISSING:
            object.__setattr__(owner, key, seen[0])

    return _Guarded(name, lambda: (getattr(owner, key, MISSING),), write)


def _function(name: str, x: types.FunctionType) -> _Guarded:
    def write(seen: tuple[Any, ...]) -> None:
        x.__code__, x.__defaults__, x.__kwdefaults__ = seen

    return _Guarded(name, lambda: (x.__code__, x.__defaults__, x.__kwdefaults__), write, "function", x)


def _fixed_item(name: str, kind: type, key: str) -> _Guarded:
    """Return the guard of one attribute of a class, which is never put back."""
    return _Guarded(name, lambda: (vars(kind).get(key),), lambda seen: None, "item", (vars(kind), key))


def _class(name: str, x: type) -> _Guarded:
    """Return the guard of all attributes of a class, which are never put back."""
    attributes = vars(x)
    read = lambda: (*attributes.keys(), *attributes.values())
    return _Guarded(name, read, lambda seen: None, "mapping", attributes)


def _random_state(name: str, read: Callable[[], Any], write: Callable[[Any], None]) -> _Guarded:
    """Return the guard of a source of random numbers, by the text of its state."""
    state = read()
    return _Guarded(name, lambda: (repr(read()),), lambda seen: write(state))


def _shared_random_states() -> list[_Guarded]:
    """Return the guards of the random numbers that everybody shares."""
    legacy: Any = numpy.random.mtrand._rand
    state = legacy.get_state()
    return [
        _Guarded("random", lambda: (random.getstate(),), lambda seen: random.setstate(seen[0])),
        _Guarded(
            "numpy.random",
            lambda: (legacy.get_state()[1].tobytes(), *legacy.get_state()[2:]),
            lambda seen: legacy.set_state(state),
        ),
    ]


# --- the walk -------------------------------------------------------------------------------------


class Surroundings:
    """Everything outside of a function that its Python code can read, as it is now.

    Parameters
    ----------
    function : what is compiled
    arguments : its arguments that are neither Tensors nor arrays

    Attributes
    ----------
    iterators : names of iterators that it can read, which no replay could advance
    """

    def __init__(self, function: Any, arguments: Any = ()):
        self._names: set[str] = set()  # attributes that code reads
        self._stored: set[str] = set()  # attributes that it sets
        self._is_dynamic = False
        while True:  # the code that is found decides which attributes are looked into, where more code may be
            known = (len(self._names), len(self._stored), self._is_dynamic)
            self._begin()
            self._visit(function, getattr(function, "__qualname__", "the function"))
            self._visit(mode.layer_hook, "the hook of layers")
            for i, argument in enumerate(arguments):
                self._visit(argument, f"argument {i}")
            if known == (len(self._names), len(self._stored), self._is_dynamic):
                break
        self._hook = mode.layer_hook
        self._attributes = {id(owner): dict(vars(owner)) for owner, _ in self._tracked}
        self._types = [type(owner) for owner, _ in self._tracked]
        self._free: set[tuple[int, str]] = set()
        self._arm()
        self._count = changes.count
        self._arrays = list(map(_get_array, self.tensors))
        self._flags = list(map(_get_flag, self.tensors))
        self._kinds = list(map(_get_kind, self.tensors))
        self._factors = [(x, x.learning_rate_factor, x.l2_factor) for x in self.parameters]
        self.draws = _shared_random_states() + self._draws

    def _begin(self) -> None:
        self._seen: dict[int, Any] = {}
        self._classes: set[type] = set()
        self._guards: list[_Guarded] = []
        self._tracked: list[tuple[Tracked, str]] = []
        self._draws: list[_Guarded] = []
        self.tensors: list[Tensor] = []
        self.parameters: list[Parameter] = []
        self.iterators: list[str] = []

    # --- comparing --------------------------------------------------------------------------------

    def hold(self) -> bool:
        """Return whether all is as it was seen; quick where nothing has changed."""
        try:
            is_identical = self._is_identical()
        except (KeyError, ValueError):  # a name or a variable is no longer there
            is_identical = False
        if not is_identical:
            if any(guarded.difference() is not None for guarded in self._guards):
                return False
            self._arm()
        if mode.layer_hook is not self._hook or self._tensor_difference() is not None:
            return False
        if self._count == changes.count:
            return True
        count = changes.count
        if self._tracked_difference() is not None:
            return False
        self._count = count
        return True

    def _arm(self) -> None:
        """Sort the guards by how they are compared most quickly."""
        self._cells = [
            (g.of, g.seen[0]) for g in self._guards if g.kind == "cell" and g.seen[0] is not MISSING
        ]
        items = [(*g.of, g.seen[0]) for g in self._guards if g.kind == "item"]
        present = [item for item in items if item[2] is not MISSING]
        self._namespaces = [namespace for namespace, _, _ in present]
        self._item_names = [name for _, name, _ in present]
        self._item_values = [value for _, _, value in present]
        self._absent = _absent_names([item for item in items if item[2] is MISSING])
        self._containers = [g.of for g in self._guards if g.kind in ("sequence", "mapping")]
        self._mappings = [g.of for g in self._guards if g.kind == "mapping"]
        self._lengths = list(map(len, self._containers))
        self._inside = [item for container in self._containers for item in container]
        self._values = [value for mapping in self._mappings for value in mapping.values()]
        self._functions = [(g.of, *g.seen) for g in self._guards if g.kind == "function"]
        self._others = [g for g in self._guards if g.kind == ""]

    def _is_identical(self) -> bool:
        """Return whether everything that is not tracked is the same object as before."""
        for cell, value in self._cells:
            if cell.cell_contents is not value:
                return False
        items = map(operator.getitem, self._namespaces, self._item_names)
        if not all(map(operator.is_, items, self._item_values)):
            return False
        for namespace, names in self._absent:
            if namespace and not names.isdisjoint(namespace):
                return False
        if list(map(len, self._containers)) != self._lengths:
            return False
        inside = itertools.chain.from_iterable(self._containers)  # of dicts, the keys
        values = itertools.chain.from_iterable(mapping.values() for mapping in self._mappings)
        if not all(map(operator.is_, inside, self._inside)) or not all(
            map(operator.is_, values, self._values)
        ):
            return False
        for function, code, defaults, keywords in self._functions:
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not keywords
            ):
                return False
        for guarded in self._others:
            now = guarded.read()
            if len(now) != len(guarded.seen) or not all(map(operator.is_, now, guarded.seen)):
                return False
        return True

    def leave_out(self, tensors: list[Tensor]) -> None:
        """Compare some Tensors no more, because something else does."""
        others = {id(x) for x in tensors}
        self.tensors = [x for x in self.tensors if id(x) not in others]
        self._arrays = list(map(_get_array, self.tensors))
        self._flags = list(map(_get_flag, self.tensors))
        self._kinds = list(map(_get_kind, self.tensors))

    def difference(self) -> str | None:
        """Return what differs from what was seen, in words, or None."""
        if mode.layer_hook is not self._hook:
            return "another hook of layers is set"
        return self.contents_difference() or self._tracked_difference() or self._tensor_difference()

    def contents_difference(self) -> str | None:
        """Return what differs, but for the attributes of tracked objects."""
        difference = next((d for d in map(_Guarded.difference, self._guards) if d is not None), None)
        if difference is None and any(
            x.learning_rate_factor is not rate or x.l2_factor is not l2 for x, rate, l2 in self._factors
        ):
            return "learning_rate_factor or l2_factor of a Parameter was changed"
        return difference

    def drawn(self) -> str | None:
        """Return the name of a source of random numbers that was drawn from, if there is one."""
        return next((guarded.name for guarded in self.draws if guarded.difference() is not None), None)

    def _tensor_difference(self) -> str | None:
        """Return how a Tensor differs in what replays do not read: its flag, its shape, its dtype."""
        if not all(map(operator.is_, map(_get_flag, self.tensors), self._flags)):
            return "requires_grad of a Tensor was changed"
        if not all(map(operator.is_, map(_get_array, self.tensors), self._arrays)):
            if list(map(_get_kind, self.tensors)) != self._kinds:
                return "the array of a Tensor was replaced by one of another shape or dtype"
            self._arrays = list(map(_get_array, self.tensors))
        return None

    def _tracked_difference(self) -> str | None:
        for (owner, path), kind in zip(self._tracked, self._types, strict=True):
            if type(owner) is not kind:
                return f"{path or kind.__name__} became a {type(owner).__name__}"
            before, now = self._attributes[id(owner)], vars(owner)
            for name in before.keys() | now.keys():
                a, b = (attributes.get(name, MISSING) for attributes in (before, now))
                if a is b or (id(owner), name) in self._free:
                    continue
                default = getattr(type(owner), name, MISSING)
                a, b = (default if value is MISSING else value for value in (a, b))
                if same(a, b):
                    before[name] = b
                elif self._is_read(owner, name, a) or self._is_read(owner, name, b):
                    short = all(map(_is_short, (a, b)))
                    change = f"was {a!r} and is {b!r}" if short else "was changed"
                    return f"attribute {name!r} of {path or type(owner).__name__} {change}"
        return None

    def _is_read(self, owner: Any, name: str, value: Any) -> bool:
        """Return whether code may read an attribute: all that is no plain value, or that it names."""
        return (
            self._is_dynamic
            or name in self._names
            or not isinstance(value, _IMMUTABLE)
            or not _is_users_class(type(owner))
        )

    def free(self, owner: Any, name: str) -> None:
        """Let an attribute be: the function sets it before it reads it."""
        self._free.add((id(owner), name))

    def restore(self, draws: bool = True) -> None:
        """Put everything back that is not tracked; random numbers from elsewhere only with ``draws``."""
        for guarded in (*self._guards, *(self.draws if draws else ())):
            if guarded.difference() is not None:
                guarded.write(guarded.seen)
        for x, flag in zip(self.tensors, self._flags, strict=True):
            x.requires_grad = flag
        for parameter, rate, l2 in self._factors:
            parameter.learning_rate_factor, parameter.l2_factor = rate, l2

    # --- finding ----------------------------------------------------------------------------------

    def _visit(self, x: Any, path: str) -> None:
        if id(x) in self._seen or (isinstance(x, _IMMUTABLE) and not getattr(x, "__dict__", None)):
            return
        self._seen[id(x)] = x
        if isinstance(x, enum.Enum):
            self._visit(x.value, path)
        elif isinstance(x, Tensor):
            self.tensors.append(x)
            if isinstance(x, Parameter):
                self.parameters.append(x)
        elif isinstance(x, Generator):
            pass  # its state is read at every replay
        elif isinstance(x, numpy.random.Generator):
            bits = x.bit_generator
            self._draws.append(_random_state(path, lambda: bits.state, lambda s: setattr(bits, "state", s)))
        elif isinstance(x, numpy.random.RandomState):
            self._draws.append(_random_state(path, x.get_state, x.set_state))
        elif isinstance(x, random.Random):
            self._draws.append(_random_state(path, x.getstate, x.setstate))
        elif devices.is_array(x):
            self._guards.append(_contents(path, x))
            if x.dtype.hasobject:
                self._visit_all(enumerate(x.ravel().tolist()), path)
        elif isinstance(x, (list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType)):
            self._visit_container(x, path)
        elif isinstance(x, (bytearray, array.array, memoryview)):
            self._guards.append(_bytes(path, x))
        elif isinstance(x, _VIEWS):
            self._visit(x.mapping, path)
        elif isinstance(x, type):
            self._visit_class(x)
            self._visit_class(type(x))
        elif isinstance(x, types.ModuleType):
            self._visit_module(x, path)
        else:
            self._visit_callable_or_object(x, path)
            return
        if not isinstance(x, (type, types.ModuleType)) and _is_users_class(type(x)):
            self._visit_object(x, path)

    def _visit_container(self, x: Any, path: str) -> None:
        if isinstance(x, (list, collections.deque)):
            self._guards.append(_sequence(path, x))
        elif isinstance(x, (dict, types.MappingProxyType)):
            self._guards.append(_mapping(path, x))
        elif isinstance(x, set):
            self._guards.append(_set(path, x))
        is_mapping = isinstance(x, (dict, types.MappingProxyType))
        self._visit_all(list(x.items() if is_mapping else enumerate(x)), path)

    def _visit_module(self, x: types.ModuleType, path: str) -> None:
        """Visit what code names of a module; of minidl, note only whether it is replaced."""
        if is_users(vars(x)):
            self._visit(vars(x).get("__getattr__"), path)
            self._visit_namespace(vars(x), path)
        elif x.__name__.partition(".")[0] == "minidl":
            for name in sorted(self._names & vars(x).keys()):
                self._guards.append(_item(f"{path}.{name}", vars(x), name))

    def _visit_callable_or_object(self, x: Any, path: str) -> None:
        if isinstance(x, types.FunctionType):
            self._visit_function(x, path)
        elif isinstance(x, types.MethodType):
            self._visit(x.__self__, f"{path}.__self__" if not isinstance(x.__self__, Tracked) else "")
            self._visit(x.__func__, path)
        elif isinstance(x, functools.partial):
            self._visit_all(enumerate((x.func, *x.args)), path)
            self._visit(x.keywords, path)
        elif isinstance(x, (functools.cached_property, functools.partialmethod)):
            self._visit_all(vars(x).items(), path)
        elif isinstance(x, operator.attrgetter):
            names = x.__reduce__()[1]
            self._names |= {part for name in names for part in str(name).split(".")}
        elif isinstance(x, ContextVar):
            guarded = _Guarded(path, lambda: (x.get(MISSING),), lambda seen: None)
            self._guards.append(guarded)
            self._visit(guarded.seen[0], path)
        elif isinstance(x, weakref.ref):
            self._guards.append(_Guarded(path, lambda: (x() is None,), lambda seen: None))
            self._visit(x(), path)
        elif isinstance(x, (classmethod, staticmethod)):
            self._visit(x.__func__, path)
        elif isinstance(x, property):
            self._visit_all(enumerate((x.fget, x.fset)), path)
        elif hasattr(x, "__wrapped__"):  # a compiled function, functools.cache
            if hasattr(x, "cache_info"):
                read = lambda: (x.cache_info().misses, x.cache_info().currsize)
                self._guards.append(_Guarded(f"the cache of {path}", read, lambda seen: None))
            self._visit(x.__wrapped__, path)
        elif isinstance(x, types.BuiltinFunctionType):
            self._visit(x.__self__, path)
        elif isinstance(x, collections.abc.Iterator):
            self.iterators.append(path)
        else:
            self._visit_object(x, path)

    def _visit_all(self, items: Any, path: str) -> None:
        for name, item in items:
            self._visit(item, f"{path}[{name!r}]")

    def _visit_object(self, x: Any, path: str) -> None:
        attributes = getattr(x, "__dict__", {})
        if isinstance(x, Tracked):
            path = "" if path.endswith(".__self__") else path
            self._tracked.append((x, path))
            for name, value in list(attributes.items()):
                self._visit(value, f"{path}.{name}" if path else name)
        else:
            if isinstance(attributes, dict):
                self._visit_namespace(attributes, path, type(x))
            for name in _slots(type(x)):
                if self._is_dynamic or name in self._names | self._stored:
                    self._guards.append(_slot(f"{path}.{name}", x, name))
                    self._visit(getattr(x, name, None), f"{path}.{name}")
        self._visit_class(type(x))

    def _visit_namespace(self, namespace: dict[str, Any], path: str, kind: type | None = None) -> None:
        """Visit the attributes of an object or module that code names; those of its class may be hidden."""
        if kind is not None and (self._is_dynamic or issubclass(kind, collections.abc.Collection)):
            self._guards.append(_mapping(path, namespace))
            self._visit_all(list(namespace.items()), path)
            return
        for name in sorted(namespace.keys() if self._is_dynamic else self._names | self._stored):
            if name in namespace:
                self._guards.append(_item(f"{path}.{name}", namespace, name))
                self._visit(namespace[name], f"{path}.{name}")
            elif name in self._stored or (kind is not None and hasattr(kind, name)):
                self._guards.append(_item(f"{path}.{name}", namespace, name))

    def _visit_class(self, x: type) -> None:
        for base in x.__mro__:
            if base is object or base in self._classes:
                continue
            self._classes.add(base)
            if _is_users_class(base):
                self._guards.append(_class(f"class {base.__name__}", base))
                code = (
                    types.FunctionType, classmethod, staticmethod, property,
                    functools.cached_property, functools.partialmethod,
                )  # fmt: skip
                for name, value in list(vars(base).items()):
                    if isinstance(value, code) or name in self._names or self._is_dynamic:
                        self._visit(value, f"{base.__name__}.{name}")
            elif base.__module__.partition(".")[0] == "minidl":
                for name in sorted(_REPLACEABLE & vars(base).keys()):
                    self._guards.append(_fixed_item(f"{base.__name__}.{name}", base, name))

    def _visit_function(self, x: types.FunctionType, path: str) -> None:
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=False):
            guarded = _cell(f"variable {name!r}", cell)
            self._guards.append(guarded)
            self._visit(guarded.seen[0], name)
        self._visit_all(enumerate(x.__defaults__ or ()), f"default arguments of {path}")
        self._visit(x.__kwdefaults__, f"default arguments of {path}")
        if hasattr(x, "__wrapped__"):
            self._visit(x.__wrapped__, path)
        if not is_users(x.__globals__):
            return
        self._guards.append(_function(f"function {path!r}", x))
        names = _names_in(x.__code__)
        self._names |= names.attributes
        self._stored |= names.stored
        if _DYNAMIC & (names.attributes | names.globals):
            self._is_dynamic = True
            self._names |= set(filter(str.isidentifier, names.texts))
        if {"environ", "getenv"} & (names.attributes | names.globals):
            self._visit(vars(os.environ)["_data"], "os.environ")
        modules = names.modules
        if {"modules", "import_module", "__import__"} & (names.attributes | names.globals):
            modules = modules | names.texts
        for name in sorted(modules & sys.modules.keys()):
            self._guards.append(_item(f"module {name!r}", sys.modules, name))
            self._visit(sys.modules[name], name)
        for name in sorted(names.globals):  # one that is missing may hide a builtin later
            self._guards.append(_item(f"global {name!r}", x.__globals__, name))
            self._visit(x.__globals__.get(name), name)
        self._visit_namespace(vars(x), path)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        yield from (names,) if isinstance(names, str) else names


def _is_users_class(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is not None and is_users(vars(module))


def _absent_names(items: list[tuple[Any, str, Any]]) -> list[tuple[Any, set[str]]]:
    """Return for each namespace the names that must not appear in it."""
    absent: dict[int, tuple[Any, set[str]]] = {}
    for namespace, name, _ in items:
        absent.setdefault(id(namespace), (namespace, set()))[1].add(name)
    return list(absent.values())


# --- what cannot be guarded -----------------------------------------------------------------------


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
