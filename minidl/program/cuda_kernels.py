"""The kernels of single steps: elementwise groups, copies, random draws and reductions.

Whatever is generated computes the same bits in every run: no sum depends on which block of threads comes
first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from string import Template

import numpy

from minidl.devices import Array
from minidl.primitives import philox
from minidl.program.cuda_source import (
    THREADS,
    Kernel,
    broadcast_strides,
    index_type,
    load,
    merged,
    offset,
    register_type,
    store,
)
from minidl.program.expressions import Unsupported, expression, number
from minidl.program.program import Instruction, Value

#: Blocks that keep a large GPU busy; more than these only take turns.
MOST_BLOCKS = 2048

#: Blocks into which a reduction is cut, if it is long enough.
REDUCTION_BLOCKS = 512

#: Elements that a thread of a reduction takes at least before there are more blocks.
LEAST_ELEMENTS = 8

#: How the functions of the primitives' expressions are called here: those of CUDA differ in NaN and in types.
_FUNCTIONS = {"max": "larger", "min": "smaller", "abs": "magnitude", "pow": "power"}


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
    lines = [*before, f"{_loop(index, size)} {{", *("    " + line for line in body), "}"]
    code = "".join(f"    {line}\n" for line in lines)
    name = " ".join(member.name for member in members[:4])
    return Kernel(name, code, list(places.values()), min(MOST_BLOCKS, -(-size // THREADS)))


def copy_kernel(target: Array, array: Array) -> Kernel:
    """Return the kernel that writes an array, broadcast and converted, to another."""
    shape = target.shape
    to, of = broadcast_strides(target, shape), broadcast_strides(array, shape)
    index, size = index_type(shape, [to, of]), math.prod(shape)
    value = load(f"a1[{offset('i', shape, of)}]", array.dtype)
    code = f"    {_loop(index, size)}\n        a0[{offset('i', shape, to)}] = {store(value, target.dtype)};\n"
    return Kernel("copy", code, [target, array], min(MOST_BLOCKS, -(-size // THREADS)))


def draw_kernel(name: str, state: Array, place: int, out: Array) -> Kernel:
    """Return the kernel that draws ``"random_uniform"`` or ``"random_normal"`` numbers.

    ``state`` is that of a Philox stream; so many numbers of it as ``place`` says were drawn since it was
    written.
    """
    if out.dtype.name not in philox.TYPES:
        raise Unsupported(out.dtype.name)
    index = index_type(out.shape, [])
    code = (
        f"    {_loop(index, out.size)}\n"
        f"        draw_{name.removeprefix('random_')}(a0 + i, philox(a1[0], a1[1] + {place} + i));\n"
    )
    return Kernel(name, code, [out, state], min(MOST_BLOCKS, -(-out.size // THREADS)))


def advance_kernel(state: Array, count: int) -> Kernel:
    """Return the kernel that notes in the state of a Philox stream that numbers were drawn."""
    return Kernel("advance", f"    if (thread == 0) a0[1] += {count};\n", [state], 1)


def _loop(index: str, size: int) -> str:
    """Return the loop in which the threads of all blocks go over the elements."""
    step = f"({index}) {THREADS}"
    return f"for ({index} i = block * {step} + thread; i < {size}; i += blocks * {step})"


def _computed(members: Sequence[Instruction], names: dict[Value, str]) -> list[str]:
    """Return the lines that compute the members; ``names`` gets a name for each of their results."""
    lines = []
    for member in members:
        for value in member.inputs:
            if value not in names:
                names[value] = _literal(value)
        written = expression(member, names, register_type, _FUNCTIONS)
        kind = member.output.dtype
        if kind == numpy.float16:  # NumPy rounds after every operation
            written = f"__half2float(__float2half({written}))"
        names[member.output] = f"r{len(names)}"
        lines.append(f"{register_type(kind)} {names[member.output]} = {written};")
    return lines


def is_literal(value: Value) -> bool:
    """Say whether a value is a constant of one element, which stands in the code as a number."""
    return value.kind == "constant" and value.size == 1


def _literal(value: Value) -> str:
    assert is_literal(value), "an input of a group has no place"
    return f"(({register_type(value.dtype)}) {number(value.array.item())})"


# --- reductions -----------------------------------------------------------------------------------


_REDUCTION = """\
    __shared__ $kind values[$threads];
    int r = $r;
    $index k = block % $columns * ($index) $along + $k;
    $index part = block / $columns;
    $index end = (part + 1) * (long long) $length / $parts;
    $kind value = $first;
    if (k < $results)
        for ($index i = part * (long long) $length / $parts + r; i < end; i += $across)
            value = $function(value, $element);
    combine($function, values, value, thread, $distance, $across, r)
