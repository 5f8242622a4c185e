"""The pass that does not copy windows for steps that can read them where they lie."""

from __future__ import annotations

from minidl.primitives.reduction import max_, min_, sum_
from minidl.primitives.windows import windows_
from minidl.program.lowered.window_view import window_view_
from minidl.program.program import Group, Instruction, Operation, Program, Rows, Step, Value

#: Steps that read any strides as well as contiguous memory.
READERS: tuple[Operation, ...] = (Group, Rows, sum_, max_, min_)


def view_windows(program: Program) -> Program:
    """For a GPU, replace windows that elementwise steps and reductions alone read by views.

    So average pooling is one pass over the images.
    """
    readers: dict[Value, list[Step]] = {}
    for step in program.steps:
        for value in step.inputs:
            readers.setdefault(value, []).append(step)
    needed = set(program.results_needed)
    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Instruction) and step.primitive is windows_ and step.output not in needed:
            read = readers.get(step.output, [])
            if read and all(reader.operation in READERS for reader in read):
                step = Instruction(window_view_, step.inputs, step.attributes, step.output, step.phase)
        steps.append(step)
    return Program(program.inputs, steps, program.outputs, program.updates)
