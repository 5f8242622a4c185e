"""The C statements of single steps: products call BLAS, everything else is loops.

Each function raises Unsupported for arrays of a dtype or layout that it has no code for; NumPy computes such
steps instead.
"""

from __future__ import annotations

import math

import numpy

from minidl.primitives.elementwise import power_
from minidl.program.cpu.blas import Blas, best_blas
from minidl.program.cpu.c_code import CSource
from minidl.program.expressions import Unsupported, expression
from minidl.program.plan.layout import Layout, blas_takes, layout_of
from minidl.program.program import Instruction, Value

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "bool": "_Bool",
}

#: The primitives whose functions C has for floating-point numbers alone.
FLOATS_ONLY = {power_}


def gemm_statement(source: CSource, a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, add: bool) -> str:
    """Return the call of BLAS for ``out = a @ b`` or ``out += a @ b``."""
    blas: Blas | None = best_blas()
    if blas is None or not (a.dtype == b.dtype == out.dtype) or not all(map(blas_takes, (a, b, out))):
        raise Unsupported
    if out.strides[1] != out.itemsize:
        a, b, out = b.T, a.T, out.T
    layouts: list[Layout] = [layout_of(matrix) for matrix in (a, b, out)]
    function = "s" if out.dtype == numpy.float32 else "d"
    return (
        f"{function}(101, {layouts[0][0]}, {layouts[1][0]}, {a.shape[0]}, {b.shape[1]}, {a.shape[1]}, 1, "
        f"{source.address(a)}, {layouts[0][1]}, {source.address(b)}, {layouts[1][1]}, {int(add)}, "
        f"{source.address(out)}, {layouts[2][1]});"
    )


#: Up to how many elements a sum adds up one by one. Longer ones are sums of such sums, so that rounding
#: errors hardly grow with the length.
SUM_RUN = 1024

#: How many columns a sum over rows takes at once: their sums stay in the L1 cache.
SUM_COLUMNS = 256


