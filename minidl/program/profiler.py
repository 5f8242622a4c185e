"""Measuring a program: the time of every step, and what this machine could do at best."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import numpy

from minidl.program.blas import matmul_call, one_blas_thread_each
from minidl.program.numpy_executor import NumpyExecutor
from minidl.program.program import Program, share
from minidl.program.team import team_of


@dataclass
class Profile:
    """The median time of each step and of the whole program, and the machine's ceilings.

    Attributes
    ----------
    seconds : of each step, by ``id(step)``: the slowest thread's
    total : of a whole replay, in seconds
    gemm : the best rate of matrix products, in floating-point operations per second
    copy : the best rate of copying, in bytes read and written per second
    """

    seconds: dict[int, float]
    total: float
    gemm: float
    copy: float


def measure(program: Program, repeats: int = 20) -> Profile:
    """Time a compiled program on the CPU; the state it updates is restored afterwards."""
    executor = program.executor
    if not isinstance(executor, NumpyExecutor):
        raise ValueError("only programs compiled for the CPU can be profiled")
    if repeats < 1:
        raise ValueError(f"profile: repeats must be at least 1, got {repeats}")
    saved = [(state.array, state.array.copy()) for state in program.updates]
    times: dict[int, list[float]] = {}
    current: dict[int, float] = {}

    def record(turn: Any, seconds: float) -> None:
        key = id(turn.task)
        current[key] = max(current.get(key, 0.0), seconds)

    phases = executor.timed_phases(record)
    totals = []
    try:
        for _ in range(repeats + 1):
            current.clear()
            started = perf_counter()
            executor.run(phases)
            totals.append(perf_counter() - started)
            for key, seconds in current.items():
                times.setdefault(key, []).append(seconds)
            for array, copy in saved:
                array[...] = copy
    finally:
        for array, copy in saved:
            array[...] = copy
    # The first run warms up the caches and is left out.
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    gemm, copy_rate = ceilings(executor.threads)
    return Profile(medians, statistics.median(totals[1:]), gemm, copy_rate)


@cache
def ceilings(threads: int) -> tuple[float, float]:
    """Return what the machine reaches at best: GEMM operations and copied bytes, per second."""
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
