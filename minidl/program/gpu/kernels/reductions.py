"""The kernels of reductions: sum, max, min, argmax and argmin over axes, and sums of other numbers.

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
    index_type_of,
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

/* The larger of two elements, the first of equal ones; as in NumPy, NaN is larger than any number, or for
   the smaller of two elements smaller. */
template <typename T> __device__ Found<T> first_of(Found<T> a, Found<T> b, bool a_is_more) {
    bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
    if (a_is_nan ? b_is_nan : a.value == b.value) return a.place < b.place ? a : b;
    return a_is_nan || (!b_is_nan && a_is_more) ? a : b;
}
template <typename T> __device__ Found<T> first_largest(Found<T> a, Found<T> b) {
    return first_of(a, b, a.value > b.value);
}
template <typename T> __device__ Found<T> first_smallest(Found<T> a, Found<T> b) {
    return first_of(a, b, a.value < b.value);
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
    if (r == 0 && k < $results) $out[k] = $stored;
"""
_OF_PARTS = """\
    if (r == 0 && k < $results) $kept_parts[part * $results + k] = $kept;
    __threadfence();
    __shared__ bool is_last;
    __syncthreads();
    if (thread == 0) is_last = atomicAdd($counts + block % $columns, 1) == $parts - 1;
    __syncthreads();
    if (is_last) {
        __threadfence();
        value = $again;
        if (k < $results)
            for (int j = r; j < $parts; j += $across) {
                $type_kept i = ((volatile $type_kept *) $kept_parts)[j * ($index) $results + k];
                value = $function(value, $restored);
            }
        combine($function, values, value, thread, $distance, $across, r)
        if (r == 0 && k < $results) $out[k] = $stored;
        if (thread == 0) $counts[block % $columns] = 0;
    }
"""


#: By which function a reduction combines two values.
_COMBINED = {"sum": "total", "max": "larger", "min": "smaller"}


def reduction_kernel(
    name: str, x: Array, axis: tuple[int, ...], out: Array, zeros: Callable[[int, numpy.dtype], Array]
) -> Kernel:
    """Return the kernel of a sum, max, min, argmax or argmin (``name``) over axes, into a contiguous array.

    ``"argmax"`` and ``"argmin"`` have one axis. ``zeros(count, dtype)`` gives memory for numbers that the
    blocks hand on to each other.
    """
    if x.size == 0:
        raise Unsupported(name)
    strides = element_strides(x)
    keep = [i for i in range(x.ndim) if i not in axis]
    kept = merged([x.shape[i] for i in keep], [strides[i] for i in keep])
    reduced = merged([x.shape[i] for i in axis], [strides[i] for i in axis])
    results, length = math.prod(kept[0]), math.prod(reduced[0])
    element = load(f"a0[{offset('k', *kept)} + {offset('i', *reduced)}]", x.dtype)
    # A row that does not exist begins, like all others, with an element that does.
    first = load(f"a0[{offset(f'(k < {results} ? k : 0)', *kept)}]", x.dtype)
    is_along = results > 1 and length > 1 and abs(kept[1][-1]) < abs(reduced[1][-1])
    return _kernel(
        name,
        [x, out],
        (results, length),
        is_along,
        index_type(x.shape, [strides]),
        _words(name, x, out, element, first),
        zeros,
        _FOUND if name in _FIRST else "",
    )


def sum_kernel(
    name: str,
    inputs: list[Array],
    out: Array,
    length: int,
    element: str,
    is_along: bool,
    zeros: Callable[[int, numpy.dtype], Array],
    helpers: str,
) -> Kernel:
    """Return the kernel of sums of ``length`` numbers, one for each element of a contiguous array.

    ``element`` is number i of the sum for element k, of the inputs ``a0``, ``a1``, ...; ``is_along`` says
    that neighbours in k read neighbours in memory.
    """
    index = index_type_of(*inputs, out)
    words = _words("sum", inputs[0], out, element, "0")
    return _kernel(name, [*inputs, out], (out.size, length), is_along, index, words, zeros, helpers)


def _kernel(
    name: str,
    arrays: list[Array],
    sizes: tuple[int, int],
    is_along: bool,
    index: str,
    words: dict[str, str],
    zeros: Callable[[int, numpy.dtype], Array],
    helpers: str,
) -> Kernel:
    """Return the kernel of a reduction into the last array; ``sizes`` are the results, and of how many each.

    A block has a rectangle of threads: along what is kept, and across, over what is reduced; neighbours are
    along what is kept if ``is_along``. Where that would leave a large GPU idle, the reduction has several
    parts, one for each block, and the block that is done last combines them, always in the same order.
    """
    results, length = sizes
    if is_along:
        along, across = 32, THREADS // 32
        k, r, distance = f"thread % {along}", f"thread / {along}", along
    else:
        across = min(THREADS, 1 << (length - 1).bit_length())
        along = THREADS // across
        k, r, distance = f"thread / {across}", f"thread % {across}", 1
    columns = -(-results // along)
    parts = max(1, min(-(-length // (across * MIN_ELEMENTS)), REDUCTION_BLOCKS // columns))
    last = len(arrays) - 1
    code = Template(_REDUCTION + (_OF_ONE_PART if parts == 1 else _OF_PARTS)).substitute(
        words,
        **{"index": index, "k": k, "r": r, "along": along, "across": across, "distance": distance},
        **{"results": results, "length": length, "columns": columns, "parts": parts},
        **{"out": f"a{last}", "kept_parts": f"a{last + 1}", "counts": f"a{last + 2}"},
    )
    if parts > 1:
        wide = numpy.dtype(numpy.float32 if arrays[last].dtype == numpy.float16 else arrays[last].dtype)
        arrays = [*arrays, zeros(parts * results, wide), zeros(columns, numpy.dtype(numpy.int32))]
    return Kernel(name, code, arrays, columns * parts, helpers)


#: By which function a position is found.
_FIRST = {"argmax": "first_largest", "argmin": "first_smallest"}


def _words(name: str, x: Array, out: Array, element: str, first: str) -> dict[str, str]:
    """Return what is particular to a reduction: its type, how it combines, what it begins with and keeps."""
    if name in _FIRST:  # of each part the place is kept, at which the element is read again
        kind = f"Found<{register_type(x.dtype)}>"
        found = f"{kind}{{{element}, i}}"
        return {
            **{"kind": kind, "function": f"{_FIRST[name]}<{register_type(x.dtype)}>"},
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
