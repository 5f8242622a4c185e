"""Files, folders, sockets, other processes and clocks, which cannot be compared before each replay.

Python's audit events tell of them, and of changes of functions, which guards would be slow to compare.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minidl.mode import mode
from minidl.program.names import CLOCKS, is_users
from minidl.program.recorder import Place, Recorder, described
from minidl.tracking import changes

#: Python's audit events of what a function finds out about the world, and what a message calls them.
_EVENTS = {
    "open": "opens the file {0!r}",
    "os.listdir": "lists a folder",
    "os.scandir": "lists a folder",
    "glob.glob": "lists a folder",
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.posix_spawn": "starts a process",
    "socket.connect": "connects to a socket",
    "socket.getaddrinfo": "looks up an address",
    "urllib.Request": "opens an address",
}


@contextmanager
def clocks_refused(recorder: Recorder) -> Iterator[None]:
    """Refuse that a function reads a clock, even one that shows the same time when it is recorded again."""

    def notice(frame: Any, event: str, called: Any) -> None:
        if event == "c_call" and _is_clock(called) and is_users(frame.f_globals):
            place = described((frame.f_code.co_filename, frame.f_lineno))
            recorder.refuse(
                f"{place} reads a clock inside a compiled function; a replay would go on with the time of "
                "the recording: read it outside, and pass what follows from it as an argument"
            )

    if sys.getprofile() is not None:  # somebody measures this; the time has to differ to be noticed
        yield
        return
    sys.setprofile(notice)
    try:
        yield
    finally:
        sys.setprofile(None)


def _is_clock(function: Any) -> bool:
    """Return whether a function of C is one of time, or of a class of datetime, that reads a clock."""
    if getattr(function, "__name__", "") not in CLOCKS:
        return False
    owner = getattr(function, "__self__", None)  # a module, a class, or a moment that is known already
    if isinstance(owner, type):
        return any(kind.__module__ == "datetime" for kind in owner.__mro__)
    return owner is time


@functools.cache
def watch() -> None:
    """From now on, refuse that a function reads the world while it is recorded.

    Python has one list of hooks for a process, and never removes one. This one refuses nothing in threads
    that record nothing. It also counts changes of functions.
    """
    sys.addaudithook(_audit)
    sys.audit("minidl.watch")  # another hook may have kept this one out


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "object.__setattr__":  # of the code or the defaults of a function, and of little else
        changes.functions += 1
    elif event == "minidl.watch":
        changes.functions = 0
    if event not in _EVENTS or not isinstance(mode.recorder, Recorder):
        return
    if event == "open" and isinstance(arguments[0], int):
        return  # a descriptor that something else has opened
    place = _reader()
    if place is not None:
        mode.recorder.refuse(
            f"{described(place)} {_EVENTS[event].format(*arguments)} inside a compiled function. A replay "
            "would go on with what was found there while recording: do it outside, and pass what is found as "
            "an argument"
        )


def _reader() -> Place | None:
    """Return the user's line; None where minidl or CuPy prepares, or Python imports or shows source code."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        if is_users(frame.f_globals):
            return (frame.f_code.co_filename, frame.f_lineno)
        if str(frame.f_globals.get("__name__")).partition(".")[0] in ("importlib", "linecache", "minidl"):
            return None
        frame = frame.f_back
    return None
