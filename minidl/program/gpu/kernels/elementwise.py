"""The kernels of single steps: elementwise groups, copies and random draws.

Whatever is generated computes the same bits in every run: no sum depends on which block of threads comes
first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy

from minidl.devices import Array
from minidl.program.expressions import Unsupported, expression, number
from minidl.program.gpu.kernels.source import (
    Kernel,
    blocks_for,
    index_type,
    load,
    loop,
    offset,
    register_type,
    store,
)
from minidl.program.plan.strides import broadcast_strides
from minidl.program.program import Instruction, Value
from minidl.random import philox

#: How the functions of the primitives' expressions are called here: those of CUDA differ in NaN and in types.
FUNCTIONS = {"max": "larger", "min": "smaller", "abs": "magnitude", "pow": "power"}


# --- elementwise groups ---------------------------------------------------------------------------


def group_kernel(
    members: Sequence[Instruction],
    outputs: Sequence[Value],
    places: dict[Value, Array],
    shape: tuple[int, ...],
) -> Kernel:
    """Return the kernel of an elementwise group: every array is read once and written once.

    ``places`` has the array of every value that is read or written in memory, all of one shape or
    broadcast to it. Constants of one element that are not in it stand in the code as numbers.

    Raises
    ------
    Unsupported
        A member has no expression, or a dtype that CUDA does not have.
    """
    strides = [broadcast_strides(array, shape) for array in places.values()]
    index = index_type(shape, strides)
    positions = [offset("i", shape, stride) for stride in strides]
    inside = {member.output for member in members}
    names: dict[Value, str] = {}
    before: list[str] = []
    body: list[str] = []
    for i, (value, array) in enumerate(places.items()):
        if value not in inside:
            names[value] = f"v{len(names)}"
            element = load(f"a{i}[{positions[i]}]", array.dtype)
            # What all elements share is read once, unless it is written too: then there is one element.
            lines = before if positions[i] == "0" and math.prod(shape) > 1 else body
            lines.append(f"{register_type(value.dtype)} {names[value]} = {element};")
    body += _computed(members, names)
    # Stores come last, so that a new state may lie where the old one was read.
    for i, (value, array) in enumerate(places.items()):
        if value in outputs:
            body.append(f"a{i}[{positions[i]}] = {store(names[value], array.dtype)};")
    size = math.prod(shape)
    lines = [*before, f"{loop(index, size)} {{", *("    " + line for line in body), "}"]
    code = "".join(f"    {line}\n" for line in lines)
    name = " ".join(member.name for member in members[:4])
    return Kernel(name, code, list(places.values()), blocks_for(size))


def copy_kernel(target: Array, array: Array) -> Kernel:
    """Return the kernel that writes an array, broadcast and converted, to another."""
    shape = target.shape
    to, of = broadcast_strides(target, shape), broadcast_strides(array, shape)
    index, size = index_type(shape, [to, of]), math.prod(shape)
    value = load(f"a1[{offset('i', shape, of)}]", array.dtype)
    code = f"    {loop(index, size)}\n        a0[{offset('i', shape, to)}] = {store(value, target.dtype)};\n"
    return Kernel("copy", code, [target, array], blocks_for(size))


def fill_kernel(out: Array, value: float) -> Kernel:
    """Return the kernel that writes one number everywhere in a contiguous array."""
    written = store(f"({register_type(out.dtype)}) {number(value)}", out.dtype)
    code = f"    {loop(index_type(out.shape, []), out.size)}\n        a0[i] = {written};\n"
    return Kernel("fill", code, [out], blocks_for(out.size))


def draw_kernel(name: str, state: Array, place: int, out: Array) -> Kernel:
    """Return the kernel that draws ``"random_uniform"`` or ``"random_normal"`` numbers.

    ``state`` is that of a Philox stream; ``place`` numbers of it were drawn since it was written.
    """
    if out.dtype.name not in philox.TYPES:
        raise Unsupported(out.dtype.name)
    index = index_type(out.shape, [])
    code = (
        f"    {loop(index, out.size)}\n"
        f"        draw_{name.removeprefix('random_')}(a0 + i, philox(a1[0], a1[1] + {place} + i));\n"
    )
    return Kernel(name, code, [out, state], blocks_for(out.size), philox.SOURCE)


def advance_kernel(state: Array, count: int) -> Kernel:
    """Return the kernel that notes in the state of a Philox stream that numbers were drawn."""
    return Kernel("advance", f"    if (thread == 0) a0[1] += {count};\n", [state], 1)


def _computed(members: Sequence[Instruction], names: dict[Value, str]) -> list[str]:
    """Return the lines that compute the members; ``names`` gets a name for each of their results."""
    lines = []
    for member in members:
        for value in member.inputs:
            if value not in names:
                names[value] = literal(value)
        kind, written = member.output.dtype, written_out(member, names)
        names[member.output] = f"r{len(names)}"
        lines.append(f"{register_type(kind)} {names[member.output]} = {written};")
    return lines


def written_out(member: Instruction, names: Mapping[Value, str]) -> str:
    """Return the expression of a member, from the names of what it reads."""
    written = expression(member, names, register_type, FUNCTIONS)
    return rounded(written, member.output.dtype)


def rounded(written: str, dtype: numpy.dtype) -> str:
    """Return a number as NumPy rounds it after every operation, if it is float16."""
    return f"__half2float(__float2half({written}))" if dtype == numpy.float16 else written


def is_literal(value: Value) -> bool:
    """Return whether a value is a constant of one element, which stands in the code as a number."""
    return value.kind == "constant" and value.size == 1


def literal(value: Value) -> str:
    """Return a constant of one element as a number."""
    assert is_literal(value), "an input of a group has no place"
    return f"(({register_type(value.dtype)}) {number(value.array.item())})"
