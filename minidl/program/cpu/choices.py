"""What a program gets on the CPU unless the user says otherwise: C or NumPy, and how many threads.

Both depend on the costs of the program and on the machine alone, so that a program is computed in the same
way, and with the same rounding, in every run on one machine.
"""

from __future__ import annotations

from minidl.program.costs import work
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import default_threads
from minidl.program.cpu.threads import can_start_threads
from minidl.program.program import Group, Program

KERNELS = ("auto", "c", "numpy")

#: How many elements could be passed over while NumPy is called once.
CALL = 4_000.0

#: Programs that cost NumPy less than this stay with it: a replay takes about a quarter of a millisecond, the
#: compiler about as long as a thousand of them.
MIN_WORK_FOR_C = 1_000_000.0

#: Programs of less work than this (see costs.work) are computed by one thread. As C, waking another takes
#: about as long as half of this work; from Python, each phase needs the interpreter lock besides.
MIN_WORK_FOR_THREADS = {"c": 400_000.0, "numpy": 1_500_000.0}


def choose_kernels(program: Program, kernels: str) -> tuple[str, str]:
    """Return ``"c"`` or ``"numpy"`` for a program, and in words why, if it is not what the user asked for.

    Raises
    ------
    ValueError
        ``kernels`` is none of KERNELS.
    """
    if kernels not in KERNELS:
        raise ValueError(f"unknown kernels {kernels!r}: use one of {', '.join(map(repr, KERNELS))}")
    if kernels != "auto":
        return kernels, ""
    calls = sum(len(step.members) if isinstance(step, Group) else 1 for step in program.steps)
    if total_work(program) + CALL * calls < MIN_WORK_FOR_C:
        return "numpy", "too small to gain from C"
    if kernel_cache.compiler() is None:
        return "numpy", "there is no C compiler"
    return "c", ""


def choose_threads(program: Program, kernels: str, threads: int | None) -> int:
    """Return how many threads compute a program: what the user says, else one for each core, or just one.

    Where the system starts no threads, it is one.
    """
    if threads:
        return threads if threads == 1 or can_start_threads() else 1
    return 1 if total_work(program) < MIN_WORK_FOR_THREADS[kernels] else default_threads()


def total_work(program: Program) -> float:
    """Return the work of all steps of a program but views."""
    return sum(work(step) for step in program.steps if not step.is_view)
