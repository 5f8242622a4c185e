"""The kernels of indexing: picking elements, putting them into larger arrays, and adding them up there.

A position that an array of positions gives is never outside the memory of its axis: those below 0 count from
the end, and those that NumPy would refuse come round, modulo the length, as in CuPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import Template
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.expressions import Unsupported, number
from minidl.program.gpu.kernels.source import (
    THREADS,
    Kernel,
    blocks_for,
    index_type,
    load,
    loop,
    offset,
    register_type,
    storage_type,
    store,
)
from minidl.program.lowered.selection import Selection
from minidl.program.lowered.sorted_scatter import RUN
from minidl.program.plan.strides import broadcast_strides, element_strides

_HELPERS = """\
/* Where a position given by an array lies on an axis of this length. */
__device__ inline long long wrapped(long long position, long long length) {
    if (position >= 0 && position < length) return position;
    position %= length;
    return position < 0 ? position + length : position;
}

/* How many of `count` sorted numbers are below one. */
template <typename T> __device__ int below(const T *sorted, int count, T number) {
    int low = 0;
    while (count > 0) {
        int half = count / 2;
        if (sorted[low + half] < number) {
            low += half + 1;
            count -= half + 1;
        } else
            count = half;
    }
    return low;
}
"""


def gather_kernel(x: Array, positions: Sequence[Array], key: tuple[Any, ...], out: Array) -> Kernel:
    """Return the kernel of ``out = x[key]``, where arrays of positions stand in the slots of the key.

    Raises
    ------
    Unsupported
        The result has another shape than NumPy's would have, or a dtype that CUDA does not have.
    """
    selection = _selection(key, x, positions, out)
    strides = element_strides(x)
    first = sum(strides[axis] * place for axis, place in selection.fixed.items())
    first += sum(strides[axis] * part.start for axis, part in selection.slices.items())
    along = [0 if a is None else strides[a] * selection.slices[a].step for a in selection.basic]
    sliced = _in_result(selection, along, [0] * len(selection.spread))
    terms = [term for term in (str(first), offset("i", out.shape, sliced)) if term != "0"]
    for k, axis in enumerate(selection.indexed):
        of = _in_result(selection, [0] * len(along), broadcast_strides(positions[k], selection.spread))
        place = f"wrapped(a{k + 2}[{offset('i', out.shape, of)}], {x.shape[axis]})"
        terms.append(f"{place} * {strides[axis]}")
    index = index_type(out.shape, [sliced])
    code = f"    {loop(index, out.size)}\n        a0[i] = a1[{' + '.join(terms) or '0'}];\n"
    return Kernel("gather", code, [out, x, *positions], blocks_for(out.size), _HELPERS)


def place_kernel(source: Array, key: tuple[Any, ...], fill: float, out: Array) -> Kernel:
    """Return the kernel that puts an array where a key without arrays picks, and one number elsewhere."""
    selection = _selection(key, out, (), source)
    index = index_type(out.shape, [element_strides(source)])
    kind = register_type(out.dtype)
    coordinates = _Coordinates(selection, out.shape, index, element_strides(source))
    element = load(f"a1[{coordinates.across}]", source.dtype)
    value = f"({coordinates.inside}) ? {element} : ({kind}) {number(fill)}"
    lines = [
        f"{loop(index, out.size)} {{",
        *coordinates.lines,
        f"    a0[i] = {store(value, out.dtype)};",
        "}",
    ]
    return Kernel("place", _indented(lines), [out, source], blocks_for(out.size))


#: The most positions that each element looks through for the last one that names it.
MAX_REPLACED = 64


def replace_kernel(
    x: Array, value: Array, positions: Sequence[Array], key: tuple[Any, ...], out: Array
) -> Kernel:
    """Return the kernel of ``out = x`` with ``out[key] = value``; of equal positions the last one counts.

    Raises
    ------
    Unsupported
        There are many positions, or the value has more axes than what it replaces.
    """
    selection = Selection(key, out.shape, [array.shape for array in positions])
    if selection.count > MAX_REPLACED or value.ndim > len(selection.shape):
        raise Unsupported("an assignment to many positions")
    strides = broadcast_strides(value, selection.shape)
    index = index_type(out.shape, [element_strides(x), strides])
    coordinates = _Coordinates(selection, out.shape, index, strides)
    lines = [f"{loop(index, out.size)} {{", *coordinates.lines]
    lines.append(f"    {register_type(out.dtype)} value = {load(_at(1, x, out.shape), x.dtype)};")
    start, end = selection.at, selection.at + len(selection.spread)
    element = f"{coordinates.across} + {offset('n', selection.spread, strides[start:end])}"
    conditions = [
        f"wrapped(a{k + 3}[{offset('n', selection.spread, broadcast_strides(array, selection.spread))}], "
        f"{out.shape[axis]}) == p{axis}"
        for k, (axis, array) in enumerate(zip(selection.indexed, positions, strict=True))
    ]
    lines += [
        f"    if ({coordinates.inside})",
        f"        for (int n = {selection.count - 1}; n >= 0; n--)",
        f"            if ({' && '.join(conditions) or 'true'}) {{",
        f"                value = {load(f'a2[{element}]', value.dtype)};",
        "                break;",
        "            }",
        f"    a0[i] = {store('value', out.dtype)};",
        "}",
    ]
    return Kernel("replace", _indented(lines), [out, x, value, *positions], blocks_for(out.size), _HELPERS)


def _at(number: int, array: Array, shape: Sequence[int]) -> str:
    return f"a{number}[{offset('i', shape, broadcast_strides(array, shape))}]"


def _selection(key: tuple[Any, ...], x: Array, positions: Sequence[Array], result: Array) -> Selection:
    selection = Selection(key, x.shape, [array.shape for array in positions])
    if selection.shape != result.shape or (result.size and 0 in selection.lengths):
        raise Unsupported(f"a result of shape {result.shape}")
    return selection


def _in_result(selection: Selection, basic: Sequence[int], spread: Sequence[int]) -> list[int]:
    """Return strides over the axes of a result, from those over its two kinds of axes."""
    return [*basic[: selection.at], *spread, *basic[selection.at :]]


class _Coordinates:
    """The code that finds, for element ``i`` of an array, where in a selection from it that element is.

    Attributes
    ----------
    lines : declare ``p0``, ``p1``, ... on the axes of the array and ``q0``, ``q1``, ... within the slices
    inside : says whether the element can be in the selection; positions given by arrays are not asked
    across : where it lies in memory that has these strides, without the axes of the positions
    column : its number among the elements of the selection that one position picks
    """

    def __init__(self, selection: Selection, shape: Sequence[int], index: str, strides: Sequence[int]):
        self.lines: list[str] = []
        conditions, across, column = [], [], []
        inner = math.prod(shape)
        for axis, length in enumerate(shape):
            inner //= max(length, 1)
            self.lines.append(f"    {index} p{axis} = i / {inner} % {length};")
            if axis in selection.fixed:
                conditions.append(f"p{axis} == {selection.fixed[axis]}")
            elif axis in selection.slices:
                part = selection.slices[axis]
                if part == range(length):
                    self.lines.append(f"    {index} q{axis} = p{axis};")
                else:
                    self.lines.append(f"    {index} q{axis} = (p{axis} - {part.start}) / {part.step};")
                    conditions.append(f"p{axis} == {part.start} + q{axis} * {part.step}")
                    conditions.append(f"q{axis} >= 0 && q{axis} < {len(part)}")
        lengths, start = selection.basic_lengths, len(selection.spread)
        basic = [*strides[: selection.at], *strides[selection.at + start :]]
        for i, of in enumerate(selection.basic):
            if of is not None:
                across.append(f"q{of} * {basic[i]}")
                column.append(f"q{of} * {math.prod(lengths[i + 1 :])}")
        self.inside = " && ".join(conditions) or "true"
        self.across = " + ".join(across) or "0"
        self.column = " + ".join(column) or "0"


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


# --- scatter_add with positions -------------------------------------------------------------------
#
# See program/lowered/sorted_scatter.py. To compare all positions with all others takes too long for thousands
# of them, and a chain of equal ones has to be walked link by link. Sorted, equal ones are neighbours.
# They are sorted by counting, for each place, those below it: all pairs of places in a stretch are compared,
# from shared memory, and beyond it the places below are found by bisection of each other stretch.


_SORT = """\
    $kind *others = ($kind *) shared;
    int n = block * $threads + thread, start = n / $stretch * $stretch, rank = start;
    $kind own = n < $count ? $own : 0;
    for (int from = start; from < start + $stretch && from < $count; from += $threads) {
        int m = from + thread, length = $count - from < $threads ? $count - from : $threads;
        __syncthreads();
        if (m < $count) others[thread] = $other;
        __syncthreads();
        for (int j = 0; j < length; j++) rank += others[j] < own;
    }
    if (n < $count) a0[rank] = own;
