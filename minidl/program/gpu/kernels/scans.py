"""The kernels of running sums and of sorting along an axis."""

from __future__ import annotations

import math
from string import Template

from minidl.devices import Array
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.source import (
    THREADS,
    Kernel,
    blocks_for,
    index_type,
    load,
    loop,
    offset,
    register_type,
    store,
)
from minidl.program.plan.strides import element_strides

#: Elements of a row that a thread of a running sum takes at least, before there are more threads.
MIN_ELEMENTS = 8

#: The longest axis that is sorted by comparing all pairs.
MAX_SORTED = 2048

_SUMS = """\
    int r = thread % $across;
    $index number = block * ($index) $along + thread / $across;
    $index row = number < $rows ? number : $rows - 1;  /* without a row, what others do */
    int start = r * $own, end = start + $own < $length ? start + $own : $length;
    $kind value = 0, *sums = ($kind *) shared;
    for (int i = start; i < end; i++) value += $element;
    __syncthreads();
    sums[thread] = value;
    __syncthreads();
    value = 0;
    for (int j = thread - r; j < thread; j++) value += sums[j];
    for (int i = start; i < end; i++) {
        value += $element;
        if (number < $rows) $target = $stored;
    }
"""

#: NaN comes last, and equal elements stay in their order.
_ORDER = """\
    $loop {
        $index row = i / $length;
        int own = i % $length, rank = 0;
        $kind x = $own;
        bool is_nan = x != x;
        for (int j = 0; j < $length; j++) {
            $kind other = $other;
            bool other_is_nan = other != other;
            if (is_nan != other_is_nan) rank += is_nan;
            else if (is_nan || other == x) rank += j < own;
            else rank += other < x;
        }
        $target = own;
    }
"""


def cumsum_kernel(x: Array, axis: int, out: Array) -> Kernel:
    """Return the kernel of running sums along an axis.

    Some threads take a row together: each sums up its part, and begins with the sum of the parts before.
    """
    length, rows = x.shape[axis], x.size // max(x.shape[axis], 1)
    across = min(THREADS, 1 << max(-(-length // MIN_ELEMENTS) - 1, 0).bit_length())
    along = THREADS // across
    code = Template(_SUMS).substitute(
        {"index": _index(x, out), "kind": register_type(out.dtype), "across": across, "along": along},
        **{"rows": rows, "length": length, "own": -(-length // across)},
        **{"element": load(_along(1, x, axis, "i"), x.dtype), "target": _along(0, out, axis, "i")},
        stored=store("value", out.dtype),
    )
    return Kernel("cumsum", code, [out, x], -(-rows // along))


def argsort_kernel(x: Array, axis: int, out: Array) -> Kernel:
    """Return the kernel of the order along an axis, which counts for each element those before it.

    Raises
    ------
    Unsupported
        The axis is too long for that.
    """
    length = x.shape[axis]
    if length > MAX_SORTED or x.dtype.kind not in "fiub":
        raise Unsupported("argsort along a long axis")
    index = _index(x, out)
    code = Template(_ORDER).substitute(
        {"loop": loop(index, x.size), "index": index, "kind": register_type(x.dtype), "length": length},
        **{"own": load(_along(1, x, axis, "own"), x.dtype), "other": load(_along(1, x, axis, "j"), x.dtype)},
        target=_along(0, out, axis, "rank"),
    )
    return Kernel("argsort", code, [out, x], blocks_for(x.size))


def _index(x: Array, out: Array) -> str:
    return index_type(x.shape, [element_strides(x), element_strides(out)])


def _along(number: int, array: Array, axis: int, place: str) -> str:
    """Return an element of array ``a0`` (or ``a1``, ...): at a place along an axis, of row ``row``."""
    shape, strides = list(array.shape), element_strides(array)
    stride = strides.pop(axis)
    shape.pop(axis)
    row = offset("row", shape, strides) if math.prod(shape) > 1 else "0"
    return f"a{number}[{row} + {place} * {stride}]"
