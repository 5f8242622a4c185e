"""Checks of values inside a program: what a function would refuse when it runs, a replay refuses as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.primitives.primitive import Primitive


def _check(
    xp: Any, x: Any, holds: Callable[[Any], bool], message: Callable[[Any], str], out: Any = None
) -> Any:
    if not holds(x):
        raise ValueError(message(x))
    if out is None:
        return xp.ones((), bool)
    out[...] = True
    return out


check_ = Primitive(
    "check",
    _check,
    gradients=(None,),
    doc="Return True if the values have a property, else raise; every update waits for it.",
)
