"""What code reads by name, and whose code it is."""

from __future__ import annotations

import dis
import functools
import re
import sys
import types
from dataclasses import dataclass, field
from typing import Any

#: What the folders are called in which libraries are installed: by pip, and by Debian.
LIBRARY_FOLDERS = frozenset({"site-packages", "dist-packages"})

#: Packages whose code is never the user's, wherever they are installed.
NEVER_USERS = frozenset(
    {"minidl", "numpy", "scipy", "cupy", "matplotlib", "builtins", *sys.stdlib_module_names}
)


#: The names of functions of the modules time and datetime that read a clock.
CLOCKS = frozenset(
    {"time", "perf_counter", "monotonic", "process_time", "thread_time", "ctime", "localtime", "gmtime"}
    | {"time_ns", "perf_counter_ns", "monotonic_ns", "process_time_ns", "thread_time_ns", "strftime"}
    | {"now", "utcnow", "today"}
)


def is_users(namespace: dict[str, Any]) -> bool:
    """Return whether a module belongs to the user: not to minidl, Python or a library that knows no minidl.

    The code of libraries is not followed: it would lead anywhere, and does not change.
    """
    known = _users.get(id(namespace))
    if known is None or known[0] is not namespace:
        known = _users[id(namespace)] = (namespace, _holds_users_code(namespace))
    return known[1]


#: By the id of a module's namespace, the namespace, and whether it belongs to the user.
_users: dict[int, tuple[dict[str, Any], bool]] = {}


def _holds_users_code(namespace: dict[str, Any]) -> bool:
    file, name = namespace.get("__file__") or "", namespace.get("__name__") or ""
    if name.partition(".")[0] in NEVER_USERS and name != "__main__":
        return False
    return LIBRARY_FOLDERS.isdisjoint(re.split(r"[\\/]", file)) or any(
        str(getattr(value, "__module__", None) or getattr(value, "__name__", "")).partition(".")[0]
        == "minidl"
        for value in list(namespace.values())
        if isinstance(getattr(value, "__module__", ""), str | None)
    )


@dataclass
class Names:
    """What code reads by name."""

    globals: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)  # attributes that it sets or deletes
    modules: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)  # that could be names of attributes or modules


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Return the names that code reads, the functions inside it included."""
    names = Names()
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
            inner = names_in(constant)
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
