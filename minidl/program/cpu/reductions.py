"""The C statements of reductions over any axes: sum, max, min, argmax and argmin.

What is reduced and what is kept are two nests of loops. If memory runs along what is reduced, each result is
computed by itself; if it runs along what is kept, a block of results at once, whose places stay in the L1
cache. Sums of many elements are sums of sums, so that rounding errors hardly grow with the length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import c_type, index, loop, smaller
from minidl.program.cpu.statements import copy_statement, fill_statement
from minidl.program.expressions import Unsupported
from minidl.program.plan.strides import Axis, element_strides, merged_axes, walk

#: Up to how many elements a sum adds up one by one. Longer ones are sums of such sums.
SUM_RUN = 1024

#: The same for sums that add row to row, one element at a time; the others have some lanes side by side.
COLUMN_RUN = 128

#: How many elements, at least, are added up before they are added to the sum of sums.
MIN_RUN = 64

#: How many results a reduction along the kept axis takes at once.
COLUMNS = 256

#: How many results, or parts of one, are computed side by side where there are few: some registers.
LANES = 64

_EXTREMA = {"max": "max", "min": "min"}
_PLACES = {"argmax": ">", "argmin": "<"}


def reduction_statement(
    source: CSource, name: str, x: numpy.ndarray, axis: Sequence[int], out: numpy.ndarray
) -> str:
    """Return the loops that reduce an array over axes, as the function of NumPy of this name does.

    Raises
    ------
    Unsupported
        There is no code for these dtypes, or there is nothing to reduce.
    """
    axis = tuple(axis)
    if name == "sum" and x.size == 0:
        return fill_statement(source, out, 0)
    if out.size == 0:
        return ";"
    if x.size == 0:
        raise Unsupported(f"{name} of nothing")
    keep = [i for i in range(x.ndim) if i not in axis]
    results = out if out.ndim == len(keep) else out.squeeze(axis)
    if not axis and name not in _PLACES:
        return copy_statement(source, out, x)
    if name == "sum" and (x.dtype.kind == "f") != (out.dtype.kind == "f"):
        raise Unsupported(f"a sum of {x.dtype} as {out.dtype}")
    nest = _Nest(x, axis, keep, results)
    pointers = (
        f"{c_type(x.dtype)} *x = {source.address(x)}; {c_type(out.dtype)} *y = {source.address(results)};"
    )
    return f"{{ {pointers}\n    {nest.code(name, c_type(x.dtype), c_type(out.dtype))} }}"


class _Nest:
    """The loops of a reduction: ``kept`` over results (strides of x and of these), ``reduced`` in each."""

    def __init__(self, x: numpy.ndarray, axis: Sequence[int], keep: Sequence[int], results: numpy.ndarray):
        strides = element_strides(x)
        self.kept = walk(results.shape, [[strides[i] for i in keep], element_strides(results)])
        lengths, steps = [x.shape[i] for i in axis], [strides[i] for i in axis]
        self.in_order = merged_axes([Axis(n, (step,)) for n, step in zip(lengths, steps, strict=True)])
        self.reduced = walk(lengths, [steps]) or [Axis(1, (0,))]
        self.count = math.prod(lengths)

    def code(self, name: str, kind: str, result: str) -> str:
        if name in _PLACES:
            return self._place(_PLACES[name], kind)
        along_kept = bool(self.kept) and abs(self.kept[-1].strides[0]) < abs(self.reduced[-1].strides[0])
        if name in _EXTREMA:
            return (self._extrema if along_kept else self._extremum)(_EXTREMA[name], kind)
        if not along_kept:
            return self._sum(result)
        return self._few_sums(result) if self._has_few() else self._sums(result)

    # --- where an element lies --------------------------------------------------------------------

    def _start(self, depth: int) -> str:
        """Return where the elements begin that the outer loops over what is kept have chosen."""
        return index([f"k{i}" for i in range(depth)], self.kept[:depth], 0)

    def _result(self, depth: int) -> str:
        return index([f"k{i}" for i in range(depth)], self.kept[:depth], 1)

    def _element(self) -> str:
        return index([f"r{i}" for i in range(len(self.reduced))], self.reduced, 0)

    def _outer(self, axes: Sequence[Axis], name: str, first: int = 0) -> str:
        return " ".join(loop(f"{name}{first + i}", str(axis.length)) for i, axis in enumerate(axes))

    # --- sums -------------------------------------------------------------------------------------

    def _runs(self, longest: int) -> tuple[int, int]:
        """Return how many loops are outside of a run, and how long the outermost loop of a run is."""
        depth, count = len(self.reduced) - 1, self.reduced[-1].length
        while count < MIN_RUN and depth:
            depth -= 1
            count *= self.reduced[depth].length
        return depth, max(longest * self.reduced[depth].length // count, 1)

    def _sum(self, kind: str) -> str:
        """Return the loops that sum what lies side by side, one result after another."""
        depth, step = self._runs(SUM_RUN)
        run, inside = self.reduced[depth], self.reduced[depth + 1 :]
        loops = [loop(f"r{depth}", smaller(f"q + {step}", run.length), "q")]
        loops += [loop(f"r{depth + 1 + i}", str(axis.length)) for i, axis in enumerate(inside)]
        total = "double" if kind in ("float", "double") else kind
        return (
            f"{self._outer(self.kept, 'k')} {{ {total} t = 0;\n"
            f"    {self._outer(self.reduced[:depth], 'r')} {loop('q', str(run.length), step=step)} {{\n"
            f"    {kind} u = 0;\n"
            f"    {' '.join(loops[:-1])}\n    #pragma omp simd reduction(+:u)\n"
            f"    {loops[-1]} u += x[{self._start(len(self.kept))} + {self._element()}];\n"
            f"    t += u; }}\n"
            f"    y[{self._result(len(self.kept))}] = t; }}"
        )

    def _sums(self, kind: str) -> str:
        """Return the loops that add row to row, a block of columns at a time."""
        inner, last = self.kept[-1], len(self.kept) - 1
        depth, step = self._runs(COLUMN_RUN)
        run, inside = self.reduced[depth], self.reduced[depth + 1 :]
        total = "double" if kind == "float" else kind
        element = f"{self._start(last)} + (k + c) * {inner.strides[0]} + {self._element()}"
        return (
            f"{self._outer(self.kept[:-1], 'k')} {loop('k', str(inner.length), step=COLUMNS)} {{\n"
            f"    {self._columns(inner)} {total} t[{COLUMNS}] = {{0}};\n"
            f"    {self._outer(self.reduced[:depth], 'r')} {loop('q', str(run.length), step=step)} {{\n"
            f"    {kind} u[{COLUMNS}] = {{0}};\n"
            f"    {loop(f'r{depth}', smaller(f'q + {step}', run.length), 'q')}\n"
            f"    {self._outer(inside, 'r', depth + 1)} {loop('c', 'n')} u[c] += x[{element}];\n"
            f"    {loop('c', 'n')} t[c] += u[c]; }}\n"
            f"    {loop('c', 'n')} y[{self._result(last)} + (k + c) * {inner.strides[1]}] = t[c]; }}"
        )

    def _columns(self, inner: Axis) -> str:
        """Return the declaration of ``n``, how many columns a block has: a constant if there is one block."""
        if inner.length <= COLUMNS:
            return f"enum {{ n = {inner.length} }};"
        return f"int64_t n = {smaller(f'{inner.length} - k', COLUMNS)};"

    def _has_few(self) -> bool:
        """Return whether so few results lie side by side that several rows of them fit in registers."""
        kept, reduced = self.kept[-1], self.reduced[-1]
        return (
            len(self.reduced) == 1
            and kept.strides[0] == 1
            and kept.length * 2 <= LANES
            and reduced.strides[0] == kept.length
        )

    def _few_sums(self, kind: str) -> str:
        """Return the loops that add several short rows at once, as if they were one."""
        inner, last = self.kept[-1], len(self.kept) - 1
        rows = LANES // inner.length
        width, length = rows * inner.length, self.reduced[-1].length
        whole, start = length // rows, self._start(last)
        total = "double" if kind == "float" else kind
        return (
            f"{self._outer(self.kept[:-1], 'k')} {{ {total} t[{inner.length}] = {{0}};\n"
            f"    {loop('q', str(whole), step=COLUMN_RUN)} {{ {kind} u[{width}] = {{0}};\n"
            f"    {loop('r', smaller(f'q + {COLUMN_RUN}', whole), 'q')}\n"
            f"    {loop('c', str(width))} u[c] += x[{start} + r * {width} + c];\n"
            f"    {loop('c', str(width))} t[c % {inner.length}] += u[c]; }}\n"
            f"    {loop('r', str(length), str(whole * rows))}\n"
            f"    {loop('c', str(inner.length))} t[c] += x[{start} + r * {inner.length} + c];\n"
            f"    {loop('c', str(inner.length))} y[{self._result(last)} + c * {inner.strides[1]}] = t[c]; }}"
        )

    # --- largest and smallest ---------------------------------------------------------------------

    def _extremum(self, function: str, kind: str) -> str:
        """Return the loops that compare what lies side by side; floats by their ranks, which are integers."""
        start, inner = self._start(len(self.kept)), self.reduced[-1]
        first, element = f"x[{start}]", f"x[{start} + {self._element()}]"
        ranked = kind in ("float", "double")
        nan = f"{'INT64' if kind == 'double' else 'INT32'}_{function.upper()}"
        if ranked:
            first, element = (f"({x} != {x} ? {nan} : rank_{kind}({x}))" for x in (first, element))
        of, sign = f"rank_of_{kind}" if ranked else kind, ">" if function == "max" else "<"
        result = f"{kind}_of_rank(t)" if ranked else "t"
        return (
            f"{self._outer(self.kept, 'k')} {{ {of} t = {first};\n"
            f"    {self._outer(self.reduced[:-1], 'r')} {{ {of} u = t;\n"
            f"    #pragma omp simd reduction({function}:u)\n"
            f"    {loop(f'r{len(self.reduced) - 1}', str(inner.length))} {{\n"
            f"    {of} e = {element}; u = e {sign} u ? e : u; }}\n"
            f"    t = u; }}\n"
            f"    y[{self._result(len(self.kept))}] = {result}; }}"
        )

    def _extrema(self, function: str, kind: str) -> str:
        inner, last = self.kept[-1], len(self.kept) - 1
        start = f"{self._start(last)} + (k + c) * {inner.strides[0]}"
        return (
            f"{self._outer(self.kept[:-1], 'k')} {loop('k', str(inner.length), step=COLUMNS)} {{\n"
            f"    {self._columns(inner)} {kind} t[{COLUMNS}];\n"
            f"    {loop('c', 'n')} t[c] = x[{start}];\n"
            f"    {self._outer(self.reduced, 'r')} {loop('c', 'n')}\n"
            f"    t[c] = {function}(x[{start} + {self._element()}], t[c]);\n"
            f"    {loop('c', 'n')} y[{self._result(last)} + (k + c) * {inner.strides[1]}] = t[c]; }}"
        )

    def _place(self, comparison: str, kind: str) -> str:
        """Return the loops that find the first extremum; NaN counts as one, as in NumPy."""
        if len(self.in_order) > 1:
            raise Unsupported("a place on several axes")
        axis = self.in_order[0] if self.in_order else Axis(1, (0,))
        start = self._start(len(self.kept))
        return (
            f"{self._outer(self.kept, 'k')} {{ int64_t place = 0; {kind} t = x[{start}];\n"
            f"    {loop('r', str(axis.length), '1')} {{ {kind} v = x[{start} + r * {axis.strides[0]}];\n"
            f"    if (v {comparison} t || (v != v && t == t)) {{ t = v; place = r; }} }}\n"
            f"    y[{self._result(len(self.kept))}] = place; }}"
        )
