"""The listing of a program: a line for each step, with shapes, operations and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl import devices
from minidl.program.costs import PRODUCTS, bytes_moved, flops
from minidl.program.program import BeginSum, Message, Program, Step, Value
from minidl.tables import table

if TYPE_CHECKING:
    from minidl.program.reports.profile import Profile

PHASES = ("forward", "backward", "update")


def names_of(program: Program) -> dict[Value, str]:
    """Return a short name for each value: inputs x, state s, constants as numbers, results by count."""
    names: dict[Value, str] = {}
    counts = dict.fromkeys("xscr", 0)
    for value in program.values():
        letter = {"input": "x", "state": "s", "constant": "c", "result": "r"}[value.kind]
        if value.kind == "constant" and value.size == 1:
            names[value] = f"{devices.to_numpy(value.array).item():.4g}"
            continue
        names[value] = f"{letter}{counts[letter]}"
        counts[letter] += 1
    return names


def listing(program: Program, profile: Profile | None = None) -> str:
    """Return the program as text: forward, backward and update, step by step, and totals."""
    names = names_of(program)
    states = {value: state for state, value in program.updates.items()}
    rows: list[tuple[str, ...] | str] = []
    for phase in PHASES:
        steps = [step for step in program.steps if step.phase == phase]
        if steps:
            rows.append(phase.upper())
        for step in steps:
            rows.append(_row(step, names, states, profile))
    header = ["step", "result", "shape", "reads", "Mflop", "KB"]
    align = "llllrr"
    if profile:  # what it is for comes first
        header = ["step", "shape", "us", "% of GEMM", "% of copy", "Mflop", "KB", "result", "reads"]
        align = "llrrrrrll"
    return "\n".join([table(header, rows, align, indent="  "), "", *_totals(program, profile)])


def _row(
    step: Step, names: dict[Value, str], states: dict[Value, Value], profile: Profile | None
) -> tuple[str, ...]:
    name = _shortened(step.name, 44)
    results = [names[v] + (f" -> {names[states[v]]}" if v in states else "") for v in step.outputs]
    shape = ("x".join(map(str, step.outputs[0].shape)) if step.outputs else "") or "scalar"
    result = _shortened(", ".join(results), 34)
    reads = _shortened(", ".join(names[value] for value in step.inputs), 34)
    costs = (f"{flops(step) / 1e6:.2f}", f"{bytes_moved(step) / 1024:.1f}")
    if profile is None:
        return (name, result, shape, reads, *costs)
    times = ("", "", "")
    if seconds := profile.seconds.get(id(step)):
        of_gemm, of_copy = f"{flops(step) / seconds / profile.gemm:.0%}", ""
        if step.operation not in PRODUCTS:
            of_gemm, of_copy = "", f"{bytes_moved(step) / seconds / profile.copy:.0%}"
        times = (f"{seconds * 1e6:.0f}", of_gemm, of_copy)
    return (name, shape, *times, *costs, result, reads)


def _totals(program: Program, profile: Profile | None) -> list[str]:
    products = [step for step in program.steps if step.operation in PRODUCTS]
    lines = [
        f"{len(program.steps)} steps, {sum(map(flops, program.steps)) / 1e6:.1f} Mflop, of them "
        f"{sum(map(flops, products)) / 1e6:.1f} in {len(products)} matrix products; "
        f"{sum(map(bytes_moved, program.steps)) / 2**20:.1f} MB moved"
    ]
    executor = program.executor
    if executor is not None and executor.memory is not None:
        memory = executor.memory
        lines.append(
            f"memory of results: {memory.planned / 2**20:.2f} MB planned, "
            f"{memory.unplanned / 2**20:.2f} MB unplanned; {executor.note()}"
        )
    messages = [step.message for step in program.steps if isinstance(step, BeginSum)]
    if messages:
        lines.append(_traffic(messages, profile))
    if profile:
        in_products = sum(profile.seconds.get(id(step), 0.0) for step in products)
        lines.append(
            f"{profile.total * 1e3:.2f} ms in all, {in_products * 1e3:.2f} ms in matrix products, at "
            f"{sum(map(flops, products)) / max(in_products, 1e-12) / profile.gemm:.0%} of the peak rate "
            f"({profile.gemm / 1e9:.0f} Gflop/s; copying: {profile.copy / 2**30:.1f} GB/s)"
        )
        by_phase = {
            phase: sum(profile.seconds.get(id(s), 0.0) for s in program.steps if s.phase == phase)
            for phase in PHASES
        }
        lines.append("; ".join(f"{phase} {seconds * 1e3:.2f} ms" for phase, seconds in by_phase.items()))
    return lines


def _traffic(messages: list[Message], profile: Profile | None) -> str:
    """Return what a process sends in a step, and how much of the time it computes meanwhile."""
    size, nbytes = messages[0].communicator.size, sum(message.array.nbytes for message in messages)
    least = 2 * (size - 1) / size * nbytes
    line = (
        f"{len(messages)} sums over {size} processes, {nbytes / 2**20:.2f} MB; each sends and receives at "
        f"least {least / 2**20:.2f} MB"
    )
    if profile:
        computing, waiting = (sum(times) for times in zip(*(m.times for m in messages), strict=True))
        line += (
            f"; {1e3 * (computing + waiting):.2f} ms from their beginnings to their ends, of which "
            f"{1e3 * waiting:.2f} ms waiting ({computing / max(computing + waiting, 1e-12):.0%} overlap)"
        )
    return line


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
