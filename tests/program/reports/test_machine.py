"""`minidl.devices.report()`: what minidl computes with on this machine."""

import sys

import numpy

import minidl as dl
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import default_threads
from tests import strict_device


def lines():
    return dict(line.split(maxsplit=1) for line in dl.devices.report().splitlines())


def test_it_names_the_libraries_threads_and_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_CACHE", str(tmp_path))
    found = lines()
    assert found["NumPy"].startswith(f"{numpy.__version__}, matrix products by ")
    threads = default_threads()
    assert found["threads"].startswith(f"{threads} for large programs" if threads > 1 else "1: ")
    assert found["cache"] == str(tmp_path / "kernels")
    assert not list(tmp_path.iterdir())


def test_it_says_which_kernels_are_used_and_why(monkeypatch):
    compiler = kernel_cache.Compiler(("/opt/a c compiler", "cc"), "1", (), ())
    monkeypatch.setattr(kernel_cache, "compiler", lambda: compiler)
    assert lines()["kernels"] == "C for large programs, by /opt/a c compiler cc; NumPy for small ones"
    monkeypatch.setattr(kernel_cache, "compiler", lambda: None)
    assert lines()["kernels"].startswith("NumPy: there is no C compiler")
    monkeypatch.setattr(kernel_cache, "RUNS_PROGRAMS", False)
    assert lines()["kernels"] == "NumPy: this system runs no C compiler"


def test_it_names_each_gpu_or_says_why_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_device.module)
    assert lines()["GPU"].startswith("gpu:0 Strict device, gpu:1 Strict device")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert lines()["GPU"].startswith("CuPy is not installed")
