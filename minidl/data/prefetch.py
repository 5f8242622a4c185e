"""Reading ahead: the next mini-batches are made in a thread while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield the items of an iterable, which are read ahead of time in a thread.

    An error in the iterable is raised here, when its turn comes. The thread ends when the items do,
    or when this iterator is closed or dropped. Where the system starts no threads, nothing is read ahead.

    Parameters
    ----------
    depth : how many items may wait; at least 1
    """
    if depth < 1:
        raise ValueError(f"prefetch: depth must be at least 1, got {depth}")
    waiting: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, value: object) -> None:
        while not stopped.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=read, name="minidl prefetch", daemon=True)
    if not _started(thread):
        yield from items
        return
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(timeout=5)  # an iterable that blocks must not block its reader forever


def _started(thread: threading.Thread) -> bool:
    """Start a thread; return False where the system starts none, in a browser, for example."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
