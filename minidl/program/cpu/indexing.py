"""The C statements of indexing by arrays of positions: elements are picked, or added up where they belong.

A position outside of its axis ends the segment, and Python raises IndexError; see c_code.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from minidl.program.cpu.c_code import OUT_OF_RANGE, CSource
from minidl.program.cpu.loops import Loops, c_type
from minidl.program.cpu.statements import copy_statement, fill_statement
from minidl.program.expressions import Unsupported
from minidl.program.lowered.selection import Selection
from minidl.program.plan.layout import is_same_place
from minidl.program.plan.strides import element_strides


def gather_statement(
    source: CSource,
    x: numpy.ndarray,
    positions: Sequence[numpy.ndarray],
    key: tuple[Any, ...],
    out: numpy.ndarray,
) -> str:
    """Return the loops of ``out = x[key]``, where arrays of positions stand in the slots of the key."""
    if x.dtype != out.dtype:
        raise Unsupported("a gather that converts")
    places = _Places(source, Selection(key, x.shape, [p.shape for p in positions]), x, positions, out)
    kind = c_type(out.dtype)
    places.pointers += [f"{kind} *y = {source.address(out)};", f"{kind} *x = {source.address(x)};"]
    return places.code([f"y[{places.loops.index(0)}] = x[{places.place}];"])


def scatter_statements(
    source: CSource,
    g: numpy.ndarray,
    positions: Sequence[numpy.ndarray],
    key: tuple[Any, ...],
    out: numpy.ndarray,
    whole: Sequence[int],
    axis: int | None,
    start: int,
    base: numpy.ndarray | None = None,
) -> list[str]:
    """Return the loops that add up elements where the positions say, always in the same order.

    ``out`` is a block of a result of the shape ``whole``, which begins at ``start`` on an axis; what is added
    to is 0, or the same block of a ``base``, which may lie in the place of ``out``.
    """
    if g.dtype != out.dtype:
        raise Unsupported("a scatter_add that converts")
    selection = Selection(key, whole, [p.shape for p in positions])
    if axis is not None and axis in selection.slices:  # g is a block, too
        selection = Selection(key, out.shape, [p.shape for p in positions])
        axis = None
    places = _Places(source, selection, out, positions, g, axis, start)
    kind = c_type(out.dtype)
    places.pointers += [f"{kind} *y = {source.address(out)};", f"{kind} *x = {source.address(g)};"]
    add = f"y[{places.place}] += x[{places.loops.index(0)}];"
    if base is None:
        first = [fill_statement(source, out, 0)]
    else:
        first = [] if is_same_place(base, out) else [copy_statement(source, out, base)]
    return [
        *first,
        places.code([f"if ({places.inside}) {add}" if places.inside else add], independent=False),
    ]


class _Places:
    """Loops over what is picked, and where in the array each of its elements lies.

    Attributes
    ----------
    loops : over the result of a gather (or what a scatter_add adds), array 0; the basic axes of the indexed
        array are array 1, the positions follow
    place : where the current element lies in the indexed array
    inside : the condition that it lies in the block, if there is one
    """

    def __init__(
        self,
        source: CSource,
        selection: Selection,
        array: numpy.ndarray,
        positions: Sequence[numpy.ndarray],
        picked: numpy.ndarray,
        axis: int | None = None,
        start: int = 0,
    ):
        strides = element_strides(array)
        along = [0 if a is None else strides[a] * selection.slices[a].step for a in selection.basic]
        spread = len(selection.spread)
        before, after = along[: selection.at], along[selection.at :]
        basic = _strided(picked.shape, [*before, *(0 for _ in range(spread)), *after])
        spread_shape = picked.shape[selection.at : selection.at + spread]
        wide = [_widened(p, spread_shape, selection.at, picked.shape) for p in positions]
        self.loops = Loops(picked.shape, [picked, basic, *wide])
        first = sum(strides[a] * place for a, place in selection.fixed.items())
        first += sum(strides[a] * part.start for a, part in selection.slices.items() if len(part))
        terms = [str(first), self.loops.index(1)]
        self.pointers: list[str] = []
        self.declared: list[tuple[bool, list[str]]] = []
        self.inside = ""
        for k, (indexed, length) in enumerate(zip(selection.indexed, selection.lengths, strict=True)):
            kind = c_type(positions[k].dtype)
            self.pointers.append(f"{kind} *q{k} = {source.address(positions[k])};")
            lines = [
                f"int64_t p{k} = q{k}[{self.loops.index(k + 2)}];",
                f"if (p{k} < 0) p{k} += {length};",
                f"if (p{k} < 0 || p{k} >= {length}) return {OUT_OF_RANGE};",
            ]
            if indexed == axis:
                lines.append(f"p{k} -= {start};")
                self.inside = f"p{k} >= 0 && p{k} < {array.shape[axis]}"
            self.declared.append((self.loops.is_fixed(k + 2), lines))
            terms.append(f"p{k} * {strides[indexed]}")
        self.place = " + ".join(term for term in terms if term != "0") or "0"

    def code(self, body: Sequence[str], independent: bool = True) -> str:
        before = [line for is_fixed, lines in self.declared if is_fixed for line in lines]
        inner = [line for is_fixed, lines in self.declared if not is_fixed for line in lines]
        loops = self.loops.code([*inner, *body], before, independent)
        return f"{{ {' '.join(self.pointers)}\n    {loops} }}"


def _strided(shape: Sequence[int], strides: Sequence[int]) -> numpy.ndarray:
    """Return an array of bytes, never touched, that has these strides; bytes, as strides count elements."""
    return numpy.lib.stride_tricks.as_strided(numpy.empty(1, numpy.uint8), shape, strides)


def _widened(positions: numpy.ndarray, spread: Sequence[int], at: int, shape: Sequence[int]) -> numpy.ndarray:
    """Return positions broadcast to the shape of what is picked, along axes ``at`` and following."""
    wide = numpy.broadcast_to(positions, spread)
    after = len(shape) - at - len(spread)
    return numpy.broadcast_to(wide[(..., *(None,) * after)], shape)
