"""The pool of threads: phases, errors, interrupts and settings."""

import signal
import threading
import time

import numpy
import pytest

from minidl.program.cpu.threads import ThreadPool, thread_pool


def test_a_phase_ends_when_all_threads_are_through():
    pool, log, lock = ThreadPool(3), [], threading.Lock()

    def note(what):
        with lock:
            log.append(what)

    phases = [[[lambda p=p: note(p)] * (thread + 1) for thread in range(3)] for p in range(4)]
    pool.run(phases)
    assert log == [p for p in range(4) for _ in range(6)]


def test_errors_of_workers_are_raised_and_the_pool_goes_on():
    pool = ThreadPool(2)

    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run([[[], [fail]]])
    done = []
    pool.run([[[], [lambda: done.append(1)]]])
    assert done == [1]


def test_an_error_is_raised_once_and_no_worker_is_left_at_work():
    pool, done = ThreadPool(3), []

    def fail():
        raise ZeroDivisionError

    def slow():
        time.sleep(0.05)
        done.append(1)

    for calls in ([[fail], [slow], [slow]], [[], [fail], [slow]], [[fail], [fail], [slow]]):
        done.clear()
        with pytest.raises(ZeroDivisionError):
            pool.run([calls])
        assert len(done) == calls.count([slow])
        pool.run([[[], [slow], []]])  # raises nothing that came before
        assert len(done) == calls.count([slow]) + 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that interrupt")
def test_after_an_interrupt_the_pool_waits_for_its_workers_as_before():
    """Ctrl-C while the caller waits for a worker, while it works itself, and somewhere."""
    pool, done = ThreadPool(2), []

    def slow():
        time.sleep(0.03)
        done.append(1)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for calls in ([[], [slow]], [[slow], [slow]], [[slow, slow], [slow]]):
            done.clear()
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(KeyboardInterrupt):
                pool.run([calls])
            assert len(done) >= 1  # the worker's
            for _ in range(3):
                done.clear()
                pool.run([[[], [slow]]])
                assert done == [1]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_workers_follow_the_callers_floating_point_settings():
    pool = thread_pool(2)
    zero = numpy.zeros(2)
    with numpy.errstate(divide="raise"), pytest.raises(FloatingPointError):
        pool.run([[[], [lambda: numpy.divide(1.0, zero)]]])
    with numpy.errstate(divide="ignore"):
        pool.run([[[], [lambda: numpy.divide(1.0, zero)]]])
