"""What apply() does besides computing, for each thread: record a tape, record a program, call a hook."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from typing import Any


class Mode(threading.local):
    """What apply() does besides computing; each thread has its own."""

    grad_enabled = True  # remember how Tensors were made, so that gradients can be found
    recorder: Any = None  # told of every primitive while a step is being compiled
    filling = False  # sizes that Layers left open are being filled from a sample
    layer_hook: Any = None  # called in place of every Layer's forward, to look inside a network


mode = Mode()


class no_grad(ContextDecorator):
    """Switch the tape off: ``with no_grad():`` or ``@no_grad()``. What is computed has no gradient."""

    def __init__(self) -> None:
        self._outer: list[bool] = []

    def _recreate_cm(self) -> no_grad:
        return no_grad()  # a decorated function may run in several threads: one manager for each call

    def __enter__(self) -> None:
        self._outer.append(mode.grad_enabled)
        mode.grad_enabled = False

    def __exit__(self, *exception: object) -> None:
        mode.grad_enabled = self._outer.pop()
