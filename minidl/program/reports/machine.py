"""What minidl computes with on this machine, in a few lines: `minidl.devices.report()`."""

from __future__ import annotations

import numpy

from minidl import devices
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import best_blas, default_threads


def report() -> str:
    """Return the lines of the report."""
    compiler, blas = kernel_cache.compiler(), best_blas()
    library = "numpy.matmul: no BLAS was found that can be called directly" if blas is None else blas.name
    rows = [
        ("NumPy", f"{numpy.__version__}, matrix products by {library}"),
        ("threads", f"{default_threads()} for large programs, 1 for small ones"),
        (
            "kernels",
            "NumPy: there is no C compiler (cc, gcc, clang, or `pip install minidl[compiler]`)"
            if compiler is None
            else f"C for large programs, by {' '.join(compiler.command)}; NumPy for small ones",
        ),
        ("cache", _cache()),
        ("GPU", devices.gpu_problem() or ", ".join(devices.gpu_names())),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _cache() -> str:
    """Return where compiled kernels are kept, or why they are not."""
    try:
        return str(kernel_cache.location())
    except (OSError, RuntimeError) as error:
        return f"none: {error}"
