"""Random numbers on a GPU: Philox4x32-10.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. Each number is a function of a key
and of its place in the stream, so threads need not share anything, and where the stream has come to lies in
an array on the GPU: a CUDA graph draws anew at every replay.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy

from minidl import devices

SOURCE = """\
struct Words { unsigned int w[4]; };

/* The 128 random bits at a place in the stream of a key. */
__device__ inline Words philox(unsigned long long key, unsigned long long place) {
    unsigned int c0 = place, c1 = place >> 32, c2 = 0, c3 = 0, k0 = key, k1 = key >> 32;
    for (int round = 0; round < 10; round++) {
        unsigned long long p = 0xD2511F53ULL * c0, q = 0xCD9E8D57ULL * c2;
        c0 = (unsigned int) (q >> 32) ^ c1 ^ k0;
        c2 = (unsigned int) (p >> 32) ^ c3 ^ k1;
        c1 = q;
        c3 = p;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

__device__ inline float fraction(unsigned int a) { return (a >> 8) * (1.0f / 16777216); }
__device__ inline double fraction(unsigned int a, unsigned int b) {
    return (((unsigned long long) a << 32 | b) >> 11) * (1.0 / 9007199254740992);
}

__device__ inline void draw_uniform(float *out, Words x) { *out = fraction(x.w[0]); }
__device__ inline void draw_uniform(double *out, Words x) { *out = fraction(x.w[0], x.w[1]); }

/* Box and Muller; 1 - u is never 0. */
__device__ inline void draw_normal(float *out, Words x) {
    *out = sqrt(-2 * log(1 - fraction(x.w[0]))) * cos(6.2831855f * fraction(x.w[1]));
}
__device__ inline void draw_normal(double *out, Words x) {
    *out = sqrt(-2 * log(1 - fraction(x.w[0], x.w[1]))) * cos(6.283185307179586 * fraction(x.w[2], x.w[3]));
}
"""

_ADVANCE = """
extern "C" __global__ void advance(unsigned long long *state, long long count) {
    if (threadIdx.x == 0) state[1] += count;
}
"""
_DRAW = """
extern "C" __global__ void {name}_{dtype}({type} *out, unsigned long long *state, long long count) {{
    long long i = blockIdx.x * (long long) {threads} + threadIdx.x;
    if (i < count) draw_{name}(out + i, philox(state[0], state[1] + i));
}}
"""
_THREADS = 256
TYPES = {"float32": "float", "float64": "double"}


def source() -> str:
    """Return the CUDA code of all kernels that eager draws use."""
    draws = [
        _DRAW.format(name=name, dtype=dtype, type=kind, threads=_THREADS)
        for name in ("uniform", "normal")
        for dtype, kind in TYPES.items()
    ]
    return "".join([SOURCE, _ADVANCE, *draws])


@cache
def _module(cupy: Any) -> Any:
    return cupy.RawModule(code=source())


class Philox:
    """A stream of random numbers on one GPU.

    Attributes
    ----------
    state : the key, and how many numbers were drawn so far, on the GPU
    is_seeded : whether the state is to be used; if not, it waits for another
    """

    def __init__(self, cupy: Any):
        self.state = cupy.zeros(2, numpy.uint64)
        self.is_seeded = False

    def seed(self, key: int, count: int = 0) -> None:
        """Begin the stream of a key, or continue after this number of its numbers."""
        cupy = devices.array_module(self.state)
        cupy.copyto(self.state, cupy.asarray(numpy.array([key, count], numpy.uint64)))
        self.is_seeded = True

    def place(self) -> list[int]:
        """Return what seed() takes to go on from here: the key, and how many numbers were drawn."""
        return [int(number) for number in devices.to_numpy(self.state)]

    def random(self, size: tuple[int, ...], dtype: numpy.dtype, out: Any = None) -> Any:
        """Return draws from [0, 1)."""
        return self._draw("uniform", size, dtype, out)

    def standard_normal(self, size: tuple[int, ...], dtype: numpy.dtype, out: Any = None) -> Any:
        """Return standard normal draws."""
        return self._draw("normal", size, dtype, out)

    def _draw(self, name: str, size: tuple[int, ...], dtype: numpy.dtype, out: Any) -> Any:
        if numpy.dtype(dtype).name not in TYPES:
            raise TypeError(f"random numbers are drawn as float32 or float64, not {dtype}")
        cupy = devices.array_module(self.state)
        out = cupy.empty(size, dtype) if out is None else out
        if out.size:
            count, blocks = numpy.int64(out.size), -(-out.size // _THREADS)
            module = _module(cupy)
            draw = module.get_function(f"{name}_{out.dtype.name}")
            draw((blocks,), (_THREADS,), (out, self.state, count))
            module.get_function("advance")((1,), (1,), (self.state, count))
        return out