"""
_OF_ONE_PART = """\
    if (r == 0 && k < $results) a1[k] = $stored;
"""
_OF_PARTS = """\
    if (r == 0 && k < $results) a2[part * $results + k] = values[thread];
    __threadfence();
    __shared__ bool is_last;
    __syncthreads();
    if (thread == 0) is_last = atomicAdd(a3 + block % $columns, 1) == $parts - 1;
    __syncthreads();
    if (is_last) {
        __threadfence();
        value = $again;
        if (k < $results)
            for (int i = r; i < $parts; i += $across)
                value = $function(value, ((volatile $kind *) a2)[i * ($index) $results + k]);
        combine($function, values, value, thread, $distance, $across, r)
        if (r == 0 && k < $results) a1[k] = $stored;
        if (thread == 0) a3[block % $columns] = 0;
    }
"""


def reduction_kernel(
    name: str, x: Array, axis: tuple[int, ...], out: Array, zeros: Callable[[int, numpy.dtype], Array]
) -> Kernel:
    """Return the kernel of a ``"sum"`` or ``"max"`` over axes, into a contiguous array.

    A block has a rectangle of threads: along what is kept, and across, over what is reduced. Where that
    would leave a large GPU idle, the reduction is cut into parts, one for each block, and the block that is
    done last combines them, always in the same order. ``zeros(count, dtype)`` gives memory for that.
    """
    if x.size == 0 or (name == "max" and x.dtype.kind not in "iuf"):
        raise Unsupported(name)
    strides = [stride // x.dtype.itemsize for stride in x.strides]
    keep = [i for i in range(x.ndim) if i not in axis]
    kept = merged([x.shape[i] for i in keep], [strides[i] for i in keep])
    reduced = merged([x.shape[i] for i in axis], [strides[i] for i in axis])
    results, length = math.prod(kept[0]), math.prod(reduced[0])
    if results > 1 and length > 1 and abs(kept[1][-1]) < abs(reduced[1][-1]):
        along, across = 32, THREADS // 32  # neighbours read along what is kept
        k, r, distance = f"thread % {along}", f"thread / {along}", along
    else:
        across = min(THREADS, 1 << (length - 1).bit_length())  # neighbours read along what is reduced
        along = THREADS // across
        k, r, distance = f"thread / {across}", f"thread % {across}", 1
    columns = -(-results // along)
    parts = max(1, min(-(-length // (across * LEAST_ELEMENTS)), REDUCTION_BLOCKS // columns))
    kind = register_type(out.dtype)
    start = "0"
    if name == "max":  # begin with an element of the same row
        start = load(f"a0[{offset(f'(k < {results} ? k : 0)', *kept)}]", x.dtype)
    code = Template(_REDUCTION + (_OF_ONE_PART if parts == 1 else _OF_PARTS)).substitute(
        {"kind": kind, "index": index_type(x.shape, [strides]), "threads": THREADS},
        **{"k": k, "r": r, "along": along, "across": across, "distance": distance},
        **{"results": results, "length": length, "columns": columns, "parts": parts},
        function=f"{'total' if name == 'sum' else 'larger'}<{kind}>",
        first=start,
        again="0" if name == "sum" else "value",
        element=load(f"a0[{offset('k', *kept)} + {offset('i', *reduced)}]", x.dtype),
        stored=store("values[thread]", out.dtype),
    )
    arrays = [x, out]
    if parts > 1:
        wide = numpy.dtype(numpy.float32 if out.dtype == numpy.float16 else out.dtype)
        arrays += [zeros(parts * results, wide), zeros(columns, numpy.dtype(numpy.int32))]
    return Kernel(name, code, arrays, columns * parts)
