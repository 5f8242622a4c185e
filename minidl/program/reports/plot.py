"""The plot of a program: where its time goes, and what lies in memory while it runs."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from minidl.program.program import Program
from minidl.program.reports.listing import PHASES, names_of
from minidl.program.reports.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = dict(zip(PHASES, ("#4477aa", "#ee6677", "#228833"), strict=True))


def plot_program(program: Program, profile: Profile, path: str | PathLike[str] | None = None) -> Figure:
    """Return a figure of two panels: the time of each step, and the buffers over the whole program.

    It is written to a file if ``path`` is given.
    """
    from matplotlib.patches import Patch

    from minidl.figures import Figure, write

    steps = [step for step in program.steps if profile.seconds.get(id(step), 0.0) > 0]
    figure = Figure(figsize=(11, 3 + 0.19 * len(steps)), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2, width_ratios=(3, 2))
    names = names_of(program)
    labels = [f"{step.name}  {'x'.join(map(str, step.outputs[0].shape)) or 'scalar'}" for step in steps]
    seconds = [profile.seconds[id(step)] for step in steps]
    time_axes.barh(range(len(steps)), [1e6 * s for s in seconds], color=[_COLORS[s.phase] for s in steps])
    time_axes.set_yticks(range(len(steps)), labels, fontsize=7)
    time_axes.invert_yaxis()
    time_axes.set_xlabel("microseconds")
    time_axes.set_title(f"Where the time goes: {profile.total * 1e3:.2f} ms")
    time_axes.legend(handles=[Patch(color=color, label=phase) for phase, color in _COLORS.items()])
    time_axes.grid(axis="x", alpha=0.3)

    assert program.executor is not None
    memory = program.executor.memory
    assert memory is not None, "a program that was profiled has a memory plan"
    phase_of = {value: step.phase for step in program.steps for value in step.outputs}
    offsets = [0.0]
    for buffer in memory.buffers:
        offsets.append(offsets[-1] + buffer.nbytes / 2**20)
    for allocation in memory.allocations:
        height = allocation.value.nbytes / 2**20
        memory_axes.barh(
            offsets[allocation.buffer],
            max(allocation.last - allocation.first, 1),
            left=allocation.first,
            height=height,
            align="edge",
            color=_COLORS[phase_of[allocation.value]],
            edgecolor="white",
            linewidth=0.5,
        )
        if height > offsets[-1] / 30:
            middle = (allocation.first + 0.3, offsets[allocation.buffer] + height / 2)
            memory_axes.annotate(names[allocation.value], middle, fontsize=6, va="center", color="white")
    memory_axes.set_xlabel("position in the order of steps")
    memory_axes.set_ylabel("MB")
    memory_axes.set_title(
        f"Buffers: {memory.planned / 2**20:.1f} MB ({memory.unplanned / 2**20:.1f} MB unplanned)"
    )
    write(figure, path, dpi=120)
    return figure
