"""One network, one use at a time: a training changes what a prediction beside it would compute with."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from minidl.layers.layer import Layer
from minidl.program.cpu.threads import renew_after_fork


class _Use:
    """Who uses a network: any thread that holds the lock; ``trained_by`` is the one that trains it."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child, no other thread uses the network."""
        self.lock = threading.RLock()
        self.trained_by: int | None = None


_uses: weakref.WeakKeyDictionary[Layer, _Use] = weakref.WeakKeyDictionary()
_uses_lock = threading.Lock()


def _use_of(network: Layer) -> _Use:
    with _uses_lock:
        return _uses.setdefault(network, _Use())


@contextmanager
def using(network: Layer, what: str) -> Iterator[None]:
    """Use a network alone for a ``with`` block; wait for other predictions and evaluations.

    Raises
    ------
    RuntimeError
        Another thread is training the network.
    """
    use = _use_of(network)
    if use.trained_by not in (None, threading.get_ident()):
        raise RuntimeError(
            f"{what}: the network is being trained in another thread, whose steps change it: wait for the "
            "end, use a copy.deepcopy() of the network, or predict in a callback of the training"
        )
    with use.lock:
        yield


@contextmanager
def training(network: Layer) -> Iterator[None]:
    """Train a network for a ``with`` block, after other threads' predictions have ended."""
    with using(network, "fit"):
        use = _use_of(network)
        outer, use.trained_by = use.trained_by, threading.get_ident()
        try:
            yield
        finally:
            use.trained_by = outer
