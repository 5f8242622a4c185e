"""Threads that run parts of a program side by side.

NumPy and BLAS release the interpreter lock while they compute, so Python threads keep all cores
busy. Between phases the threads wait on locks, without spinning: a machine shared with other
processes loses nothing to them.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

Calls = Sequence[Callable[[], Any]]


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ThreadPool:
    """The calling thread and ``size - 1`` workers.

    Parameters
    ----------
    size : the number of threads, the caller included
    """

    def __init__(self, size: int):
        self.size = size
        self.process = os.getpid()
        self.busy = threading.Lock()
        self.workers = [_Worker(i) for i in range(1, size)]

    def run(self, phases: Sequence[Sequence[Calls]]) -> None:
        """Run each phase, its i-th list of calls on the i-th thread, and wait for all before the next.

        An error, or Ctrl-C, is raised when no worker is at work any more: what they compute in is memory
        that the next run uses again.
        """
        with self.busy:
            for worker in self.workers:
                worker.finish()  # if Ctrl-C came at a moment when nobody waited
            for phase in phases:
                started = [worker for worker, calls in zip(self.workers, phase[1:], strict=True) if calls]
                error: BaseException | None = None
                try:
                    for worker in started:
                        worker.start(phase[worker.index])
                    for call in phase[0]:
                        call()
                except BaseException as caught:
                    error = caught
                for problem in [worker.finish() for worker in started]:
                    error = error or problem
                if error is not None:
                    raise error


class _Worker:
    def __init__(self, index: int):
        self.index = index
        self.calls: Calls = ()
        self.context = contextvars.copy_context()
        self.error: BaseException | None = None
        self.is_idle = True
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()
        threading.Thread(target=self._work, name=f"minidl worker {index}", daemon=True).start()

    def start(self, calls: Calls) -> None:
        """Begin with a list of calls, under the settings (numpy.errstate) of the calling thread."""
        self.calls, self.context = calls, contextvars.copy_context()
        self.is_idle = False
        self.go.release()

    def finish(self) -> BaseException | None:
        """Wait until the calls are through, also if Ctrl-C comes meanwhile; return what was raised."""
        interrupt: BaseException | None = None
        while not self.is_idle:
            try:
                self.done.acquire()
            except KeyboardInterrupt as caught:
                interrupt = caught
        error, self.error = self.error, None
        return interrupt or error

    def _work(self) -> None:
        while True:
            self.go.acquire()
            try:
                self.context.run(self._run)
            except BaseException as error:
                self.error = error
            self.is_idle = True
            if self.done.locked():  # or else nobody took it the last time
                self.done.release()

    def _run(self) -> None:
        for call in self.calls:
            call()


@cache
def _thread_pool(size: int, process: int) -> ThreadPool:
    return ThreadPool(size)


def thread_pool(size: int) -> ThreadPool:
    """Return the team of this size; a forked process gets its own."""
    return _thread_pool(size, os.getpid())
