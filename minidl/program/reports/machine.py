"""What minidl computes with on this machine, in a few lines: `minidl.devices.report()`."""

from __future__ import annotations

import numpy

from minidl import devices
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import best_blas, default_threads
from minidl.program.cpu.threads import available_cores, can_start_threads


def report() -> str:
    """Return the lines of the report."""
    compiler, blas, threads = kernel_cache.compiler(), best_blas(), default_threads()
    without = (
        "there is no C compiler (cc, gcc, clang, or `pip install minidl[compiler]`)"
        if kernel_cache.RUNS_PROGRAMS
        else "this system runs no C compiler"
    )
    library = "numpy.matmul: no BLAS was found that can be called directly" if blas is None else blas.name
    rows = [
        ("NumPy", f"{numpy.__version__}, matrix products by {library}"),
        ("threads", f"{threads} for large programs, 1 for small ones" if threads > 1 else _one_thread()),
        (
            "kernels",
            f"NumPy: {without}"
            if compiler is None
            else f"C for large programs, by {' '.join(compiler.command)}; NumPy for small ones",
        ),
        ("cache", _cache()),
        ("GPU", devices.gpu_problem() or ", ".join(devices.gpu_names())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _one_thread() -> str:
    """Return that one thread computes, and why."""
    if not can_start_threads():
        return "1: this system starts no others"
    return "1: this process may use one core" if available_cores() == 1 else "1: NumPy's BLAS has its own"


def _cache() -> str:
    """Return where compiled kernels are kept, or why they are not."""
    try:
        return str(kernel_cache.location())
    except (OSError, RuntimeError) as error:
        return f"none: {error}"
