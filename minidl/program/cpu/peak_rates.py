"""What a machine reaches at best: operations of a matrix product, and copied bytes, per second."""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import Any

import numpy

from minidl.program.cpu.blas import matmul_call, with_one_blas_thread_each
from minidl.program.cpu.threads import thread_pool
from minidl.program.program import share


@cache
def peak_rates(threads: int) -> tuple[float, float]:
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
    team = thread_pool(threads)

    def best(phases: Any) -> float:
        times = []
        for _ in range(8):
            started = perf_counter()
            with_one_blas_thread_each(team.run, phases)
            times.append(perf_counter() - started)
        return min(times)

    return 2 * n**3 / best(products), 2 * big.nbytes / best(copies)
