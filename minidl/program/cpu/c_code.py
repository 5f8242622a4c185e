"""Steps as C: generated from the primitives' expressions, built once, kept in a cache.

The same expressions from which CUDA kernels are generated are valid C. An elementwise group becomes one
loop: every array is read once and written once, and everything in between stays in registers. Matrix
products call BLAS. What a thread has to do, up to a step that only NumPy
can do, is one C function; where threads must meet, they meet inside it. This is an option
(``compile(..., kernels="c")``) for machines with a C compiler; nothing depends on it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import Blas, best_blas
from minidl.program.expressions import Unsupported, expression
from minidl.program.plan.layout import Layout, blas_takes, layout_of
from minidl.program.program import Instruction, Value

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "bool": "_Bool",
}
_HEADER = """\
#include <stdatomic.h>
#include <stdint.h>
#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
__declspec(dllimport) int __stdcall SwitchToThread(void);
#else
#define EXPORTED
#include <time.h>
#endif
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__GLIBC__) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
/* glibc's libmvec has vector forms of these. */
__attribute__((simd("notinbranch"))) float expf(float);
__attribute__((simd("notinbranch"))) float logf(float);
__attribute__((simd("notinbranch"))) float powf(float, float);
#if __GLIBC_PREREQ(2, 35)
__attribute__((simd("notinbranch"))) float log1pf(float);
__attribute__((simd("notinbranch"))) float tanhf(float);
#endif
#endif
#include <tgmath.h>
#undef abs
/* NaN in either operand comes out, as in NumPy. */
#define max(a, b) ((a) != (a) || (a) > (b) ? (a) : (b))
#define min(a, b) ((a) != (a) || (a) < (b) ? (a) : (b))
#define abs(a) ((a) > 0 ? (a) : 0 - (a))  /* 0 - -0.0 is 0.0 */

/* A float32 rounded to so many bits after the leading one, ties to even; NaN stays. */
static inline uint32_t bits_of(float x) { return (union { float number; uint32_t bits; }) {x}.bits; }
static inline float round_off(float x, int bits) {
    uint32_t old = bits_of(x), last = 1u << (23 - bits);
    union { uint32_t bits; float number; } rounded = {old + (last / 2 - 1) + (old / last & 1)};
    rounded.bits &= ~(last - 1);
    return x != x ? x : rounded.number;
}

typedef struct { _Atomic int32_t arrived, round, aborted, asleep; } barrier;
typedef void (*sgemm)(int, int, int, integer, integer, integer, float, const void *, integer,
                      const void *, integer, float, void *, integer);
typedef void (*dgemm)(int, int, int, integer, integer, integer, double, const void *, integer,
                      const void *, integer, double, void *, integer);

/* A waiting thread first spins, as the others come within microseconds, and then gives its core away: on a
   busy machine one of them may need it. How long it spins is learned: longer where that was enough. */
enum { LEAST_SPINS = 64, MOST_SPINS = 4096 };
static _Atomic int32_t patience = MOST_SPINS;

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
    limit = limit < LEAST_SPINS ? LEAST_SPINS : limit > MOST_SPINS ? MOST_SPINS : limit;
    atomic_store_explicit(&patience, limit, memory_order_relaxed);
    return 0;
}
"""


class Source:
    """C code in the making: statements refer to arrays by their place in a table of addresses.

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
            f"EXPORTED void segment_{number}(void **p, sgemm s, dgemm d, barrier *b) {{\n    {body}\n}}\n"
        )
        return number

    def barrier(self, threads: int) -> str:
        """Return the statement that waits for the other threads."""
        return f"if (wait_at(b, {threads})) return;"

    def build(self, barrier: Any = None) -> list[Callable[[], Any]]:
        """Compile everything and return a call for each segment.

        ``barrier`` is the memory of the pool whose threads wait for each other.
        """
        if not self.functions:
            return []
        blas = best_blas()
        integer = "int64_t" if blas is None or blas.integer is ctypes.c_int64 else "int"
        text = _HEADER.replace("typedef struct", f"typedef {integer} integer;\ntypedef struct", 1)
        library = kernel_cache.load(text + "\n".join(self.functions))
        table = (ctypes.c_void_p * max(len(self.arrays), 1))(*(array.ctypes.data for array in self.arrays))
        products = [ctypes.cast(blas.functions[letter], ctypes.c_void_p) if blas else None for letter in "sd"]
        calls: list[Callable[[], Any]] = []
        for number in range(len(self.functions)):
            function = getattr(library, f"segment_{number}")
            function.restype = None
            call = partial(function, table, *products, barrier)
            call.arrays = self.arrays  # type: ignore[attr-defined]  # C holds addresses, this the memory
            calls.append(call)
        return calls


