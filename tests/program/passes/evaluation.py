"""What the tests of passes compare: the names of the steps of a program, and what they compute."""

import numpy


def names(program):
    return [step.name for step in program.steps]


def evaluated(program, x):
    """Return outputs and new states; what each step computes has the shape and dtype that it declares."""
    arrays = {value: value.array for value in program.values() if value.kind in ("state", "constant")}
    arrays |= zip(program.inputs, [x], strict=True)
    for step in program.steps:
        for value, array in step.evaluate(numpy, arrays).items():
            assert (array.shape, array.dtype) == (value.shape, value.dtype), step
            arrays[value] = array
    states = sorted(program.updates, key=lambda state: state.tensor.created_at)
    return [arrays[value] for value in [*program.outputs, *(program.updates[state] for state in states)]]
