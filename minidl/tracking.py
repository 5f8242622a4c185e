"""Objects whose attributes a compiled function may rely on: each change of one moves a counter on.

A compiled function takes the attributes of Layers, optimizers and Trainers for granted. To look at all of
them at every call would take longer than many a step. So it looks at one counter, and compares attributes
only where that has moved.
"""

from __future__ import annotations

from typing import Any

from minidl.mode import mode

#: Stands for an attribute that is not there.
MISSING: Any = object()


class _Changes:
    """How often any attribute of any Tracked object was set or deleted."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


changes = _Changes()


class Tracked:
    """The base of classes whose attributes are watched; a recorder is told before each change."""

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self).get(name, MISSING) is value:
            return
        if mode.recorder is not None:
            mode.recorder.before_attribute(self, name)
        object.__setattr__(self, name, value)
        changes.count += 1

    def __delattr__(self, name: str) -> None:
        if mode.recorder is not None:
            mode.recorder.before_attribute(self, name)
        object.__delattr__(self, name)
        changes.count += 1
