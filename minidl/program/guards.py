"""What a recording takes for granted of Python, and whether it still holds.

A compiled function replays Tensor operations. Everything else that decided them is found here, from the
code of the function and of the Python functions it can call: the globals, closure variables, default
arguments and attributes that they read, and what is in these. All of it is compared before each replay.
Attributes of `Tracked` objects are compared only when the counter of changes has moved on; the rest is
compared by identity, a few dozen nanoseconds each.
"""

from __future__ import annotations

import abc
import array
import collections
import decimal
import enum
import functools
import gc
import itertools
import operator
import os
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy

from minidl import devices
from minidl.mode import mode
from minidl.program.guarded import (
    Guarded,
    guarded_array,
    guarded_bases,
    guarded_bytes,
    guarded_cell,
    guarded_class,
    guarded_fixed_item,
    guarded_function,
    guarded_item,
    guarded_mapping,
    guarded_random_state,
    guarded_sequence,
    guarded_set,
    guarded_slot,
    guarded_type,
    is_short,
    same,
    shared_random_states,
)
from minidl.program.guarded_tensors import GuardedTensors
from minidl.program.names import CLOCKS, is_users, names_in
from minidl.random.generator import Generator
from minidl.tensor import Tensor
from minidl.tracking import MISSING, Tracked, changes

#: Names that read attributes which the code does not spell out.
_DYNAMIC = {"getattr", "hasattr", "vars", "__dict__", "attrgetter", "eval", "exec", "globals", "locals"}

_IMMUTABLE = (
    type(None), bool, int, float, complex, str, bytes, numpy.dtype, numpy.generic, range, slice,
    type(Ellipsis), enum.Enum, types.CodeType, Path,
)  # fmt: skip

#: Attributes of minidl's classes that others may replace.
_REPLACEABLE = {"forward", "training", "__call__", "step", "update", "begin_step", "observe"}

#: What Python's and NumPy's functions answer from settings of the process or the thread, by their names.
_AMBIENT: dict[str, Callable[[], Any]] = {
    "current_thread": lambda: (threading.get_ident(), threading.current_thread().name),
    "cwd": os.getcwd,
    "get_ident": threading.get_ident,
    "getcontext": lambda: repr(decimal.getcontext()),
    "getcwd": os.getcwd,
    "geterr": lambda: repr(numpy.geterr()),
    "getpid": os.getpid,
    "getrecursionlimit": sys.getrecursionlimit,
    "isenabled": gc.isenabled,
    "Decimal": lambda: repr(decimal.getcontext()),
    "get_printoptions": lambda: repr(numpy.get_printoptions()),
}

#: Objects that Python's own code reads as a whole, to iterate, show or compare them.
_SHOWN_WHOLE = (collections.abc.Collection, types.SimpleNamespace)

#: Views of dicts, which show their later contents.
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))

_get_bases = operator.attrgetter("__mro__")
_get_values: Any = operator.methodcaller("values")


