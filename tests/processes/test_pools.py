"""Pools of processes, started in every way Python has, compute with functions that their parent compiled."""

import multiprocessing
import os
import signal
import threading

import numpy
import pytest

import minidl as dl
from minidl.program.cpu import kernel_cache

needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")

both = {
    kernels: dl.compile(lambda x: dl.sum(dl.tanh(x @ x.T)), kernels=kernels, threads=2)
    for kernels in ("numpy", "c")
}


def compute(kernels, n):
    """What a worker of a pool does; one that hangs is ended."""
    if hasattr(signal, "alarm"):
        signal.alarm(120)
    return float(both[kernels](numpy.full((n, 8), 0.1, "float32")))


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_of_every_start_method(method, kernels):
    jobs = [(kernels, n) for n in (4, 8) * 4]
    expected = [compute(*job) for job in jobs]
    signal.alarm(0) if hasattr(signal, "alarm") else None
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap_async(compute, jobs).get(timeout=120) == expected
        pool.close()
        pool.join()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="files that are open are counted in /proc")
def test_threads_and_files_do_not_add_up():
    def count():
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def compile_and_run(kernels, n):
        step = dl.compile(lambda x: dl.sum(x * n), kernels=kernels, threads=2)
        for length in (3, 5):
            step(numpy.ones(length, "float32"))

    available = ["numpy"] + (["c"] if kernel_cache.compiler() else [])
    for kernels in available:
        compile_and_run(kernels, 1)
    before = count()
    for n in range(2, 6):
        for kernels in available:
            compile_and_run(kernels, n)
    assert count() == before