# --- statements -----------------------------------------------------------------------------------


def gemm_statement(source: Source, a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, add: bool) -> str:
    """Return the call of BLAS for ``out = a @ b`` or ``out += a @ b``."""
    blas: Blas | None = best_blas()
    if blas is None or not (a.dtype == b.dtype == out.dtype) or not all(map(blas_takes, (a, b, out))):
        raise Unsupported
    if out.strides[1] != out.itemsize:
        a, b, out = b.T, a.T, out.T
    layouts: list[Layout] = [layout_of(matrix) for matrix in (a, b, out)]
    function = "s" if out.dtype == numpy.float32 else "d"
    return (
        f"{function}(101, {layouts[0][0]}, {layouts[1][0]}, {a.shape[0]}, {b.shape[1]}, {a.shape[1]}, 1, "
        f"{source.address(a)}, {layouts[0][1]}, {source.address(b)}, {layouts[1][1]}, {int(add)}, "
        f"{source.address(out)}, {layouts[2][1]});"
    )


#: Up to how many elements a sum adds up one by one. Longer ones are sums of such sums, so that rounding
#: errors hardly grow with the length.
SUM_RUN = 1024

#: How many columns a sum over rows takes at once: their sums stay in the L1 cache.
SUM_COLUMNS = 256


def sum_statement(source: Source, x: numpy.ndarray, axis: tuple[int, ...], out: numpy.ndarray) -> str:
    """Return the loops that sum a matrix over its rows, its columns, or both; others are unsupported."""
    kind = _c_type(x.dtype)
    if x.dtype.kind != "f" or out.dtype != x.dtype or x.size == 0 or not (axis or x.ndim == 0):
        raise Unsupported
    if len(axis) == x.ndim:  # everything: walk along the memory
        x = x.reshape(1, -1) if x.flags.c_contiguous else x
        axis = (0, 1)
    elif axis == (0,) and x.flags.c_contiguous:  # rows of any shape: walk along each
        x = x.reshape(len(x), -1)
    if x.ndim != 2:
        raise Unsupported
    strides = [stride // x.itemsize for stride in x.strides]
    address = f"{kind} *x = {source.address(x)}, *y = {source.address(out)};"
    if axis == (0, 1):
        outer, inner = (0, 1) if strides[1] <= strides[0] else (1, 0)
        return (
            f"{{ {address} double t = 0; for (int64_t r = 0; r < {x.shape[outer]}; r++) {{\n"
            f"{_run_sums(kind, x.shape[inner], f'r * {strides[outer]} + c * {strides[inner]}')}    }}\n"
            f"    y[0] = t; }}"
        )
    kept = 1 - axis[0]
    places = out.reshape(-1) if out.flags.c_contiguous else None
    if places is None or len(places) != x.shape[kept]:
        raise Unsupported
    if strides[kept] <= strides[axis[0]]:  # add row to row
        index = f"r * {strides[axis[0]]} + (k + c) * {strides[kept]}"
        return (
            f"{{ {address} for (int64_t k = 0; k < {x.shape[kept]}; k += {SUM_COLUMNS}) {{\n"
            f"    int64_t n = {x.shape[kept]} - k < {SUM_COLUMNS} ? {x.shape[kept]} - k : {SUM_COLUMNS};\n"
            f"    {kind} t[{SUM_COLUMNS}] = {{0}};\n"
            f"    for (int64_t q = 0; q < {x.shape[axis[0]]}; q += {SUM_RUN}) {{\n"
            f"    {kind} u[{SUM_COLUMNS}] = {{0}};\n"
            f"    for (int64_t r = q; r < q + {SUM_RUN} && r < {x.shape[axis[0]]}; r++)\n"
            f"    for (int64_t c = 0; c < n; c++) u[c] += x[{index}];\n"
            f"    for (int64_t c = 0; c < n; c++) t[c] += u[c]; }}\n"
            f"    for (int64_t c = 0; c < n; c++) y[k + c] = t[c]; }} }}"
        )
    return (
        f"{{ {address} for (int64_t r = 0; r < {x.shape[kept]}; r++) {{ double t = 0;\n"
        f"{_run_sums(kind, x.shape[axis[0]], f'r * {strides[kept]} + c * {strides[axis[0]]}')}"
        f"    y[r] = t; }} }}"
    )


def _run_sums(kind: str, length: int, index: str) -> str:
    """Return the loops that add elements to ``t``, run by run; ``index`` is the place of element ``c``."""
    return (
        f"    for (int64_t q = 0; q < {length}; q += {SUM_RUN}) {{\n"
        f"    int64_t end = q + {SUM_RUN} < {length} ? q + {SUM_RUN} : {length}; {kind} u = 0;\n"
        f"    #pragma omp simd reduction(+:u)\n"
        f"    for (int64_t c = q; c < end; c++) u += x[{index}];\n"
        f"    t += u; }}\n"
    )


def group_statement(
    source: Source,
    members: list[Instruction],
    outputs: list[Value],
    places: dict[Value, numpy.ndarray],
    shape: tuple[int, ...],
) -> str:
    """Return the loops of an elementwise group over blocks of its arrays, all of one shape or broadcast.

    ``places`` has the array, or the block of it, of every value that is read or written in memory.
    """
    if math.prod(shape) == 0:
        return ";"
    loops, positions = _walk(places, shape)
    names: dict[Value, str] = {}
    pointers, body = [], []
    inside = {member.output for member in members}
    for i, (value, array) in enumerate(places.items()):
        kind = _c_type(value.dtype)
        pointers.append(f"{kind} *q{i} = {source.address(array)};")
        if value not in inside:
            names[value] = f"v{len(names)}"
            body.append(f"{kind} {names[value]} = q{i}[{positions[i]}];")
    for member in members:
        if member.name == "power" and member.output.dtype.kind != "f":
            raise Unsupported  # C has pow() for floating-point numbers alone
        written = expression(member, names, _c_type)
        names[member.output] = f"v{len(names)}"
        body.append(f"{_c_type(member.output.dtype)} {names[member.output]} = {written};")
    # Stores come last, so that a new state may lie where the old one was read.
    body += [f"q{i}[{positions[i]}] = {names[v]};" for i, v in enumerate(places) if v in set(outputs)]
    lines = "\n        ".join(body)
    return f"{{ {' '.join(pointers)}\n    {loops} {{\n        {lines}\n    }} }}"


def _walk(places: dict[Value, numpy.ndarray], shape: tuple[int, ...]) -> tuple[str, list[str]]:
    """Return loops over all elements, and for each array the index of an element in them."""
    size = math.prod(shape)
    one_run = all(
        array.size == 1
        or (
            array.shape == shape
            and (array.flags.c_contiguous or (array.flags.f_contiguous and array.ndim == 2))
        )
        for array in places.values()
    )
    orders = {array.flags.c_contiguous for array in places.values() if array.size > 1 and array.ndim == 2}
    if one_run and (len(orders) < 2 or 1 in shape):
        loops = f"\n    #pragma GCC ivdep\n    for (int64_t c = 0; c < {size}; c++)"
        return loops, ["0" if array.size == 1 else "c" for array in places.values()]
    strides = [_matrix_strides(array, shape) for array in places.values()]
    lengths = (shape[0], size // shape[0])
    # The inner loop runs along the axis in which more arrays are contiguous.
    rows_inside = sum(s[0] == 1 for s in strides) > sum(s[1] == 1 for s in strides)
    outer, inner = (1, 0) if rows_inside else (0, 1)
    loops = (
        f"for (int64_t r = 0; r < {lengths[outer]}; r++)\n    #pragma GCC ivdep\n"
        f"    for (int64_t c = 0; c < {lengths[inner]}; c++)"
    )
    return loops, [f"r * {s[outer]} + c * {s[inner]}" for s in strides]


def _matrix_strides(array: numpy.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the strides of an array broadcast to a shape whose axes behind the first count as one."""
    full = numpy.broadcast_to(array, shape)
    if any(stride % array.itemsize for stride in full.strides):
        raise Unsupported
    strides = [stride // array.itemsize for stride in full.strides]
    for axis in range(1, len(shape) - 1):
        if shape[axis] > 1 and strides[axis] != strides[axis + 1] * shape[axis + 1]:
            raise Unsupported
    return strides[0], strides[-1] if len(shape) > 1 else 0


def _c_type(dtype: numpy.dtype) -> str:
    if dtype.name not in _C_TYPES:
        raise Unsupported
    return _C_TYPES[dtype.name]