"""

_MERGE = """\
    $loop {
        int rank = i % $stretch;
        for (int start = 0; start < $count; start += $stretch)
            if (start != i / $stretch * $stretch)
                rank += below(a1 + start, $count - start < $stretch ? $count - start : $stretch, a1[i]);
        a0[rank] = a1[i];
    }
"""

_SUM_RUNS = """\
    $loop {
        int first = i / $columns * $run;
        $index column = i % $columns;
        $kind value = 0;
        if (a2[first] / $count == a2[first + $run - 1] / $count) {
            $index across = $across;
            for (int j = first; j < first + $run; j++) {
                int n = a2[j] % $count;
                value += $element;
            }
        }
        a0[i] = value;
    }
"""

_SCATTER = """\
    $loop {
$coordinates
        $kind value = 0;
        if ($inside) {
            $places target = $target;
            $places first = target * $count;
            $index across = $across;
            int j = below(a2, $count, first), end = j;
            if (j < $count && a2[j] < first + $count) end += below(a2 + j, $count - j, first + $count);
$runs
            for (; j < end; j++) {
                int n = a2[j] - first;
                value += $element;
            }
        }
        a0[i] = $stored;
    }
"""
_RUNS = """\
            int head = (j + $run - 1) / $run * $run;
            for (; j < end && j < head; j++) {
                int n = a2[j] - first;
                value += $element;
            }
            for (; j + $run <= end; j += $run) value += a3[j / $run * ($index) $columns + $column];
