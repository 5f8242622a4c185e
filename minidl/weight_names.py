"""Names of weights: all names of what is shared, prefixes, renaming, and a report of what was loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy

from minidl import weights

#: New names by old ones, or by what old ones begin with; or a function, which returns None to leave one out.
Renaming = Mapping[str, str] | Callable[[str], str | None]


@dataclass
class LoadReport:
    """What was loaded. Print it.

    Attributes
    ----------
    loaded : the name in the state by the name of each Tensor of the network that was set from it
    missing : the names of Tensors of the network that were not in the state, and kept their values
    unexpected : the names in the state that the network has no Tensor for
    """

    loaded: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} Tensors loaded"]
        lines += [f"  {name}" + ("" if name == old else f" from {old}") for name, old in self.loaded.items()]
        for title, names in (("not in the state", self.missing), ("not used", self.unexpected)):
            lines += [f"{len(names)} {title}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def other_names(names: Iterable[tuple[str, Any]], first: Mapping[str, Any]) -> dict[str, str]:
    """Return the further names of shared objects, each with the object's first name.

    Parameters
    ----------
    names : every name with its object
    first : the objects by their first names
    """
    by_object = {id(x): name for name, x in first.items()}
    return {
        name: by_object[id(x)]
        for name, x in names
        if id(x) in by_object and name not in first and name != by_object[id(x)]
    }


def renamed(name: str, prefix: str, renaming: Renaming | None) -> str | None:
    """Return a name without its prefix, and by another name; None for one without it, or left out.

    Of a mapping, the longest key that is the whole name or its first parts is taken.
    """
    if not name.startswith(prefix):
        return None
    name = name[len(prefix) :]
    if renaming is None:
        return name
    if not isinstance(renaming, Mapping):
        if not callable(renaming):
            raise TypeError(f"rename is a dict or a function of a name, got {type(renaming).__name__}")
        return renaming(name)
    keys = [key for key in renaming if name == key or name.startswith(f"{key}.")]
    if not keys:
        return name
    key = max(keys, key=len)
    return (renaming[key] + name[len(key) :]).lstrip(".")


def match(
    state: Mapping[str, Any],
    tensors: Mapping[str, Any],
    names: Mapping[str, str],
    shared: Mapping[str, str] | None = None,
    *,
    prefix: str = "",
    rename: Renaming | None = None,
    source: str,
) -> tuple[dict[str, Any], LoadReport]:
    """Return the arrays of a state by the first names of a network's Tensors, and a report.

    What the network has no name for keeps its own name, and is listed as unexpected.

    Parameters
    ----------
    tensors : the network's Tensors by their first names
    names : the further names of shared ones, each with the first one
    shared : the further names that the state's own arrays go by, each with the name in the state

    Raises
    ------
    ValueError
        The state has several arrays for one Tensor, and they differ.
    """
    found: dict[str, Any] = {}
    report = LoadReport()
    for old, array in state.items():
        wanted = [old, *(name for name, kept in (shared or {}).items() if kept == old)]
        new = [x for x in (renamed(name, prefix, rename) for name in wanted) if x is not None]
        targets = dict.fromkeys(names.get(name, name) for name in new)
        known = [name for name in targets if name in tensors]
        for name in known or list(targets)[:1]:
            if name in found and not _equal(found[name], array):
                raise ValueError(
                    f"the state of {source} has two different arrays for {name}, which this network shares: "
                    f"{report.loaded.get(name, name)} and {old}"
                )
            found.setdefault(name, array)
            if known:
                report.loaded.setdefault(name, old)
        if not known:
            report.unexpected.append(old)
    report.missing = [name for name in tensors if name not in found]
    return found, report


def _equal(a: Any, b: Any) -> bool:
    a, b = weights.on_host(a), weights.on_host(b)
    same = a.shape == b.shape and ((a == b) | ((a != a) & (b != b)))
    return bool(numpy.all(same))


def load(
    tensors: Mapping[str, Any],
    state: Mapping[str, Any],
    names: Mapping[str, str],
    shared: Mapping[str, str] | None = None,
    *,
    strict: bool = True,
    prefix: str = "",
    rename: Renaming | None = None,
    source: str,
    allow_nan: bool = True,
) -> LoadReport:
    """Assign the arrays of a state to a network's Tensors; the arguments are those of match().

    With ``strict=False``, what is missing keeps its value, and what is unexpected is left out. A wrong shape
    is refused all the same, and so is a state of which nothing can be used.
    """
    arrays, report = match(state, tensors, names, shared, prefix=prefix, rename=rename, source=source)
    if not strict:
        arrays = {name: array for name, array in arrays.items() if name in report.loaded}
        if state and tensors and not arrays:
            raise ValueError(
                f"nothing in the state of {source} is for this network: it has {_some(state)}; "
                f"the network has {_some(tensors)}; prefix= and rename= bring them together"
            )
        tensors = {name: tensors[name] for name in arrays}
    weights.load_state(tensors, arrays, source, allow_nan)
    return report


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
