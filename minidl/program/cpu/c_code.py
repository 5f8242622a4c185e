"""C code of segments of a program: written down, built once, kept in a cache.

What a thread has to do, up to a step that only NumPy can do, is a segment: one C function, made of the
statements that lowering.py gives for each step. Threads wait for each other inside it, at barriers. It is
what large programs use on machines with a C compiler; nothing depends on it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy

from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import best_blas
from minidl.program.cpu.mathematics import MATHEMATICS
from minidl.program.cpu.threads import available_cores

_HEADER = """\
/* GCC moves expressions into the one of two branches that needs them. A loop that had choices instead of
   branches, as for log1p(exp(-abs(x))) in binary cross-entropy, then has branches and stays scalar. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre")
#endif
#include <stdatomic.h>
#include <stdint.h>
#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
/* Not inlined, as one step may have hundreds of calls, each of which would be compiled. */
#define INNER __attribute__((noinline))
__declspec(dllimport) int __stdcall SwitchToThread(void);
#else
#define EXPORTED
#define INNER __attribute__((noinline, visibility("hidden")))
#include <time.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include <tgmath.h>
%(mathematics)s
#undef abs
/* The innermost loop that follows writes nothing that another round of it reads. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
/* NaN in either operand comes out, as in NumPy. */
#define max(a, b) ((a) != (a) || (a) > (b) ? (a) : (b))
#define min(a, b) ((a) != (a) || (a) < (b) ? (a) : (b))
#define abs(a) ((a) > 0 ? (a) : 0 - (a))  /* 0 - -0.0 is 0.0 */

/* Integers in the order of the numbers; those of NaN are beyond all others, on either side. */
typedef int32_t rank_of_float;
typedef int64_t rank_of_double;
static inline int32_t turned_32(int32_t bits) { return bits ^ (bits >> 31 & INT32_MAX); }
static inline int64_t turned_64(int64_t bits) { return bits ^ (bits >> 63 & INT64_MAX); }
static inline int32_t rank_float(float x) { return turned_32(bits_of_float(x)); }
static inline int64_t rank_double(double x) { return turned_64(bits_of_double(x)); }
static inline float float_of_rank(int32_t rank) { return float_of(turned_32(rank)); }
static inline double double_of_rank(int64_t rank) { return double_of(turned_64(rank)); }

/* Replace a number by a larger one, or by NaN; return all bits if so, else 0. There are no conditions, of
   which compilers would make jumps where some follow each other. */