"""


def sort_places_kernel(
    positions: Sequence[Array], lengths: Sequence[int], stretch: int, out: Array
) -> Kernel:
    """Return the kernel that computes places, and sorts them within each stretch.

    Each place is compared with those of its stretch, a multiple of THREADS.
    """
    spread = numpy.broadcast_shapes(*(array.shape for array in positions))
    count, kind = out.size, storage_type(out.dtype)

    def place(n: str) -> str:
        target = ""
        for k, (array, length) in enumerate(zip(positions, lengths, strict=True)):
            element = f"a{k + 1}[{offset(n, spread, broadcast_strides(array, spread))}]"
            target = f"{target and f'{target} * {length} + '}wrapped({element}, {length})"
            target = f"({target})"
        return f"({kind}) ({target} * {count} + {n})"

    code = Template(_SORT).substitute(
        {"kind": kind, "threads": THREADS, "stretch": stretch, "count": count},
        **{"own": place("n"), "other": place("m")},
    )
    return Kernel("sort places", code, [out, *positions], -(-count // THREADS), _HELPERS)


def merge_places_kernel(places: Array, stretch: int, out: Array) -> Kernel:
    """Return the kernel that sorts places of which each stretch is sorted already."""
    count = out.size
    code = Template(_MERGE).substitute(loop=loop("int", count), stretch=stretch, count=count)
    return Kernel("merge places", code, [out, places], blocks_for(count), _HELPERS)


def sum_runs_kernel(
    g: Array,
    places: Array,
    position_shapes: Sequence[Sequence[int]],
    key: tuple[Any, ...],
    shape: tuple[Any, ...],
    out: Array,
) -> Kernel:
    """Return the kernel that sums each RUN of sorted contributions that belong to one element, else 0."""
    selection = Selection(key, shape, position_shapes)
    basic, element = _of_contribution(selection, g)
    index = index_type(out.shape, [element_strides(g)])
    code = Template(_SUM_RUNS).substitute(
        {"loop": loop(index, out.size), "index": index, "kind": register_type(out.dtype), "run": RUN},
        **{"count": places.size, "columns": math.prod(selection.basic_lengths), "element": element},
        across=offset("column", selection.basic_lengths, basic),
    )
    return Kernel("sum runs", code, [out, g, places], blocks_for(out.size))


def scatter_kernel(
    g: Array,
    places: Array,
    sums: Array | None,
    position_shapes: Sequence[Sequence[int]],
    key: tuple[Any, ...],
    out: Array,
) -> Kernel:
    """Return the kernel of scatter_add with positions: each element adds up what belongs to it, in order.

    It writes every element once, reads every contribution once, and looks for those of an element by
    bisection. ``sums`` are those of runs, which spare an element that is named thousands of times the walk
    through all of its contributions.
    """
    selection = Selection(key, out.shape, position_shapes)
    if selection.shape != g.shape:
        raise Unsupported(f"contributions of shape {g.shape}")
    index = index_type(out.shape, [element_strides(g)])
    coordinates = _Coordinates(selection, out.shape, index, element_strides(g))
    target = "0"
    for axis in selection.indexed:
        target = f"p{axis}" if target == "0" else f"({target}) * {out.shape[axis]} + p{axis}"
    words = {
        **{"loop": loop(index, out.size), "index": index, "kind": register_type(out.dtype), "run": RUN},
        **{"count": places.size, "columns": math.prod(selection.basic_lengths)},
        **{"coordinates": _indented(coordinates.lines), "inside": coordinates.inside, "target": target},
        **{"places": storage_type(places.dtype), "across": coordinates.across, "column": coordinates.column},
        **{"element": _of_contribution(selection, g)[1], "stored": store("value", out.dtype)},
    }
    words["runs"] = Template(_RUNS).substitute(words) if sums is not None else ""
    arrays = [out, g, places] if sums is None else [out, g, places, sums]
    return Kernel("scatter add", Template(_SCATTER).substitute(words), arrays, blocks_for(out.size), _HELPERS)


def _of_contribution(selection: Selection, g: Array) -> tuple[list[int], str]:
    """Return the strides of contributions without the positions' axes, and the code that reads number n."""
    strides, start, end = element_strides(g), selection.at, selection.at + len(selection.spread)
    place = offset("n", selection.spread, strides[start:end])
    return strides[:start] + strides[end:], load(f"a1[across + {place}]", g.dtype)
