"""What a program gets by default: C or NumPy, and how many threads; both by its costs."""

import threading

import numpy
import pytest

import minidl as dl
from minidl.errors import KernelError
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import default_threads
from minidl.program.cpu.threads import can_start_threads
from tests.program.networks import needs_c

SMALL, LARGE = (4, 3), (2048, 256)


def executor_of(shape, **options):
    step = dl.compile(lambda x: dl.sum(dl.tanh(x) * 2 + dl.exp(x)), **options)
    step(numpy.zeros(shape, "float32"))
    return step.programs[0].executor


@needs_c
def test_large_programs_use_c_and_all_threads():
    executor = executor_of(LARGE)
    assert (executor.kernels, executor.threads) == ("c", default_threads())
    assert executor.note().startswith("C kernels, ")


def test_small_programs_use_numpy_and_one_thread_and_never_the_compiler(monkeypatch):
    monkeypatch.setattr(kernel_cache, "compiler", lambda: pytest.fail("the compiler was asked for"))
    executor = executor_of(SMALL)
    assert (executor.kernels, executor.threads) == ("numpy", 1)
    assert executor.note().startswith("NumPy kernels (too small to gain from C), 1 thread(s)")


def test_without_a_compiler_large_programs_use_numpy(monkeypatch):
    monkeypatch.setattr(kernel_cache, "compiler", lambda: None)
    executor = executor_of(LARGE)
    assert executor.kernels == "numpy"
    assert executor.note().startswith("NumPy kernels (there is no C compiler), ")
    with pytest.raises(KernelError, match="needs a C compiler"):
        executor_of(LARGE, kernels="c")


def test_where_no_thread_can_be_started_one_computes(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    can_start_threads.cache_clear()
    try:
        assert default_threads() == 1
        assert executor_of(LARGE).threads == executor_of(LARGE, threads=2).threads == 1
        assert "1: this system starts no others" in dl.devices.report()
    finally:
        can_start_threads.cache_clear()


@needs_c
def test_what_the_user_says_is_done_for_programs_of_any_size():
    small = executor_of(SMALL, kernels="c", threads=2)
    assert (small.kernels, small.threads) == ("c", 2)
    large = executor_of(LARGE, kernels="numpy", threads=1)
    assert (large.kernels, large.threads) == ("numpy", 1)
    assert large.note().startswith("NumPy kernels, 1 thread(s)")


def test_a_compiler_that_does_not_work_is_done_without(monkeypatch):
    def refuse(*arguments):
        raise KernelError("this is not C")

    monkeypatch.setattr(kernel_cache, "compiler", lambda: kernel_cache.Compiler(("cc",), "", (), ()))
    monkeypatch.setattr(kernel_cache, "load", refuse)
    with pytest.warns(RuntimeWarning, match="NumPy computes: this is not C"):
        executor = executor_of(LARGE)
    assert executor.note().startswith("NumPy kernels (no generated C can be used here)")
    with pytest.raises(KernelError, match="this is not C"):
        executor_of(LARGE, kernels="c")


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="use one of 'auto', 'c', 'numpy'"):
        executor_of(SMALL, kernels="fortran")
