"""The kernels of reductions: sum, max, min and argmax over axes.

They compute the same bits in every run: nothing depends on which block of threads comes first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from string import Template

import numpy

from minidl.devices import Array
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.source import (
    THREADS,
    Kernel,
    index_type,
    load,
    offset,
    register_type,
    store,
)
from minidl.program.plan.strides import element_strides, merged

#: Blocks among which a reduction is divided, if it is long enough.
REDUCTION_BLOCKS = 512

#: Elements that a thread of a reduction takes at least before there are more blocks.
MIN_ELEMENTS = 8

_FOUND = """\
template <typename T> struct Found { T value; long long place; };

/* The larger of two elements, the first of equal ones; as in NumPy, NaN is larger than any number. */
template <typename T> __device__ Found<T> first_largest(Found<T> a, Found<T> b) {
    bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
    if (a_is_nan ? b_is_nan : a.value == b.value) return a.place < b.place ? a : b;
    return a_is_nan || (!b_is_nan && a.value > b.value) ? a : b;
}
"""

_REDUCTION = """\
    $kind *values = ($kind *) shared;
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
    if (r == 0 && k < $results) a2[part * $results + k] = $kept;
    __threadfence();
    __shared__ bool is_last;
    __syncthreads();
    if (thread == 0) is_last = atomicAdd(a3 + block % $columns, 1) == $parts - 1;
    __syncthreads();
    if (is_last) {
        __threadfence();
        value = $again;
        if (k < $results)
            for (int j = r; j < $parts; j += $across) {
                $type_kept i = ((volatile $type_kept *) a2)[j * ($index) $results + k];
                value = $function(value, $restored);
            }
        combine($function, values, value, thread, $distance, $across, r)
        if (r == 0 && k < $results) a1[k] = $stored;
        if (thread == 0) a3[block % $columns] = 0;
    }
"""


#: By which function a reduction combines two values.
_COMBINED = {"sum": "total", "max": "larger", "min": "smaller"}


def reduction_kernel(
    name: str, x: Array, axis: tuple[int, ...], out: Array, zeros: Callable[[int, numpy.dtype], Array]
) -> Kernel:
    """Return the kernel of a sum, max, min or argmax (``name``) over axes, into a contiguous array.

    ``"argmax"`` has one axis. A block has a rectangle of threads: along what is kept, and across, over what
    is reduced. Where that would leave a large GPU idle, the reduction has several parts, one for each block,
    and the block that is done last combines them, always in the same order. ``zeros(count, dtype)`` gives
    memory for that.
    """
    if x.size == 0:
        raise Unsupported(name)
    strides = element_strides(x)
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
    parts = max(1, min(-(-length // (across * MIN_ELEMENTS)), REDUCTION_BLOCKS // columns))
    element = load(f"a0[{offset('k', *kept)} + {offset('i', *reduced)}]", x.dtype)
    # A row that does not exist begins, like all others, with an element that does.
    first = load(f"a0[{offset(f'(k < {results} ? k : 0)', *kept)}]", x.dtype)
    code = Template(_REDUCTION + (_OF_ONE_PART if parts == 1 else _OF_PARTS)).substitute(
        _words(name, x, out, element, first),
        **{"index": index_type(x.shape, [strides]), "k": k, "r": r, "along": along, "across": across},
        **{"distance": distance, "results": results, "length": length, "columns": columns, "parts": parts},
    )
    arrays = [x, out]
    if parts > 1:
        wide = numpy.dtype(numpy.float32 if out.dtype == numpy.float16 else out.dtype)
        arrays += [zeros(parts * results, wide), zeros(columns, numpy.dtype(numpy.int32))]
    return Kernel(name, code, arrays, columns * parts, _FOUND if name == "argmax" else "")


def _words(name: str, x: Array, out: Array, element: str, first: str) -> dict[str, str]:
    """Return what is particular to a reduction: its type, how it combines, what it begins with and keeps."""
    if name == "argmax":  # of each part the place is kept, at which the element is read again
        kind = f"Found<{register_type(x.dtype)}>"
        found = f"{kind}{{{element}, i}}"
        return {
            **{"kind": kind, "function": f"first_largest<{register_type(x.dtype)}>"},
            **{"first": f"{kind}{{{first}, 0}}", "again": "value", "element": found, "restored": found},
            **{"kept": "values[thread].place", "stored": "values[thread].place", "type_kept": "long long"},
        }
    kind = register_type(out.dtype)
    return {
        **{"kind": kind, "function": f"{_COMBINED[name]}<{kind}>"},
        **{"first": "0" if name == "sum" else first, "again": "0" if name == "sum" else "value"},
        **{"element": element, "restored": "i", "kept": "values[thread]", "type_kept": kind},
        "stored": store("values[thread]", out.dtype),
    }
