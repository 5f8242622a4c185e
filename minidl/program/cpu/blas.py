"""Matrix products by direct calls of BLAS, with an accumulating form and a thread count.

NumPy's matmul neither adds to its destination (beta = 1) nor says how many threads to use. Both are
a C call away: threadpoolctl finds the OpenBLAS that NumPy brought along, ctypes calls it. On Intel
processors MKL is 10 to 15% faster on the main job, and is used where it is installed. Where there is
neither, NumPy's matmul serves instead.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy

from minidl.program.cpu.threads import available_cores, can_start_threads, renew_after_fork
from minidl.program.plan.layout import blas_takes, layout_of

_ROW_MAJOR = 101
_LETTER = {numpy.dtype("float32"): "s", numpy.dtype("float64"): "d"}
_REAL = {"s": ctypes.c_float, "d": ctypes.c_double}


class Blas:
    """A library's gemm for float32 and float64, and its number of threads.

    Parameters
    ----------
    gemms : the C functions by letter, ``"s"`` and ``"d"``
    integer : the C type of lengths
    name : the library and its version
    set_threads, get_threads : None for a library that always uses one thread for a call
    """

    def __init__(
        self,
        gemms: dict[str, Any],
        integer: Any,
        name: str,
        set_threads: Any = None,
        get_threads: Any = None,
    ):
        self.functions, self.integer, self.name = gemms, integer, name
        for gemm in gemms.values():
            gemm.restype = None
        self.set_threads = set_threads or (lambda threads: None)
        self.get_threads = get_threads or (lambda: 1)

    def gemm(self, a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, add: bool) -> Callable[[], Any]:
        """Return a call that computes ``out = a @ b``, or ``out += a @ b``, for matrices in these places."""
        letter, real, integer = _LETTER[out.dtype], _REAL[_LETTER[out.dtype]], self.integer
        (transpose_a, stride_a), (transpose_b, stride_b) = layout_of(a), layout_of(b)
        arguments = (
            ctypes.c_int(_ROW_MAJOR),
            ctypes.c_int(transpose_a),
            ctypes.c_int(transpose_b),
            integer(a.shape[0]),
            integer(b.shape[1]),
            integer(a.shape[1]),
            real(1.0),
            ctypes.c_void_p(a.ctypes.data),
            integer(stride_a),
            ctypes.c_void_p(b.ctypes.data),
            integer(stride_b),
            real(1.0 if add else 0.0),
            ctypes.c_void_p(out.ctypes.data),
            integer(layout_of(out)[1]),
        )
        call = partial(self.functions[letter], *arguments)
        call.arrays = (a, b, out)  # type: ignore[attr-defined]  # C holds addresses, this holds the memory
        return call


@cache
def best_blas() -> Blas | None:
    """Return MKL if it is installed (``pip install minidl[mkl]``), else NumPy's OpenBLAS, else None."""
    return _mkl() or _openblas()


def _mkl() -> Blas | None:
    """Return the MKL of the package ``mkl``, told to use one thread for a call."""
    try:
        listed = importlib.metadata.files("mkl") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in listed:
        if file.name.startswith("libmkl_rt."):
            try:
                library = ctypes.CDLL(str(file.locate()))
                library.MKL_Set_Threading_Layer(1)  # MKL_THREADING_SEQUENTIAL
                gemms = {letter: getattr(library, f"cblas_{letter}gemm") for letter in "sd"}
                return Blas(gemms, ctypes.c_int, f"MKL {importlib.metadata.version('mkl')}")
            except (OSError, AttributeError):
                return None
    return None


def _openblas() -> Blas | None:
    """Return the OpenBLAS that NumPy uses; not in a browser, where such calls have not been tried."""
    if sys.platform == "emscripten":
        return None
    from threadpoolctl import threadpool_info

    libraries = [info for info in threadpool_info() if info["internal_api"] == "openblas"]
    libraries.sort(key=lambda info: "numpy" not in info["filepath"])  # SciPy brings one of its own
    for info in libraries:
        library = ctypes.CDLL(info["filepath"])
        for prefix, suffix in (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", "")):
            if hasattr(library, f"{prefix}cblas_sgemm{suffix}"):
                return Blas(
                    {letter: getattr(library, f"{prefix}cblas_{letter}gemm{suffix}") for letter in "sd"},
                    ctypes.c_int64 if suffix else ctypes.c_int,
                    f"OpenBLAS {info['version']} ({info['architecture']})",
                    getattr(library, f"{prefix}openblas_set_num_threads{suffix}"),
                    getattr(library, f"{prefix}openblas_get_num_threads{suffix}"),
                )
    return None


def default_threads() -> int:
    """Return how many threads share a program.

    One for each core, if threads can be started and BLAS can be told to use one in each.
    """
    cores = available_cores()
    return cores if cores > 1 and best_blas() is not None and can_start_threads() else 1


class _OneThreadEach:
    """Counts the threads for whose work each call of BLAS uses one thread; the last one restores the number.

    They are counted by their identifiers, so that none is counted for ever if Ctrl-C drives it out.
    """

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.before: int | None = None  # how many threads BLAS used
        self.lock = threading.Lock()
        renew_after_fork(self)

    def enter(self, blas: Blas) -> None:
        with self.lock:
            if self.before is None:
                self.before = blas.get_threads()
            self.inside.add(threading.get_ident())
            blas.set_threads(1)

    def leave(self, blas: Blas) -> None:
        with self.lock:
            self.inside.discard(threading.get_ident())
            self.restore(blas)

    def restore(self, blas: Blas) -> None:
        if self.before is not None and not self.inside:
            blas.set_threads(self.before)
            self.before = None

    def after_fork(self) -> None:
        """Count only the thread that forked."""
        self.lock = threading.Lock()
        self.inside &= {threading.get_ident()}
        blas = best_blas()
        if blas is not None:
            self.restore(blas)


_one_thread_each = _OneThreadEach()


def with_one_blas_thread_each(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``; meanwhile each call of BLAS uses one thread.

    So the threads of a pool call it side by side. Several threads may be inside this function at a time,
    each once. The number of threads is one setting of the library: other code that calls BLAS meanwhile
    uses one thread too. This is no context manager because Ctrl-C may come when ``__exit__`` is about to
    begin, which would then not run.
    """
    blas = best_blas()
    if blas is None:
        return function(*arguments)
    try:
        try:
            _one_thread_each.enter(blas)
            return function(*arguments)
        finally:
            _one_thread_each.leave(blas)
    except BaseException:
        _one_thread_each.leave(blas)  # again, for Ctrl-C may have come on the way out
        raise


def matmul_call(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, add: bool) -> Callable[[], Any]:
    """Return a call that computes ``out = a @ b``, or with ``add`` ``out += a @ b``."""
    blas = best_blas()
    if blas is not None and a.dtype == b.dtype == out.dtype and all(map(blas_takes, (a, b, out))):
        if out.strides[1] == out.itemsize:
            return blas.gemm(a, b, out, add)
        return blas.gemm(b.T, a.T, out.T, add)
    if add:
        return partial(_matmul_and_add, a, b, out)
    return partial(numpy.matmul, a, b, out)


def _matmul_and_add(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> None:
    out += a @ b
