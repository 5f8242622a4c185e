"""Files, folders, sockets and other processes, which cannot be compared before each replay."""

from __future__ import annotations

import functools
import sys
from typing import Any

from minidl.mode import mode
from minidl.program.names import is_users
from minidl.program.recorder import Place, Recorder, described

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


@functools.cache
def watch() -> None:
    """From now on, refuse that a function reads the world while it is recorded.

    Python has one list of hooks for a process, and never removes one. This one does nothing in threads that
    record nothing.
    """
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
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
