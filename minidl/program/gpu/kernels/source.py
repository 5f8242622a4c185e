"""CUDA C++: what all generated kernels share, and how several become one launch.

Shapes and strides are written into the code as numbers, so that the compiler turns divisions by them into
multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.expressions import Unsupported
from minidl.program.plan.strides import element_strides, merged

#: Threads of a block, in every kernel.
THREADS = 256

#: Blocks that keep a large GPU busy; more would wait for these.
MAX_BLOCKS = 2048

_TYPES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float16": "__half",
    "float32": "float",
    "float64": "double",
}

#: What a step is told beside its arrays: which block of threads this is, of how many, which thread in it, and
#: the memory that the threads of a block share: 16 bytes for each.
_PLACE = "int block, int blocks, int thread, void *shared"

HEADER = """\
/* As in NumPy, NaN in either operand comes out. The types of the operands may differ: max(x, 0). */
template <typename A, typename B> __device__ auto larger(A a, B b) -> decltype(a + b) {
    return a != a || a > b ? a : b;
}
template <typename A, typename B> __device__ auto smaller(A a, B b) -> decltype(a + b) {
    return a != a || a < b ? a : b;
}
template <typename A> __device__ A magnitude(A a) { return a < 0 ? -a : a + 0; }  /* -0.0 + 0 is 0.0 */

__device__ inline float power_of(float a, float b) { return pow(a, b); }
__device__ inline double power_of(double a, double b) { return pow(a, b); }
template <typename T> __device__ T power_of(T a, T b) {  /* whole numbers, exactly */
    T result = 1;
    for (; b > 0; b >>= 1, a *= a)
        if (b & 1) result *= a;
    return result;
}
template <typename A, typename B> __device__ auto power(A a, B b) -> decltype(a + b) {
    typedef decltype(a + b) T;
    return power_of(T(a), T(b));
}

template <typename T> __device__ T total(T a, T b) { return a + b; }

/* A float32 rounded to this number of bits after the leading one, ties to even; NaN stays. */
__device__ inline unsigned int bits_of(float x) { return __float_as_uint(x); }
__device__ inline float round_off(float x, int bits) {
    unsigned int old = bits_of(x), last = 1u << (23 - bits);
    float rounded = __uint_as_float((old + (last / 2 - 1) + (old / last & 1)) & ~(last - 1));
    return x != x ? x : rounded;
}

/* Combine the values of the threads of each row, in an order that never changes: `distance` threads lie
   between neighbours of a row, `count` (a power of 2) threads are in it, this one is number `r`. */
#define combine(combined, values, value, thread, distance, count, r) \\
    __syncthreads(); \\
    values[thread] = value; \\
    for (int half = count / 2; half > 0; half /= 2) { \\
        __syncthreads(); \\
        if (r < half) values[thread] = combined(values[thread], values[thread + half * distance]); \\
    }
