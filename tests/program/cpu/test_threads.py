import contextlib
import ctypes
import gc
import os
import signal
import threading
import time
import weakref
from functools import partial

import numpy
import pytest

import minidl as dl
from minidl.program.cpu import blas, kernel_cache
from minidl.program.cpu.blas import best_blas, with_one_blas_thread_each
from minidl.program.cpu.threads import ABORTED, ThreadPool, thread_pool

needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
both_kernels = pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])


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


def test_an_interrupt_is_raised_even_if_a_worker_fails_too():
    def fail():
        raise ZeroDivisionError

    def interrupt():
        raise KeyboardInterrupt

    for calls in ([[interrupt], [fail]], [[fail], [interrupt]]):
        with pytest.raises(KeyboardInterrupt):
            ThreadPool(2).run([calls])


@pytest.mark.skipif(os.name != "posix", reason="the C library is found in another way")
def test_calls_of_c_are_all_made_before_an_interrupt_is_raised():
    """A worker may wait for the caller's call, so Ctrl-C after the worker's start must not prevent it."""
    pool, made = ThreadPool(2), []
    send = partial(ctypes.CDLL(None)["raise"], signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.run([[[send, partial(made.append, 1)], [partial(made.append, 2)]]])
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(made) == [1, 2]


def test_what_a_run_called_is_not_kept():
    class Memory:
        def __call__(self):
            pass

    pool, freed = ThreadPool(2), []
    memory = Memory()
    weakref.finalize(memory, freed.append, 1)
    pool.run([[[memory], [memory]]])
    del memory
    pool.run([[[], []]])
    assert freed == [1]


def test_threads_start_at_the_first_run_and_end_with_their_pool():
    pool = ThreadPool(4)
    assert not pool._workers
    for _ in range(10):
        pool.run([[[], [int], [int], [int]]])
        threads = [worker.thread for worker in pool._workers]
        assert len(threads) == 3
    assert all(thread.is_alive() for thread in threads)
    del pool
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_pool_that_cannot_start_its_threads_starts_them_later(monkeypatch):
    pool = ThreadPool(3)
    start, started = threading.Thread.start, []

    def fails_at_the_second(thread):
        started.append(thread)
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_at_the_second)
    with pytest.raises(RuntimeError, match="can't start"):
        pool.run([[[], [int], [int]]])
    monkeypatch.undo()
    done = []
    pool.run([[[], [lambda: done.append(1)], [lambda: done.append(2)]]])
    assert sorted(done) == [1, 2]
    started[0].join(10)
    assert not started[0].is_alive()  # the one that was started in vain


# --- BLAS -----------------------------------------------------------------------------------------


needs_openblas = pytest.mark.skipif(
    best_blas() is None or best_blas().get_threads() < 2, reason="BLAS uses one thread here"
)


@needs_openblas
def test_blas_threads_come_back_when_the_last_of_several_threads_is_through():
    library = best_blas()
    before = library.get_threads()
    inside, leave = threading.Barrier(3), threading.Event()

    def stay(fails):
        inside.wait()
        leave.wait()
        if fails:
            raise ZeroDivisionError

    def work(fails):
        with contextlib.suppress(ZeroDivisionError):
            with_one_blas_thread_each(stay, fails)

    threads = [threading.Thread(target=work, args=(fails,)) for fails in (False, True)]
    for thread in threads:
        thread.start()
    with_one_blas_thread_each(inside.wait)
    assert library.get_threads() == 1  # two are still inside
    leave.set()
    for thread in threads:
        thread.join()
    assert library.get_threads() == before


@needs_openblas
@both_kernels
def test_steps_in_several_threads_leave_blas_as_it_was(kernels):
    before = best_blas().get_threads()
    steps = [dl.compile(lambda x: dl.sum(x @ x.T), kernels=kernels, threads=n) for n in (1, 2)]

    def work(step):
        for _ in range(30):
            step(numpy.ones((20, 20), "float32"))

    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert best_blas().get_threads() == before
    assert not blas._one_thread_each.inside


# --- barriers in C --------------------------------------------------------------------------------


@needs_c
def test_a_thread_that_waits_at_a_barrier_in_vain_is_sent_home():
    from minidl.program.cpu.c_code import CSource

    pool, source = ThreadPool(2), CSource()
    source.segment([source.barrier(2)])
    (wait,) = source.build(pool.barrier)
    pool.run([[[wait], [wait]]])

    def fail():
        time.sleep(0.01)
        raise ZeroDivisionError

    for calls in ([[fail], [wait]], [[wait], [fail]]):
        with pytest.raises(ZeroDivisionError):
            pool.run([calls])
        assert pool.barrier[ABORTED] == 1
        pool.run([[[wait], [wait]]])
        assert pool.barrier[ABORTED] == 0


# --- forks ----------------------------------------------------------------------------------------


def exit_status_of(child) -> int:
    """Run a function in a forked child; a child that hangs is ended by SIGALRM (14)."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            signal.alarm(20)
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(process, 0)[1]


def trained_step(kernels):
    w = dl.Parameter(numpy.linspace(-1, 1, 64 * 64, dtype="float32").reshape(64, 64))
    optimizer = dl.SGD([w], 0.01)

    @dl.compile(kernels=kernels, threads=2)
    def step(x):
        loss = dl.mean(dl.tanh(x @ w) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    return step, w


@needs_fork
@both_kernels
def test_a_forked_child_goes_on_as_its_parent_does(kernels):
    step, w = trained_step(kernels)
    x = numpy.linspace(0, 1, 128 * 64, dtype="float32").reshape(128, 64)
    for _ in range(2):
        step(x)
    reader, writer = os.pipe()

    def child():
        for _ in range(3):
            step(x)
        os.write(writer, w.numpy().tobytes()[:1024])

    assert exit_status_of(child) == 0
    for _ in range(3):
        step(x)
    assert os.read(reader, 1024) == w.numpy().tobytes()[:1024]
    os.close(reader)
    os.close(writer)


@needs_fork
@both_kernels
@pytest.mark.parametrize("forks", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_child_may_be_forked_while_other_threads_are_inside_steps(kernels, forks):
    step, _ = trained_step(kernels)
    x = numpy.ones((512, 64), "float32")
    step(x)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            step(x)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(forks):
            assert exit_status_of(lambda: [step(x) for _ in range(3)]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@needs_fork
def test_a_fork_inside_a_step_is_refused_in_the_child():
    pool = ThreadPool(2)
    in_parent = os.getpid()
    statuses = []

    def fork():
        process = os.fork()
        if process:
            statuses.append(os.waitpid(process, 0)[1])
        else:
            signal.alarm(20)

    try:
        pool.run([[[fork], [lambda: time.sleep(0.2)]]])
    except RuntimeError as error:
        os._exit(3 if "forked inside a step" in str(error) else 4)
    finally:
        if os.getpid() != in_parent:
            os._exit(5)
    assert statuses == [3 << 8]
    pool.run([[[], [int]]])
