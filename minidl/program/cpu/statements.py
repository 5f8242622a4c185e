"""The C statements of single steps: products call BLAS, everything else is loops.

Each function raises Unsupported for arrays of a dtype or layout that it has no code for; NumPy computes such
steps instead.
"""

from __future__ import annotations

import numpy

from minidl.primitives.elementwise import power_
from minidl.program.cpu.blas import MAX_SMALL_TRANSPOSED, MIN_PIECE, Blas, best_blas, length_at_a_time
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import Loops, c_type, loop, smaller, stored_type
from minidl.program.expressions import Unsupported, expression, number
from minidl.program.plan.layout import TRANSPOSED, Layout, blas_takes, layout_of
from minidl.program.program import Group, Value

#: The primitives whose functions C has for floating-point numbers alone.
FLOATS_ONLY = {power_}

#: Factors of more elements are not copied to a thread's stack.
MAX_COPIED = 8192


def gemm_statement(source: CSource, a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, add: bool) -> str:
    """Return the call of BLAS for ``out = a @ b`` or ``out += a @ b``."""
    return _gemm(a, b, out, [source.address(array) for array in (a, b, out)], add)


def _gemm(
    a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray, addresses: list[str], add: bool = False
) -> str:
    blas: Blas | None = best_blas()
    if blas is None or not (a.dtype == b.dtype == out.dtype) or not all(map(blas_takes, (a, b, out))):
        raise Unsupported
    if out.strides[1] != out.itemsize:
        a, b, out = b.T, a.T, out.T
        addresses = [addresses[1], addresses[0], addresses[2]]
    layouts: list[Layout] = [layout_of(matrix) for matrix in (a, b, out)]
    function = "s" if out.dtype == numpy.float32 else "d"
    (rows, inner), columns = a.shape, b.shape[1]
    lengths, before = [str(rows), str(columns)], ""
    cut = 0 if rows > columns else 1
    step = whole = out.shape[cut]
    if blas.has_small_products:
        is_transposed = layouts[0][0] != TRANSPOSED and layouts[1][0] == TRANSPOSED
        step = length_at_a_time(whole, out.shape[1 - cut], inner, is_transposed)
    if step < whole:
        before = f"{loop('j', str(whole), step=step)} "
        lengths[cut] = str(step) if whole % step == 0 else smaller(f"{whole} - j", step)
        for i, matrix in ((cut, (a, b)[cut]), (2, out)):
            stride = matrix.strides[cut] // matrix.itemsize
            place = "j" if stride == 1 else f"j * {stride}"
            addresses[i] = f"({c_type(out.dtype)} *) {addresses[i]} + {place}"
    return before + (
        f"{function}(101, {layouts[0][0]}, {layouts[1][0]}, {', '.join(lengths)}, {inner}, 1, "
        f"{addresses[0]}, {layouts[0][1]}, {addresses[1]}, {layouts[1][1]}, {int(add)}, "
        f"{addresses[2]}, {layouts[2][1]});"
    )


def matmul_statement(source: CSource, a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> str:
    """Return the calls of BLAS for ``out = a @ b`` on stacks of matrices, which are broadcast."""
    if out.size == 0:
        return ";"
    if a.shape[-1] == 0:
        return fill_statement(source, out, 0)
    stack, arrays = out.shape[:-2], (a, b, out)
    first_a, first_b, first = (array[(0,) * (array.ndim - 2)] for array in arrays)
    # Elements that stand for the matrices of a stack: of each, the first one.
    loops = Loops(stack, [array[..., 0, 0] for array in arrays])
    kind = c_type(out.dtype)
    pointers = [f"{kind} *q{i} = {source.address(array)};" for i, array in enumerate(arrays)]
    addresses = [f"q{i} + {loops.index(i)}" for i in range(3)]
    copies: list[str] = []
    if _is_better_copied(first_a, first_b, first):
        inner, columns = first_b.shape
        along, across = (stride // first_b.itemsize for stride in first_b.strides)
        copies = [
            f"{kind} *b = {addresses[1]}, t[{first_b.size}];",
            f"{loop('k', str(inner))} {loop('n', str(columns))} "
            f"t[k * {columns} + n] = b[k * {along} + n * {across}];",
        ]
        first_b, addresses[1] = numpy.empty(first_b.shape, out.dtype), "t"
    call = _gemm(first_a, first_b, first, addresses)
    return f"{{ {' '.join(pointers)}\n    {loops.code([*copies, call], independent=False)} }}"


def _is_better_copied(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray) -> bool:
    """Return whether a product is faster if its right factor is written by rows first.

    OpenBLAS is slow where the right factor alone is transposed, and the result not very small.
    """
    blas = best_blas()
    if blas is None or not blas.has_small_products or not all(map(blas_takes, (a, b, out))):
        return False
    return (
        out.strides[1] == out.itemsize
        and layout_of(a)[0] != TRANSPOSED
        and layout_of(b)[0] == TRANSPOSED
        and out.size > MAX_SMALL_TRANSPOSED
        and b.size <= MAX_COPIED
        and len(a) >= MIN_PIECE
    )


def group_statement(
    source: CSource, group: Group, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
) -> str:
    """Return the loops of an elementwise group over arrays of one shape or broadcast: see lowering.Statement.

    Every array is read once and written once, and everything in between stays in registers.
    """
    loops = Loops(shape, list(places.values()))
    inside = {member.output for member in group.members}
    names: dict[Value, str] = {}
    pointers: list[str] = []
    before: list[str] = []
    body: list[str] = []
    for i, (value, array) in enumerate(places.items()):
        kind = stored_type(value.dtype)
        pointers.append(f"{kind} *q{i} = {source.address(array)};")
        if value not in inside:
            names[value] = f"v{len(names)}"
            lines = before if loops.is_fixed(i) else body
            lines.append(f"{kind} {names[value]} = q{i}[{loops.index(i)}];")
    for member in group.members:
        if member.primitive in FLOATS_ONLY and member.output.dtype.kind != "f":
            raise Unsupported
        written = expression(member, names, c_type)
        names[member.output] = f"v{len(names)}"
        body.append(f"{c_type(member.output.dtype)} {names[member.output]} = {written};")
    # Stores come last, so that a new state may lie where the old one was read.
    body += [f"q{i}[{loops.index(i)}] = {names[v]};" for i, v in enumerate(places) if v in set(group.outputs)]
    return f"{{ {' '.join(pointers)}\n    {loops.code(body, before)} }}"


def copy_statement(source: CSource, target: numpy.ndarray, array: numpy.ndarray) -> str:
    """Return the loops that write an array, broadcast and converted, to another."""
    loops = Loops(target.shape, [target, array])
    to, of = c_type(target.dtype), c_type(array.dtype)
    return (
        f"{{ {to} *y = {source.address(target)}; {of} *x = {source.address(array)};\n"
        f"    {loops.code([f'y[{loops.index(0)}] = x[{loops.index(1)}];'])} }}"
    )


def fill_statement(source: CSource, target: numpy.ndarray, value: object) -> str:
    """Return the loops that write one number to all elements."""
    loops = Loops(target.shape, [target])
    kind = c_type(target.dtype)
    return (
        f"{{ {kind} *y = {source.address(target)};\n"
        f"    {loops.code([f'y[{loops.index(0)}] = ({kind}) {number(value)};'])} }}"
    )
