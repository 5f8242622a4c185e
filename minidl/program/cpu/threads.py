"""Threads that run parts of a program side by side.

NumPy and BLAS release the interpreter lock while they compute, so Python threads keep all cores
busy. Between phases the threads wait on locks, without spinning: a machine shared with other
processes loses nothing to them.

Two things may happen at any instant, and shape this file. A signal handler may raise in the calling
thread, between any two bytecodes (Ctrl-C). So what must not be torn apart is one call of a function of C,
for which Python runs no handlers: see `_run_all`. And the process may be forked, by any thread. A forked
child has the thread that forked and none of the others, and every lock as it was: see `renew_after_fork`.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from operator import call
from typing import Any, Protocol

Calls = Sequence[Callable[[], Any]]


def available_cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def can_start_threads() -> bool:
    """Return whether this system starts threads; in a browser, for example, Python cannot."""
    probe = threading.Thread(target=int, name="minidl probe", daemon=True)
    try:
        probe.start()
    except RuntimeError:
        return False
    probe.join()
    return True


def _run_all(calls: Calls) -> None:
    """Call everything in a sequence.

    Python runs signal handlers between bytecodes. There are none here: where all calls are functions of
    C, either all of them are made or none.
    """
    deque(map(call, calls), maxlen=0)


# --- forks ----------------------------------------------------------------------------------------


class _Renewable(Protocol):
    def after_fork(self) -> None: ...


_renewed: weakref.WeakSet[_Renewable] = weakref.WeakSet()


def renew_after_fork(owner: _Renewable) -> None:
    """Call ``owner.after_fork()`` in every forked child, as long as the owner lives.

    There it makes new locks and forgets its threads. The thread that forked may be inside a block
    ``with owner.lock:``; it leaves the lock that it entered, so replace locks and never release them.
    """
    _renewed.add(owner)


def _after_fork() -> None:
    for owner in list(_renewed):
        owner.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- the pool -------------------------------------------------------------------------------------

#: Where the flag lies in a barrier's memory that sends waiting threads home; see c_code.py.
ABORTED = 2


class ThreadPool:
    """The calling thread and ``size - 1`` workers, which start at the first run.

    Parameters
    ----------
    size : the number of threads, the caller included

    Attributes
    ----------
    barrier : memory for the barrier at which generated C functions of one phase wait for each other.
        Every run begins with zeros.
    """

    def __init__(self, size: int):
        self.size = size
        self.barrier = (ctypes.c_int32 * 16)()
        self._workers: list[_Worker] = []
        self._busy = threading.Lock()
        renew_after_fork(self)
        weakref.finalize(self, _dismiss, self._workers).atexit = False

    def run(self, phases: Sequence[Sequence[Calls]]) -> None:
        """Run each phase, its i-th list of calls on the i-th thread, and wait for all before the next.

        An error, or Ctrl-C, ends the run: calls of C that have begun are completed, no later phase
        begins, and the error is raised when no worker is at work any more. What the phases write may
        then be half done, as where plain code is interrupted; the next run starts from the beginning.
        """
        with self._busy:
            if len(self._workers) < self.size - 1:
                self._start_workers()
            _raise_first([_wait_for(self._workers)])  # if a second Ctrl-C left them at work in the last run
            ctypes.memset(self.barrier, 0, ctypes.sizeof(self.barrier))
            for phase in phases:
                self._run_phase(phase)

    def _run_phase(self, phase: Sequence[Calls]) -> None:
        started: list[_Worker] = []
        everything: list[Callable[[], Any]] = []
        for worker, calls in zip(self._workers, phase[1:], strict=True):
            if calls:
                worker.prepare(calls)
                everything += worker.start
                started.append(worker)
        everything += phase[0]
        error: BaseException | None = None
        interrupt: BaseException | None = None
        try:
            try:
                # One call, so that no worker waits at a barrier for a caller whom Ctrl-C took away.
                _run_all(everything)
            except BaseException:
                self.barrier[ABORTED] = 1
                raise
            interrupt = _wait_for(started)
        except BaseException as caught:
            error, interrupt = caught, _wait_for(started)
        _raise_first([error, interrupt, *(worker.take_error() for worker in started)])

    def _start_workers(self) -> None:
        workers: list[_Worker] = []
        try:
            for index in range(1, self.size):
                workers.append(_Worker(index, self.barrier))
                workers[-1].thread.start()
            self._workers[:] = workers
        except BaseException:
            _dismiss(workers)
            self._workers.clear()
            raise

    def after_fork(self) -> None:
        """Forget the threads of the parent; the next run starts new ones."""
        for worker in self._workers:
            worker.abandon()
        self._workers.clear()
        self._busy = threading.Lock()


class _Worker:
    """A thread that waits for calls, makes them, and waits again.

    It holds no reference to its pool, and between runs none to what it ran, so that both can be freed.
    The lock ``idle`` is held while the worker is at work.
    """

    def __init__(self, index: int, barrier: Any):
        self.calls: Calls = ()
        self.context = contextvars.Context()
        self.error: BaseException | None = None
        self.barrier = barrier
        self.is_dismissed = False
        self.go, self.idle = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.start = (self.idle.acquire, self.go.release)
        self.wait = (self.idle.acquire, self.idle.release)
        self.thread = threading.Thread(target=self._work, name=f"minidl worker {index}", daemon=True)

    def prepare(self, calls: Calls) -> None:
        """Set what is called at the start, under the settings (numpy.errstate) of the calling thread."""
        self.calls, self.context, self.error = calls, contextvars.copy_context(), None

    def take_error(self) -> BaseException | None:
        """Return what was raised, and forget it."""
        error, self.error = self.error, None
        return error

    def abandon(self) -> None:
        """In a forked child: let nobody wait for the thread, which is not there."""
        self.error = RuntimeError("the process was forked inside a step, which the child cannot complete")
        if self.idle.locked():
            self.idle.release()

    def _work(self) -> None:
        while True:
            self.go.acquire()
            if self.is_dismissed:
                return
            try:
                self.context.run(_run_all, self.calls)
            except BaseException as error:
                self.error = error
                self.barrier[ABORTED] = 1
            self.calls, self.context = (), contextvars.Context()
            self.idle.release()


def _wait_for(workers: Sequence[_Worker]) -> BaseException | None:
    """Wait until workers are idle, even if Ctrl-C comes meanwhile; return what it raised."""
    waits = [wait for worker in workers for wait in worker.wait]
    interrupt: BaseException | None = None
    while True:
        try:
            _run_all(waits)
            return interrupt
        except BaseException as caught:
            interrupt = caught


def _raise_first(problems: Sequence[BaseException | None]) -> None:
    """Raise the first exception of a list, or the first like KeyboardInterrupt if there is one."""
    raised = [problem for problem in problems if problem is not None]
    try:
        if raised:
            raise next((problem for problem in raised if not isinstance(problem, Exception)), raised[0])
    finally:
        del problems, raised  # the traceback refers to this function's variables


def _dismiss(workers: Sequence[_Worker]) -> None:
    """Let the threads of workers end."""
    for worker in workers:
        worker.is_dismissed = True
        if worker.go.locked():
            worker.go.release()


@cache
def thread_pool(size: int) -> ThreadPool:
    """Return the pool of this size. Programs share it, and run one after the other."""
    return ThreadPool(size)