def sum_statement(source: CSource, x: numpy.ndarray, axis: tuple[int, ...], out: numpy.ndarray) -> str:
    """Return the loops that sum a matrix over its rows, its columns, or both; others are unsupported."""
    kind = c_type(x.dtype)
    if x.dtype.kind != "f" or out.dtype != x.dtype or x.size == 0 or not (axis or x.ndim == 0):
        raise Unsupported
    if len(axis) == x.ndim:  # everything: walk along the memory
        x = x.reshape(1, -1) if x.flags.c_contiguous else x
        axis = (0, 1)
    elif axis == (0,) and x.flags.c_contiguous:  # rows of any shape: walk along each
        x = x.reshape(len(x), -1)
    if x.ndim != 2:
        raise Unsupported
    strides = [stride // x.itemsize for stride in x.strides]
    address = f"{kind} *x = {source.address(x)}, *y = {source.address(out)};"
    if axis == (0, 1):
        outer, inner = (0, 1) if strides[1] <= strides[0] else (1, 0)
        return (
            f"{{ {address} double t = 0; for (int64_t r = 0; r < {x.shape[outer]}; r++) {{\n"
            f"{_run_sums(kind, x.shape[inner], f'r * {strides[outer]} + c * {strides[inner]}')}    }}\n"
            f"    y[0] = t; }}"
        )
    kept = 1 - axis[0]
    places = out.reshape(-1) if out.flags.c_contiguous else None
    if places is None or len(places) != x.shape[kept]:
        raise Unsupported
    if strides[kept] <= strides[axis[0]]:  # add row to row
        index = f"r * {strides[axis[0]]} + (k + c) * {strides[kept]}"
        return (
            f"{{ {address} for (int64_t k = 0; k < {x.shape[kept]}; k += {SUM_COLUMNS}) {{\n"
            f"    int64_t n = {x.shape[kept]} - k < {SUM_COLUMNS} ? {x.shape[kept]} - k : {SUM_COLUMNS};\n"
            f"    {kind} t[{SUM_COLUMNS}] = {{0}};\n"
            f"    for (int64_t q = 0; q < {x.shape[axis[0]]}; q += {SUM_RUN}) {{\n"
            f"    {kind} u[{SUM_COLUMNS}] = {{0}};\n"
            f"    for (int64_t r = q; r < q + {SUM_RUN} && r < {x.shape[axis[0]]}; r++)\n"
            f"    for (int64_t c = 0; c < n; c++) u[c] += x[{index}];\n"
            f"    for (int64_t c = 0; c < n; c++) t[c] += u[c]; }}\n"
            f"    for (int64_t c = 0; c < n; c++) y[k + c] = t[c]; }} }}"
        )
    return (
        f"{{ {address} for (int64_t r = 0; r < {x.shape[kept]}; r++) {{ double t = 0;\n"
        f"{_run_sums(kind, x.shape[axis[0]], f'r * {strides[kept]} + c * {strides[axis[0]]}')}"
        f"    y[r] = t; }} }}"
    )


def _run_sums(kind: str, length: int, index: str) -> str:
    """Return the loops that add elements to ``t``, run by run; ``index`` is the place of element ``c``."""
    return (
        f"    for (int64_t q = 0; q < {length}; q += {SUM_RUN}) {{\n"
        f"    int64_t end = q + {SUM_RUN} < {length} ? q + {SUM_RUN} : {length}; {kind} u = 0;\n"
        f"    #pragma omp simd reduction(+:u)\n"
        f"    for (int64_t c = q; c < end; c++) u += x[{index}];\n"
        f"    t += u; }}\n"
    )


def group_statement(
    source: CSource,
    members: list[Instruction],
    outputs: list[Value],
    places: dict[Value, numpy.ndarray],
    shape: tuple[int, ...],
) -> str:
    """Return the loops of an elementwise group over blocks of its arrays, all of one shape or broadcast.

    Every array is read once and written once, and everything in between stays in registers.

    ``places`` has the array, or the block of it, of every value that is read or written in memory.
    """
    if math.prod(shape) == 0:
        return ";"
    loops, positions = _walk(places, shape)
    names: dict[Value, str] = {}
    pointers, body = [], []
    inside = {member.output for member in members}
    for i, (value, array) in enumerate(places.items()):
        kind = c_type(value.dtype)
        pointers.append(f"{kind} *q{i} = {source.address(array)};")
        if value not in inside:
            names[value] = f"v{len(names)}"
            body.append(f"{kind} {names[value]} = q{i}[{positions[i]}];")
    for member in members:
        if member.primitive in FLOATS_ONLY and member.output.dtype.kind != "f":
            raise Unsupported
        written = expression(member, names, c_type)
        names[member.output] = f"v{len(names)}"
        body.append(f"{c_type(member.output.dtype)} {names[member.output]} = {written};")
    # Stores come last, so that a new state may lie where the old one was read.
    body += [f"q{i}[{positions[i]}] = {names[v]};" for i, v in enumerate(places) if v in set(outputs)]
    lines = "\n        ".join(body)
    return f"{{ {' '.join(pointers)}\n    {loops} {{\n        {lines}\n    }} }}"


def _walk(places: dict[Value, numpy.ndarray], shape: tuple[int, ...]) -> tuple[str, list[str]]:
    """Return loops over all elements, and for each array the index of an element in them."""
    size = math.prod(shape)
    one_run = all(
        array.size == 1
        or (
            array.shape == shape
            and (array.flags.c_contiguous or (array.flags.f_contiguous and array.ndim == 2))
        )
        for array in places.values()
    )
    orders = {array.flags.c_contiguous for array in places.values() if array.size > 1 and array.ndim == 2}
    if one_run and (len(orders) < 2 or 1 in shape):
        loops = f"\n    #pragma GCC ivdep\n    for (int64_t c = 0; c < {size}; c++)"
        return loops, ["0" if array.size == 1 else "c" for array in places.values()]
    strides = [_matrix_strides(array, shape) for array in places.values()]
    lengths = (shape[0], size // shape[0])
    # The inner loop runs along the axis in which more arrays are contiguous.
    rows_inside = sum(s[0] == 1 for s in strides) > sum(s[1] == 1 for s in strides)
    outer, inner = (1, 0) if rows_inside else (0, 1)
    loops = (
        f"for (int64_t r = 0; r < {lengths[outer]}; r++)\n    #pragma GCC ivdep\n"
        f"    for (int64_t c = 0; c < {lengths[inner]}; c++)"
    )
    return loops, [f"r * {s[outer]} + c * {s[inner]}" for s in strides]


def _matrix_strides(array: numpy.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the strides of an array broadcast to a shape whose axes behind the first count as one."""
    full = numpy.broadcast_to(array, shape)
    if any(stride % array.itemsize for stride in full.strides):
        raise Unsupported
    strides = [stride // array.itemsize for stride in full.strides]
    for axis in range(1, len(shape) - 1):
        if shape[axis] > 1 and strides[axis] != strides[axis + 1] * shape[axis + 1]:
            raise Unsupported
    return strides[0], strides[-1] if len(shape) > 1 else 0


def c_type(dtype: numpy.dtype) -> str:
    """Return the C type of an element."""
    if dtype.name not in C_TYPES:
        raise Unsupported
    return C_TYPES[dtype.name]
