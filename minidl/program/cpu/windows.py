"""The C statements of windows that slide over images: pooling, unfolding and folding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from minidl.primitives.windows import do_overlap, taps, window_view
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import Loops, c_type
from minidl.program.cpu.statements import copy_statement, fill_statement
from minidl.program.expressions import Unsupported

#: The longest text of taps that is written out.
MAX_TAPS = 64


def select_maxima_statement(
    source: CSource,
    values: numpy.ndarray,
    x: numpy.ndarray,
    window: Sequence[int],
    stride: Sequence[int],
    out: numpy.ndarray,
) -> str:
    """Return the loops that pick, from each window of ``values``, the element where x is largest."""
    over = _Windows(x, out.shape[1:-1], window, stride)
    arrays = [over.first(x), over.first(values)]
    loops = Loops(out.shape, [*arrays, out])
    kind = c_type(x.dtype)
    if values is x:
        body = [f"{kind} t = x[{loops.index(0)}];"]
        body += [f"t = max(x[{loops.index(0)} + {at}], t);" for at in over.offsets(x)[1:]]
    else:
        body = [*over.chosen(kind, loops.index(0)), f"{c_type(out.dtype)} t = v[{loops.index(1)}];"]
        offsets = enumerate(over.offsets(values)[1:], 1)
        body += [f"t = chosen == {n} ? v[{loops.index(1)} + {at}] : t;" for n, at in offsets]
    return (
        f"{{ {kind} *x = {source.address(arrays[0])};\n"
        f"    {c_type(values.dtype)} *v = {source.address(arrays[1])};\n"
        f"    {c_type(out.dtype)} *y = {source.address(out)};\n"
        f"    {loops.code([*body, f'y[{loops.index(2)}] = t;'])} }}"
    )


def scatter_to_maxima_statements(
    source: CSource,
    g: numpy.ndarray,
    x: numpy.ndarray,
    window: Sequence[int],
    stride: Sequence[int],
    out: numpy.ndarray,
) -> list[str]:
    """Return the loops that put, for each window, an element of g where x is largest, and 0 elsewhere."""
    counts = g.shape[1:-1]
    over = _Windows(x, counts, window, stride)
    overlap = do_overlap(window, stride)
    covered = all(
        w >= s and n * s >= length
        for w, s, n, length in zip(window, stride, counts, out.shape[1:-1], strict=True)
    )
    arrays = [over.first(x), over.first(out)]
    loops = Loops(g.shape, [*arrays, g])
    kind, result = c_type(x.dtype), c_type(out.dtype)
    places = [f"y[{loops.index(1)} + {at}]" for at in over.offsets(out)]
    if overlap:
        chosen = [*over.chosen(kind, loops.index(0)), f"{result} t = g[{loops.index(2)}];"]
        writes = [f"if (chosen == {n}) {place} += t;" for n, place in enumerate(places)]
    else:
        bits = f"int{8 * out.itemsize}_t"
        chosen = over.is_larger(kind, bits, loops.index(0))
        chosen += [f"union {{ {result} number; {bits} bits; }} t = {{g[{loops.index(2)}]}}, part;"]
        writes = [f"{bits} later = 0;"]
        for n, place in reversed(list(enumerate(places))):
            writes.append(f"part.bits = t.bits & is{n} & ~later; later |= is{n}; {place} = part.number;")
    code = loops.code([*chosen, *writes], independent=not overlap)
    statement = (
        f"{{ {kind} *x = {source.address(arrays[0])}; {result} *y = {source.address(arrays[1])};\n"
        f"    {c_type(g.dtype)} *g = {source.address(g)};\n    {code} }}"
    )
    return [statement] if covered and not overlap else [fill_statement(source, out, 0), statement]


def windows_statement(
    source: CSource,
    x: numpy.ndarray,
    window: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    out: numpy.ndarray,
) -> str:
    """Return the loops that copy every window."""
    count = out.shape[1 : 1 + len(window)]
    return copy_statement(source, out, window_view(numpy, x, window, count, stride, dilation))


def overlap_add_statements(
    source: CSource,
    parts: numpy.ndarray,
    lengths: Sequence[int],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    out: numpy.ndarray,
) -> list[str]:
    """Return the loops that add windows up in place, one position of the window after another."""
    axes = len(lengths)
    count, window = parts.shape[1 : 1 + axes], parts.shape[1 + axes : -1]
    statements = [fill_statement(source, out, 0)]
    for position, key in taps(window, count, stride, dilation):
        part, target = parts[(slice(None),) * (1 + axes) + position], out[key]
        loops = Loops(target.shape, [target, part])
        kind = c_type(out.dtype)
        statements.append(
            f"{{ {kind} *y = {source.address(target)}, *x = {source.address(part)};\n"
            f"    {loops.code([f'y[{loops.index(0)}] += x[{loops.index(1)}];'])} }}"
        )
    return statements


class _Windows:
    """Windows over the middle axes of arrays like x: where they begin, and what lies in them."""

    def __init__(self, x: numpy.ndarray, counts: Sequence[int], window: Sequence[int], stride: Sequence[int]):
        ones = (1,) * len(window)
        found = list(taps(tuple(window), tuple(counts), tuple(stride), ones))
        if len(found) > MAX_TAPS or x.dtype.kind not in "fiu":
            raise Unsupported("windows as large as these")
        self.positions = [position for position, _ in found]
        self.key = found[0][1]
        self.x = x

    def first(self, array: numpy.ndarray) -> numpy.ndarray:
        """Return the first element of each window of an array."""
        elements: numpy.ndarray = array[self.key]
        return elements

    def offsets(self, array: numpy.ndarray) -> list[int]:
        """Return how far from the first element of a window the others lie."""
        steps = [stride // array.itemsize for stride in array.strides[1:-1]]
        return [sum(p * s for p, s in zip(place, steps, strict=True)) for place in self.positions]

    def is_larger(self, kind: str, bits: str, index: str) -> list[str]:
        """Return the statements that set ``is0``, ``is1``, ...: all bits where an element exceeds all before.

        The last of these is the first largest element; NaN counts as largest. There are no conditions, from
        which compilers make stores under a mask, which are slow.
        """
        lines = [f"{kind} best = x[{index}]; {bits} is0 = -1;"]
        for number, at in enumerate(self.offsets(self.x)[1:], 1):
            lines.append(
                f"{kind} x{number} = x[{index} + {at}]; {bits} is{number} ="
                f" -(({bits}) ((x{number} > best) | (x{number} != x{number})));"
                f" best = is{number} ? x{number} : best;"
            )
        return lines

    def chosen(self, kind: str, index: str) -> list[str]:
        """Return the statements that find the number of the first largest element; NaN counts as largest."""
        lines = [f"{kind} best = x[{index}]; int32_t chosen = 0;"]
        for number, at in enumerate(self.offsets(self.x)[1:], 1):
            lines.append(
                f"{{ {kind} next = x[{index} + {at}];"
                f" chosen = next > best || next != next ? {number} : chosen; best = max(next, best); }}"
            )
        return lines
