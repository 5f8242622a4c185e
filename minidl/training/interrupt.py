"""Ctrl-C as a stop button: the first one ends the training in order, the second interrupts at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """The reason to stop early, if there is one: Ctrl-C, the button of a plot, or a callback."""

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)


@contextmanager
def stop_on_interrupt(request: StopRequest | None = None, says_so: bool = True) -> Iterator[StopRequest]:
    """Give a StopRequest that the first Ctrl-C sets; the second one raises KeyboardInterrupt.

    Outside the main thread, where Python cannot catch signals, Ctrl-C works as usual.
    """
    request = StopRequest() if request is None else request
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: object) -> None:
        if request:
            raise KeyboardInterrupt
        request.reason = "stopped by Ctrl-C"
        if says_so:
            text = "\nstopping after this step; press Ctrl-C again to stop at once"
            print(text, file=sys.stderr, flush=True)

    earlier = signal.signal(signal.SIGINT, handle)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, earlier)
