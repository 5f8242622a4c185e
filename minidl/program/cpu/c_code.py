"""C code of segments of a program: written down, built once, kept in a cache.

What a thread has to do, up to a step that only NumPy can do, is a segment: one C function, made of the
statements that lowering.py gives for each step. Threads wait for each other inside it, at barriers. This is
an option (``compile(..., kernels="c")``) for machines with a C compiler; nothing depends on it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy

from minidl import files
from minidl.errors import KernelError
from minidl.program.cpu.blas import best_blas

_FLAGS = [
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
]
_HEADER = """\
#include <stdatomic.h>
#include <stdint.h>
#include <sched.h>
#ifdef __linux__
/* glibc's libmvec has vector forms of these. */
__attribute__((simd("notinbranch"))) float expf(float);
__attribute__((simd("notinbranch"))) float logf(float);
__attribute__((simd("notinbranch"))) float log1pf(float);
__attribute__((simd("notinbranch"))) float tanhf(float);
__attribute__((simd("notinbranch"))) float powf(float, float);
#endif
#include <tgmath.h>
#undef abs
/* NaN in either operand comes out, as in NumPy. */
#define max(a, b) ((a) != (a) || (a) > (b) ? (a) : (b))
#define min(a, b) ((a) != (a) || (a) < (b) ? (a) : (b))
#define abs(a) ((a) > 0 ? (a) : 0 - (a))  /* 0 - -0.0 is 0.0 */

/* A float32 rounded to this number of bits after the leading one, ties to even; NaN stays. */
static inline uint32_t bits_of(float x) { return (union { float number; uint32_t bits; }) {x}.bits; }
static inline float round_off(float x, int bits) {
    uint32_t old = bits_of(x), last = 1u << (23 - bits);
    union { uint32_t bits; float number; } rounded = {old + (last / 2 - 1) + (old / last & 1)};
    rounded.bits &= ~(last - 1);
    return x != x ? x : rounded.number;
}

typedef struct { _Atomic int64_t arrived, round; } barrier;
typedef void (*sgemm)(int, int, int, integer, integer, integer, float, const void *, integer,
                      const void *, integer, float, void *, integer);
typedef void (*dgemm)(int, int, int, integer, integer, integer, double, const void *, integer,
                      const void *, integer, double, void *, integer);

/* Wait until all threads are here: spinning, as they arrive within microseconds, and later yielding. */
static void wait_at(barrier *b, int64_t threads) {
    int64_t round = atomic_load(&b->round);
    if (atomic_fetch_add(&b->arrived, 1) == threads - 1) {
        atomic_store(&b->arrived, 0);
        atomic_store(&b->round, round + 1);
        return;
    }
    for (int64_t spins = 0; atomic_load(&b->round) == round; spins++)
        if (spins > 20000) sched_yield();
}
"""


@cache
def compiler() -> str | None:
    """Return the path of a C compiler, or None."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


class CSource:
    """C code being written: statements refer to arrays by their place in a table of addresses.

    The code depends on shapes and operations alone, so that it is found in the cache by the next
    process.
    """

    def __init__(self) -> None:
        self.arrays: list[numpy.ndarray] = []
        self.functions: list[str] = []

    def address(self, array: numpy.ndarray) -> str:
        """Return the C expression for the address of an array's first element."""
        self.arrays.append(array)
        return f"p[{len(self.arrays) - 1}]"

    def segment(self, statements: list[str]) -> int:
        """Add a function that runs statements; return its number."""
        number = len(self.functions)
        body = "\n    ".join(statements)
        self.functions.append(
            f"void segment_{number}(void **p, sgemm s, dgemm d, barrier *b) {{\n    {body}\n}}\n"
        )
        return number

    def barrier(self, threads: int) -> str:
        """Return the statement that waits for the other threads."""
        return f"wait_at(b, {threads});"

    def build(self) -> list[Callable[[], Any]]:
        """Compile everything and return a call for each segment."""
        if not self.functions:
            return []
        blas = best_blas()
        integer = "int64_t" if blas is None or blas.integer is ctypes.c_int64 else "int"
        text = _HEADER.replace("typedef struct", f"typedef {integer} integer;\ntypedef struct", 1)
        library = ctypes.CDLL(str(_built(text + "\n".join(self.functions))))
        table = (ctypes.c_void_p * max(len(self.arrays), 1))(*(array.ctypes.data for array in self.arrays))
        barrier = (ctypes.c_int64 * 2)()
        products = [ctypes.cast(blas.functions[letter], ctypes.c_void_p) if blas else None for letter in "sd"]
        calls: list[Callable[[], Any]] = []
        for number in range(len(self.functions)):
            function = getattr(library, f"segment_{number}")
            function.restype = None
            call = partial(function, table, *products, barrier)
            call.arrays = self.arrays  # type: ignore[attr-defined]  # C holds addresses, this the memory
            calls.append(call)
        return calls


# --- building -------------------------------------------------------------------------------------


def _built(source: str) -> Path:
    """Return the shared library of a source, from the cache or built now."""
    program = compiler()
    if program is None:
        raise RuntimeError(
            "kernels='c' needs a C compiler (cc, gcc or clang) on the PATH; kernels='numpy' needs none"
        )
    key = hashlib.sha256("\0".join([source, program, *_FLAGS, _processor()]).encode()).hexdigest()[:24]
    try:
        folder = files.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return _compiled(source, program, folder / f"kernels-{key}.so")
    except (OSError, RuntimeError):  # no home, or a cache that cannot be written
        return _compiled(source, program, Path(tempfile.mkdtemp(prefix="minidl-")) / f"kernels-{key}.so")


def _compiled(source: str, program: str, library: Path) -> Path:
    if library.exists():
        return library
    with files.replacing(library) as temporary:
        written = temporary.with_suffix(".c")
        written.write_text(source)
        link = ["-lmvec", "-lm"] if os.uname().sysname == "Linux" else []
        run = subprocess.run(
            [program, *_FLAGS, str(written), "-o", str(temporary), *link], capture_output=True, text=True
        )
        written.unlink()
        if run.returncode:
            raise KernelError(f"the C compiler refused a generated kernel:\n{run.stderr}")
    return library


@cache
def _processor() -> str:
    """Return what tells processors apart, because the code is made for the one it is built on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join(os.uname())
    return "".join(line for line in lines[:30] if line.startswith(("model name", "flags")))