class Surroundings:
    """Everything outside of a function that its Python code can read, as it is now.

    Parameters
    ----------
    function : what is compiled
    arguments : its arguments that are neither Tensors nor arrays

    Attributes
    ----------
    iterators : names of iterators that it can read, which no replay could advance
    may_read_a_clock : whether code that it can reach has the name of one
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
        self._note_attributes()
        self._arm()
        self._count = changes.count
        self._tensors = [GuardedTensors(self._found)]
        self.draws = shared_random_states() + self._draws

    def _begin(self) -> None:
        self._seen: dict[int, Any] = {}
        self._classes: set[type] = set()
        self._ambient: set[str] = set()
        self._guards: list[Guarded] = []
        self._tracked: list[tuple[Tracked, str]] = []
        self._draws: list[Guarded] = []
        self._found: list[Tensor] = []
        self.iterators: list[str] = []
        self.may_read_a_clock = False

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
        if mode.layer_hook is not self._hook:
            return False
        if self._count == changes.count and self._are_attributes_identical():
            return True
        count = changes.count
        if self._tensor_difference() is not None or self._tracked_difference() is not None:
            return False
        self._count = count
        self._note_attributes()
        return True

    def _note_attributes(self) -> None:
        """Note the attributes of tracked objects, without those that the function sets at each call."""
        with_free = {owner for owner, _ in self._free}
        owners = [vars(owner) for owner, _ in self._tracked if id(owner) not in with_free]
        self._owners = owners
        self._owners_count = sum(map(len, owners))
        self._attribute_owners = [attributes for attributes in owners for _ in attributes]
        self._attribute_names = list(itertools.chain.from_iterable(owners))
        self._attribute_values = [value for attributes in owners for value in attributes.values()]

    def _are_attributes_identical(self) -> bool:
        """Return whether tracked objects have the same attributes, even if they were set past the counter."""
        try:
            values = map(operator.getitem, self._attribute_owners, self._attribute_names)
            is_same = all(map(operator.is_, values, self._attribute_values))
        except KeyError:  # one was deleted
            return False
        return is_same and sum(map(len, self._owners)) == self._owners_count

    def _arm(self) -> None:
        """Sort the guards by how they are compared most quickly."""
        kinds: dict[str, list[Guarded]] = collections.defaultdict(list)
        for guarded in self._guards:
            kinds[guarded.kind].append(guarded)
        cells = {id(g.of): (g.of, g.seen[0]) for g in kinds["cell"] if g.seen[0] is not MISSING}
        self._cells = list(cells.values())
        items = {(id(g.of[0]), g.of[1]): (*g.of, g.seen[0]) for g in kinds["item"]}
        present = [item for item in items.values() if item[2] is not MISSING]
        self._namespaces = [namespace for namespace, _, _ in present]
        self._item_names = [name for _, name, _ in present]
        self._absent = _absent_names([item for item in items.values() if item[2] is MISSING])
        mappings = {id(g.of): g.of for g in kinds["mapping"]}.values()
        named = [x for x in mappings if _has_plain_names(x)]  # whose keys are compared at once
        other = [x for x in mappings if not _has_plain_names(x)]
        self._named = named
        self._keys = list(itertools.chain.from_iterable(named))
        self._namespaces += [mapping for mapping in named for _ in mapping]
        self._item_names += self._keys
        self._sequences = [*(g.of for g in kinds["sequence"]), *other, *map(_get_values, other)]
        self._lengths = list(map(len, self._sequences))
        self._typed = [g.of for g in kinds["type"]]
        self._heirs = [g.of for g in kinds["bases"]]
        self._values = list(self._values_now())
        self._functions = [(g.of, *g.seen) for g in kinds["function"]]
        self._functions_count: float = -1
        self._others = kinds[""]

    def _values_now(self) -> Iterator[Any]:
        """Yield what is compared by identity, in one sweep."""
        items = map(operator.getitem, self._namespaces, self._item_names)
        inside = itertools.chain.from_iterable(self._sequences)
        return itertools.chain(items, inside, map(type, self._typed), map(_get_bases, self._heirs))

    def _is_identical(self) -> bool:
        """Return whether everything that is not tracked is the same object as before."""
        if (
            list(map(len, self._sequences)) != self._lengths
            or list(itertools.chain.from_iterable(self._named)) != self._keys
        ):
            return False
        if not all(map(operator.is_, self._values_now(), self._values)):
            return False
        for cell, value in self._cells:
            if cell.cell_contents is not value:
                return False
        for namespace, names in self._absent:
            if namespace and not names.isdisjoint(namespace):
                return False
        if self._functions_count != changes.functions:
            count = changes.functions
            for function, code, defaults, keywords in self._functions:
                if (
                    function.__code__ is not code
                    or function.__defaults__ is not defaults
                    or function.__kwdefaults__ is not keywords
                ):
                    return False
            self._functions_count = count
        for guarded in self._others:
            now = guarded.read()  # often new objects that mean the same
            if len(now) != len(guarded.seen) or not all(map(same, now, guarded.seen)):
                return False
        return True

    def compare_arrays(self, tensors: list[Tensor]) -> None:
        """Compare also which arrays some Tensors hold, because the program has them."""
        self._tensors = [self._tensors[0].without(tensors), GuardedTensors(tensors, are_read=True)]
        self._count = changes.count

    def difference(self) -> str | None:
        """Return what differs from what was seen, in words, or None."""
        if mode.layer_hook is not self._hook:
            return "another hook of layers is set"
        return self._tensor_difference() or self.contents_difference() or self._tracked_difference()

    def contents_difference(self) -> str | None:
        """Return what differs, but for the attributes of tracked objects."""
        differences = map(Guarded.difference, self._guards)
        return next((d for d in differences if d is not None), None) or self._tensor_difference()

    def drawn(self) -> str | None:
        """Return the name of a source of random numbers that was drawn from, if there is one."""
        return next((guarded.name for guarded in self.draws if guarded.difference() is not None), None)

    def _tensor_difference(self) -> str | None:
        """Return how a Tensor differs in what replays do not read: its flag, its factors, its array."""
        differences = map(GuardedTensors.difference, self._tensors)
        return next((d for d in differences if d is not None), None)

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
                    short = all(map(is_short, (a, b)))
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
        self._note_attributes()

    def restore(self, draws: bool = True) -> None:
        """Put everything back that is not tracked; random numbers from elsewhere only with ``draws``."""
        for guarded in (*self._guards, *(self.draws if draws else ())):
            if guarded.difference() is not None:
                guarded.write(guarded.seen)
        for tensors in self._tensors:
            tensors.restore()

    # --- finding ----------------------------------------------------------------------------------

    def _visit(self, x: Any, path: str) -> None:
        if id(x) in self._seen or (isinstance(x, _IMMUTABLE) and not getattr(x, "__dict__", None)):
            return
        self._seen[id(x)] = x
        if isinstance(x, enum.Enum):
            self._visit(x.value, path)
        elif isinstance(x, Tensor):
            self._found.append(x)
        elif isinstance(x, Generator):
            pass  # its state is read at every replay
        elif isinstance(x, numpy.random.Generator):
            bits = x.bit_generator
            self._draws.append(
                guarded_random_state(path, lambda: bits.state, lambda s: setattr(bits, "state", s))
            )
        elif isinstance(x, numpy.random.RandomState):
            self._draws.append(guarded_random_state(path, x.get_state, x.set_state))
        elif isinstance(x, random.Random):
            self._draws.append(guarded_random_state(path, x.getstate, x.setstate))
        elif devices.is_array(x):
            self._guards.append(guarded_array(path, x))
            if x.dtype.hasobject:
                self._visit_all(enumerate(x.ravel().tolist()), path)
        elif isinstance(x, (list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType)):
            self._visit_container(x, path)
        elif isinstance(x, (bytearray, array.array, memoryview)):
            self._guards.append(guarded_bytes(path, x))
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
            self._guards.append(guarded_sequence(path, x))
        elif isinstance(x, (dict, types.MappingProxyType)):
            self._guards.append(guarded_mapping(path, x))
        elif isinstance(x, set):
            self._guards.append(guarded_set(path, x))
        is_mapping = isinstance(x, (dict, types.MappingProxyType))
        self._visit_all(list(x.items() if is_mapping else enumerate(x)), path)

    def _visit_module(self, x: types.ModuleType, path: str) -> None:
        """Visit what code names of a module; of one that is not the user's, only constants and lists."""
        if is_users(vars(x)):
            self._visit(vars(x).get("__getattr__"), path)
            self._visit_namespace(vars(x), path)
            return
        for name in sorted(self._names & vars(x).keys()):
            self._guards.append(guarded_item(f"{path}.{name}", vars(x), name))
            if isinstance(vars(x)[name], (list, dict, set)) and vars(x)[name] is not sys.modules:
                self._visit(vars(x)[name], f"{path}.{name}")

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
            guarded = Guarded(path, lambda: (x.get(MISSING),), lambda seen: None)
            self._guards.append(guarded)
            self._visit(guarded.seen[0], path)
        elif isinstance(x, weakref.ref):
            self._guards.append(Guarded(path, lambda: (x() is None,), lambda seen: None))
            self._visit(x(), path)
        elif isinstance(x, (classmethod, staticmethod)):
            self._visit(x.__func__, path)
        elif isinstance(x, property):
            self._visit_all(enumerate((x.fget, x.fset)), path)
        elif "__wrapped__" in getattr(x, "__dict__", ()):  # a compiled function, functools.cache
            if hasattr(x, "cache_info"):
                read = lambda: (x.cache_info().misses, x.cache_info().currsize)
                self._guards.append(Guarded(f"the cache of {path}", read, lambda seen: None))
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
            if _is_users_class(type(x)):
                self._guards.append(guarded_type(path, x))
            if isinstance(attributes, dict):
                self._visit_namespace(attributes, path, type(x))
            for name in _slots(type(x)):
                if self._is_dynamic or name in self._names | self._stored:
                    self._guards.append(guarded_slot(f"{path}.{name}", x, name))
                    self._visit(getattr(x, name, None), f"{path}.{name}")
        self._visit_class(type(x))

    def _visit_ambient(self, name: str, read: Callable[[], Any]) -> None:
        """Guard what Python's own functions answer without reading a name."""
        if name not in self._ambient:
            self._ambient.add(name)
            self._guards.append(Guarded(f"the answer of {name}()", lambda: (read(),), lambda seen: None))

    def _visit_namespace(self, namespace: dict[str, Any], path: str, kind: type | None = None) -> None:
        """Visit the attributes of an object or module that code names; those of its class may be hidden."""
        if kind is not None and _is_of_a_library(kind):  # its code, which is not followed, may read any
            self._guards.append(guarded_mapping(path, namespace))
        if kind is not None and (self._is_dynamic or issubclass(kind, _SHOWN_WHOLE)):
            self._guards.append(guarded_mapping(path, namespace))
            self._visit_all(list(namespace.items()), path)
            return
        for name in sorted(namespace.keys() if self._is_dynamic else self._names | self._stored):
            if name in namespace:
                self._guards.append(guarded_item(f"{path}.{name}", namespace, name))
                self._visit(namespace[name], f"{path}.{name}")
            elif name in self._stored or (kind is not None and hasattr(kind, name)):
                self._guards.append(guarded_item(f"{path}.{name}", namespace, name))

    def _visit_class(self, x: type) -> None:
        for base in x.__mro__:
            if base is object or base in self._classes:
                continue
            self._classes.add(base)
            if _is_users_class(base):
                self._guards.append(guarded_class(f"class {base.__name__}", base))
                self._guards.append(guarded_bases(f"class {base.__name__}", base))
                if isinstance(base, abc.ABCMeta):  # other classes may be registered with it
                    self._visit_ambient("abc.get_cache_token", abc.get_cache_token)
                code = (
                    types.FunctionType, classmethod, staticmethod, property,
                    functools.cached_property, functools.partialmethod,
                )  # fmt: skip
                for name, value in list(vars(base).items()):
                    if isinstance(value, code) or name in self._names or self._is_dynamic:
                        self._visit(value, f"{base.__name__}.{name}")
            elif base.__module__.partition(".")[0] == "minidl":
                for name in sorted(_REPLACEABLE & vars(base).keys()):
                    self._guards.append(guarded_fixed_item(f"{base.__name__}.{name}", base, name))

    def _visit_function(self, x: types.FunctionType, path: str) -> None:
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=False):
            guarded = guarded_cell(f"variable {name!r}", cell)
            self._guards.append(guarded)
            self._visit(guarded.seen[0], name)
        self._visit_all(enumerate(x.__defaults__ or ()), f"default arguments of {path}")
        self._visit(x.__kwdefaults__, f"default arguments of {path}")
        self._visit(vars(x).get("__wrapped__"), path)
        if not is_users(x.__globals__):
            return
        self._guards.append(guarded_function(f"function {path!r}", x))
        names = names_in(x.__code__)
        self._names |= names.attributes
        self._stored |= names.stored
        if _DYNAMIC & (names.attributes | names.globals):
            self._is_dynamic = True
            self._names |= set(filter(str.isidentifier, names.texts))
        self.may_read_a_clock |= bool(CLOCKS & (names.attributes | names.globals))
        for name in sorted(_AMBIENT.keys() & (names.attributes | names.globals)):
            self._visit_ambient(name, _AMBIENT[name])
        if {"environ", "getenv"} & (names.attributes | names.globals):
            self._visit(vars(os.environ)["_data"], "os.environ")
        modules = names.modules
        if {"modules", "import_module", "__import__"} & (names.attributes | names.globals):
            modules = modules | names.texts
        for name in sorted(modules & sys.modules.keys()):
            self._guards.append(guarded_item(f"module {name!r}", sys.modules, name))
            self._visit(sys.modules[name], name)
        for name in sorted(names.globals):  # one that is missing may hide a builtin later
            self._guards.append(guarded_item(f"global {name!r}", x.__globals__, name))
            self._visit(x.__globals__.get(name), name)
        self._visit_namespace(vars(x), path)


def _has_plain_names(x: Any) -> bool:
    return type(x) in (dict, types.MappingProxyType) and all(type(key) is str for key in x)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        yield from (names,) if isinstance(names, str) else names


def _is_users_class(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    return module is not None and is_users(vars(module))


def _is_of_a_library(kind: type) -> bool:
    return not _is_users_class(kind) and kind.__module__.partition(".")[0] not in ("minidl", "builtins")


def _absent_names(items: list[tuple[Any, str, Any]]) -> list[tuple[Any, set[str]]]:
    """Return for each namespace the names that must not appear in it."""
    absent: dict[int, tuple[Any, set[str]]] = {}
    for namespace, name, _ in items:
        absent.setdefault(id(namespace), (namespace, set()))[1].add(name)
    return list(absent.values())
