"""What a machine reaches at best: operations of a matrix product, and copied bytes, per second."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from time import perf_counter
from typing import Any

import numpy

from minidl.primitives.precision import to_bfloat16
from minidl.program.blas import matmul_call, one_blas_thread_each
from minidl.program.program import share
from minidl.program.team import team_of


@cache
def of_processor(threads: int) -> tuple[float, float]:
    """Return what this many threads reach, with a core each."""
    n = 1024
    a, b = numpy.ones((2, n, n), numpy.float32)
    out = numpy.empty_like(a)
    big = numpy.ones(4 << 20, numpy.float32)
    target = numpy.empty_like(big)
    rows = [share(n, i, threads) for i in range(threads)]
    parts = [share(len(big), i, threads) for i in range(threads)]
    products = [[[matmul_call(a[r], b, out[r], add=False)] for r in rows]]
    copies = [[[lambda p=p: numpy.copyto(target[p], big[p])] for p in parts]]
    team = team_of(threads)

    def best(phases: Any) -> float:
        times = []
        for _ in range(8):
            started = perf_counter()
            team.run(phases)
            times.append(perf_counter() - started)
        return min(times)

    with one_blas_thread_each():
        return 2 * n**3 / best(products), 2 * big.nbytes / best(copies)


def of_gpu(
    cupy: Any,
    multiply: Callable[..., Any],
    seconds_of: Callable[..., float],
    packed: bool = False,
    n: int = 4096,
    length: int = 64 << 20,
) -> tuple[float, float]:
    """Return what CuPy's current GPU reaches with ``multiply(a, b, out, add)``, timed by ``seconds_of``.

    The product is of (n, n) matrices, float32 or, if they are to be ``packed``, bfloat16; the copy is of so
    many numbers as ``length`` says, more than the GPU's cache holds.
    """
    # Random numbers: a GPU that multiplies zeros or ones draws less power, and can run faster.
    numbers = numpy.random.default_rng(0).standard_normal((n, n), numpy.float32)
    a = cupy.asarray(to_bfloat16.forward(numpy, numbers) if packed else numbers)
    b, out = a.copy(), cupy.empty((n, n), numpy.float32)
    big, target = (cupy.ones(length, numpy.float32) for _ in range(2))
    products = min(seconds_of(lambda: multiply(a, b, out, False)) for _ in range(8))
    copies = min(seconds_of(lambda: cupy.copyto(target, big)) for _ in range(8))
    return 2 * n**3 / products, 2 * big.nbytes / copies