"""


@dataclass(eq=False)
class Kernel:
    """What one step asks of the GPU: C++ for one thread, and the arrays it works on.

    The code sees the arrays as ``a0``, ``a1``, ..., and ``block``, ``blocks``, ``thread`` and ``shared``.
    ``helpers`` are functions of C++ that it calls, beside those that all may call. ``numbers`` are whole
    numbers that differ between kernels of the same code, which sees them behind the arrays: the first as
    ``a2``, if there are two arrays.
    """

    name: str
    code: str
    arrays: list[Array]
    blocks: int
    helpers: str = ""
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.types = [f"{storage_type(array.dtype)} *" for array in self.arrays]
        self.types += ["long long "] * len(self.numbers)

    @property
    def arguments(self) -> list[Any]:
        """What the function of C++ is called with."""
        return [*self.arrays, *map(numpy.int64, self.numbers)]

    def parameters(self, first: int = 0) -> str:
        """Return the parameters of a C++ function, numbered from ``first``."""
        return ", ".join(f"{kind}a{first + i}" for i, kind in enumerate(self.types))


def source(launches: Sequence[Sequence[Kernel]]) -> str:
    """Return the code of all launches; a launch is one or more kernels that do not wait for each other.

    The function of launch i is named by `launch_name(i)`. Equal kernels share their code.
    """
    functions: dict[str, str] = {}
    entries = []
    for number_of_launch, kernels in enumerate(launches):
        first_block = first = 0
        parameters, branches = [], []
        for kernel in kernels:
            own = f"{kernel.parameters()}, {_PLACE}"
            name = functions.setdefault(f"({own}) {{\n{kernel.code}}}\n", f"step_{len(functions)}")
            arguments = "".join(f"a{first + i}, " for i in range(len(kernel.types)))
            place = f"blockIdx.x - {first_block}, {kernel.blocks}, threadIdx.x, shared"
            first_block += kernel.blocks
            branches.append(f"if (blockIdx.x < {first_block}) {name}({arguments}{place});")
            parameters.append(kernel.parameters(first))
            first += len(kernel.types)
        signature = f"{launch_name(number_of_launch)}({', '.join(parameters)})"
        # What each step would declare for itself adds up, and a launch with many sums would have too much.
        is_shared = any("shared" in kernel.code for kernel in kernels)
        shared = f"__shared__ double shared[{2 * THREADS}]" if is_shared else "void *shared = 0"
        body = f"{shared};\n    " + "\n    else ".join(branches)
        entries.append(f'extern "C" __global__ void {signature} {{\n    {body}\n}}\n')
    steps = [f"static __device__ void {name}{text}" for text, name in functions.items()]
    helpers = dict.fromkeys(kernel.helpers for kernels in launches for kernel in kernels)
    text = "\n".join([HEADER, *filter(None, helpers), *steps, *entries])
    return ("#include <cuda_fp16.h>\n" if "__half" in text else "") + text


def launch_name(number: int) -> str:
    """Return the name of the CUDA function of a launch."""
    return f"launch_{number}"


# --- types and positions --------------------------------------------------------------------------


def storage_type(dtype: numpy.dtype) -> str:
    """Return the C++ type of an element in memory."""
    if dtype.name not in _TYPES:
        raise Unsupported(dtype.name)
    return _TYPES[dtype.name]


def register_type(dtype: numpy.dtype) -> str:
    """Return the C++ type in which is computed: float16 is widened, as NumPy does."""
    return "float" if dtype == numpy.float16 else storage_type(dtype)


def load(element: str, dtype: numpy.dtype) -> str:
    """Return an element that was read, as a number to compute with."""
    return f"__half2float({element})" if dtype == numpy.float16 else element


def store(value: str, dtype: numpy.dtype) -> str:
    """Return a number as an element to be written."""
    return f"__float2half({value})" if dtype == numpy.float16 else value


def offset(index: str, shape: Sequence[int], strides: Sequence[int]) -> str:
    """Return where element number ``index`` of a shape, in NumPy's order, lies in memory."""
    lengths, strides = merged(shape, strides)
    terms, inner = [], math.prod(lengths)
    for axis, (length, stride) in enumerate(zip(lengths, strides, strict=True)):
        inner //= max(length, 1)
        if stride:
            place = index if inner == 1 else f"{index} / {inner}"
            place = place if axis == 0 else f"{place} % {length}"
            place = place if place == index or stride == 1 else f"({place})"
            terms.append(place if stride == 1 else f"{place} * {stride}")
    return " + ".join(terms) or "0"


def loop(index: str, size: int) -> str:
    """Return the loop in which the threads of all blocks go over the elements."""
    step = f"({index}) {THREADS}"
    return f"for ({index} i = block * {step} + thread; i < {size}; i += blocks * {step})"


def blocks_for(size: int) -> int:
    """Return how many blocks go over this number of elements."""
    return min(MAX_BLOCKS, -(-size // THREADS))


def index_type(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> str:
    """Return the type for positions: 32 bits if all of them fit, which is faster."""
    reach = max(
        (sum(abs(s) * n for s, n in zip(stride, shape, strict=False)) for stride in strides), default=0
    )
    return "int" if max(reach, math.prod(shape)) < 2**30 else "long long"


def index_type_of(*arrays: Array) -> str:
    """Return the type for positions in arrays of different shapes."""
    types = {index_type(array.shape, [element_strides(array)]) for array in arrays}
    return "int" if types == {"int"} else "long long"
