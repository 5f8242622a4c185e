"""Measuring a program: the time of every step, and what this machine could do at best."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from minidl import devices
from minidl.program.plan.tasks import Task
from minidl.program.program import Program


@dataclass
class Profile:
    """The median time of each step and of the whole program, and the machine's peak rates.

    Attributes
    ----------
    seconds : of each step, by ``id(step)``: the slowest thread's; on a GPU, the steps of one launch share
        its time as they share the bytes it moves
    total : of a whole replay, in seconds
    gemm : the best rate of matrix products, in floating-point operations per second
    copy : the best rate of copying, in bytes read and written per second
    """

    seconds: dict[int, float]
    total: float
    gemm: float
    copy: float


def measure(program: Program, repeats: int = 20) -> Profile:
    """Time a compiled program; the state it updates is restored afterwards."""
    executor = program.executor
    if executor is None:
        raise ValueError("only compiled programs can be profiled: this one has no executor")
    if repeats < 1:
        raise ValueError(f"profile: repeats must be at least 1, got {repeats}")
    saved = [(state.array, devices.copy(state.array)) for state in program.updates]
    times: dict[int, list[float]] = {}
    current: dict[int, float] = {}

    def record(task: Task, seconds: float) -> None:
        current[id(task)] = max(current.get(id(task), 0.0), seconds)

    run = executor.timed(record)
    totals = []
    try:
        for _ in range(repeats + 1):
            current.clear()
            totals.append(run())
            for key, seconds in current.items():
                times.setdefault(key, []).append(seconds)
            for array, copy in saved:
                devices.write(array, copy)
    finally:
        for array, copy in saved:
            devices.write(array, copy)
    # The first run warms up the caches and is left out.
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    gemm, copy_rate = executor.peak_rates()
    return Profile(medians, statistics.median(totals[1:]), gemm, copy_rate)