#define REPLACE(kind, integer, of) \
    static inline integer replace_##kind(kind *old, kind x) { \
        integer is = -((integer) ((x > *old) | (x != x))); \
        *old = of((bits_of_##kind(x) & is) | (bits_of_##kind(*old) & ~is)); \
        return is; \
    }
REPLACE(float, int32_t, float_of)
REPLACE(double, int64_t, double_of)

/* A float32 rounded to this number of bits after the leading one, ties to even; NaN stays. */
#define bits_of(x) bits_of_float(x)
static inline float round_off(float x, int bits) {
    uint32_t old = bits_of(x), last = 1u << (23 - bits);
    return x != x ? x : float_of((old + (last / 2 - 1) + (old / last & 1)) & ~(last - 1));
}

typedef struct { _Atomic int32_t arrived, round, aborted, asleep; } barrier;
typedef void (*sgemm)(int, int, int, integer, integer, integer, float, const void *, integer,
                      const void *, integer, float, void *, integer);
typedef void (*dgemm)(int, int, int, integer, integer, integer, double, const void *, integer,
                      const void *, integer, double, void *, integer);

/* A waiting thread first spins, as the others come within microseconds, and then gives its core away: on a
   busy machine one of them may need it. How long it spins is learned: longer where that was enough. */
enum { MIN_SPINS = 64, MAX_SPINS = 4096 };
static _Atomic int32_t patience = MAX_SPINS;

#if defined(_WIN32)
static void sleep_at(barrier *b, int32_t round) { (void)b; (void)round; SwitchToThread(); }
static void wake_all(barrier *b) { (void)b; }
#elif defined(SYS_futex)
/* Sleep until the round is over; look after a while in any case, as aborting wakes nobody. */
static void sleep_at(barrier *b, int32_t round) {
    struct timespec limit = {0, 1000000};
    atomic_fetch_add(&b->asleep, 1);
    syscall(SYS_futex, &b->round, 128 /* FUTEX_WAIT_PRIVATE */, round, &limit, 0, 0);
    atomic_fetch_sub(&b->asleep, 1);
}
static void wake_all(barrier *b) {
    if (atomic_load(&b->asleep))
        syscall(SYS_futex, &b->round, 129 /* FUTEX_WAKE_PRIVATE */, INT32_MAX, 0, 0, 0);
}
#else
static void sleep_at(barrier *b, int32_t round) {
    struct timespec while_others_come = {0, 20000};
    (void)b; (void)round;
    nanosleep(&while_others_come, 0);
}
static void wake_all(barrier *b) { (void)b; }
#endif

static inline void pause_core(void) {
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
    __builtin_ia32_pause();
#endif
}

/* Wait until all threads are here; return whether the run was aborted, so that they will never be. */
static int wait_at(barrier *b, int32_t threads) {
    int32_t round = atomic_load(&b->round);
    if (atomic_fetch_add(&b->arrived, 1) == threads - 1) {
        atomic_store(&b->arrived, 0);
        atomic_store(&b->round, round + 1);
        wake_all(b);
        return 0;
    }
    int32_t spins = 0, limit = atomic_load_explicit(&patience, memory_order_relaxed);
    while (atomic_load(&b->round) == round) {
        if (atomic_load(&b->aborted)) return atomic_load(&b->round) == round;
        if (spins++ < limit) pause_core();
        else sleep_at(b, round);
    }
    limit = spins <= limit ? limit * 2 : limit / 2;
    limit = limit < MIN_SPINS ? MIN_SPINS : limit > MAX_SPINS ? MAX_SPINS : limit;
    atomic_store_explicit(&patience, limit, memory_order_relaxed);
    return 0;
}
""".replace("%(mathematics)s", MATHEMATICS)

#: What a segment returns that found a position outside of its axis; else it returns 0.
OUT_OF_RANGE = 1


def _check(result: int) -> None:
    """Raise what a segment of C reports; the pool then sends the other threads home."""
    if result == OUT_OF_RANGE:
        raise IndexError("a position is outside of the axis that it indexes")


#: How statements refer to an array.
_ADDRESS = re.compile(r"\bp\[(\d+)\]")
#: What a statement has in it that may return OUT_OF_RANGE.
_RETURN = re.compile(r"\breturn\b")


#: The fewest functions for which another run of the compiler pays.
MIN_UNIT = 8


class CSource:
    """C code being written: statements refer to arrays by their place in a table of addresses.

    The code depends on shapes and operations alone, so that it is found in the cache by the next
    process.
    """

    def __init__(self) -> None:
        self.arrays: list[numpy.ndarray] = []
        self.functions: dict[str, str] = {}  # the body of each step that differs from others, and its name
        self.segments: list[str] = []

    def address(self, array: numpy.ndarray) -> str:
        """Return the C expression for the address of an array's first element."""
        self.arrays.append(array)
        return f"p[{len(self.arrays) - 1}]"

    def segment(self, statements: list[str]) -> int:
        """Add a function that runs statements; return its number."""
        number = len(self.segments)
        body = "\n    ".join(map(self._call, statements))
        self.segments.append(
            f"EXPORTED int segment_{number}(void **p, sgemm s, dgemm d, barrier *b) {{\n"
            f"    {body}\n    return 0;\n}}\n"
        )
        return number

    def _call(self, statement: str) -> str:
        """Return the call of the function that a statement becomes; a barrier stays as it is.

        Statements that differ in their addresses alone share a function, as the steps of a recurrence and the
        blocks of the threads do. Each finds its addresses side by side in the table.
        """
        places = [int(place) for place in _ADDRESS.findall(statement)]
        if not places:
            return statement
        first = min(places)
        body = _ADDRESS.sub(lambda match: f"p[{int(match.group(1)) - first}]", statement)
        name = self.functions.setdefault(body, f"step_{len(self.functions)}")
        call = f"{name}(p + {first}, s, d)"
        return f"if ({call}) return {OUT_OF_RANGE};" if _RETURN.search(body) else f"{call};"

    def barrier(self, threads: int) -> str:
        """Return the statement that waits for the other threads."""
        return f"if (wait_at(b, {threads})) return 0;"

    def _units(self) -> Iterator[str]:
        """Yield the functions of the steps and segments, in parts that are compiled side by side."""
        units = max(1, min(available_cores(), len(self.functions) // MIN_UNIT))
        declared = "INNER int {}(void **p, sgemm s, dgemm d)"
        yield "".join(f"{declared.format(name)};\n" for name in self.functions.values())
        definitions = [
            f"{declared.format(name)} {{\n    {body}\n    return 0;\n}}\n"
            for body, name in self.functions.items()
        ]
        for unit in range(units):
            parts = definitions[unit::units] + (self.segments if unit == 0 else [])
            yield "\n".join([kernel_cache.UNIT.format(unit), *parts, "#endif"] if units > 1 else parts)

    def build(self, barrier: Any = None) -> list[Callable[[], Any]]:
        """Compile everything and return a call for each segment.

        ``barrier`` is the memory of the pool whose threads wait for each other.
        """
        if not self.segments:
            return []
        blas = best_blas()
        integer = "int64_t" if blas is None or blas.integer is ctypes.c_int64 else "int"
        text = _HEADER.replace("typedef struct", f"typedef {integer} integer;\ntypedef struct", 1)
        library = kernel_cache.load("\n".join([text, *self._units()]))
        table = (ctypes.c_void_p * max(len(self.arrays), 1))(*(array.ctypes.data for array in self.arrays))
        products = [ctypes.cast(blas.functions[letter], ctypes.c_void_p) if blas else None for letter in "sd"]
        calls: list[Callable[[], Any]] = []
        for number in range(len(self.segments)):
            function = library[f"segment_{number}"]  # as an attribute, it would be kept by the library
            function.restype = _check
            call = partial(function, table, *products, barrier)
            call.arrays = self.arrays  # type: ignore[attr-defined]  # C holds addresses, this the memory
            calls.append(call)
        return calls
