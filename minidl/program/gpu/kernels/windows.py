"""The kernels of windows: packing them for a convolution, adding them up, and max pooling.

Images are (batch, *lengths, channels) with any strides. Every kernel computes each element of its result by
itself, in one order, so that the same bits come out in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidl.devices import Array
from minidl.primitives.windows import do_overlap
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.source import (
    Kernel,
    blocks_for,
    index_type_of,
    load,
    loop,
    offset,
    register_type,
    store,
)
from minidl.program.plan.strides import element_strides

#: Types of elements that are only moved, by their bytes.
_UNITS = {16: "int4", 8: "unsigned long long", 4: "unsigned int", 2: "unsigned short", 1: "unsigned char"}


def coordinates(names: Sequence[str], shape: Sequence[int], index: str, number: str = "i") -> list[str]:
    """Return the lines that declare where on each axis of a shape an element lies, by its number."""
    inner, lines = math.prod(shape), []
    for axis, (name, length) in enumerate(zip(names, shape, strict=True)):
        inner //= max(length, 1)
        place = number if inner == 1 else f"{number} / {inner}"
        place = place if axis == 0 else f"{place} % {length}"
        lines.append(f"{index} {name} = {'0' if length == 1 else place};")
    return lines


def numbered(letter: str, count: int) -> list[str]:
    """Return names: ``p0``, ``p1``, ..."""
    return [f"{letter}{i}" for i in range(count)]


def place(names: Sequence[str], strides: Sequence[int]) -> str:
    """Return where an element lies, by its coordinates."""
    terms = [f"{n} * {s}" if s != 1 else n for n, s in zip(names, strides, strict=True) if s]
    return " + ".join(terms) or "0"


def loop_over(index: str, count: int, lines: Sequence[str]) -> str:
    """Return the code of a kernel: lines that are run for each ``i`` below a count."""
    body = "".join(f"        {line}\n" for line in lines)
    return f"    {loop(index, count)} {{\n{body}    }}\n"


def pack_kernel(
    x: Array,
    columns: Array,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    first: int | None = None,
) -> Kernel:
    """Return the kernel that copies windows of images side by side; what is in the border is 0.

    ``columns`` is (groups, images, *counts, *window, channels of a group), contiguous. With ``first`` the
    rows of windows begin there, and kernels for other rows have the same code.

    Elements are moved several at once where the channels, and how they lie in memory, allow it.
    """
    axes = len(stride)
    groups, _, *between, inside = columns.shape
    counts, window = between[:axes], between[axes:]
    unit = _unit(x, columns, inside)
    scale = unit // x.dtype.itemsize
    strides = [step // scale for step in element_strides(x)]
    strides[-1] = element_strides(x)[-1] if scale == 1 else 1
    shape = (*columns.shape[:-1], inside // scale)
    index = index_type_of(x, columns)
    j, k, p = (numbered(letter, axes) for letter in "jkp")
    lines = coordinates(["group", "image", *j, *k, "c"], shape, index)
    conditions = []
    numbers = () if first is None else (first * stride[0] - before[0],)
    for a in range(axes):
        start = "a2" if a == 0 and numbers else str(-before[a])
        lines.append(f"{index} p{a} = {_sum(start, (j[a], stride[a]), (k[a], dilation[a]))};")
        reach = (counts[a] - 1) * stride[a] + (window[a] - 1) * dilation[a] - before[a]
        conditions += [f"p{a} >= 0"] if before[a] > 0 else []
        conditions += [f"p{a} < {x.shape[1 + a]}"] if reach >= x.shape[1 + a] or (numbers and not a) else []
    kind = _UNITS[unit]
    of_group = strides[-1] * shape[-1] if groups > 1 else 0
    source = place(["image", *p, "group", "c"], [*strides[:-1], of_group, strides[-1]])
    value = f"(({kind} *) a1)[{source}]"
    lines += [f"{kind} value = {{}};", f"if ({' && '.join(conditions) or 'true'}) value = {value};"]
    lines.append(f"(({kind} *) a0)[i] = value;")
    size = math.prod(shape)
    code = loop_over(index, size, lines)
    return Kernel("pack windows", code, [columns, x], blocks_for(size), numbers=numbers)


def _sum(start: str, *terms: tuple[str, int]) -> str:
    written = [f"{name} * {factor}" if factor != 1 else name for name, factor in terms]
    return " + ".join([*written, *([] if start == "0" else [start])])


def _unit(x: Array, columns: Array, channels: int) -> int:
    """Return how many bytes are moved at once: as many as a run of channels allows, at most 16."""
    size = int(x.dtype.itemsize)
    strides = [step for step, length in zip(x.strides, x.shape, strict=True) if length > 1]
    if size not in _UNITS:
        raise Unsupported(f"windows of {x.dtype}")
    element_strides(x)
    if channels > 1 and x.strides[-1] == size:
        ends = [channels * size, *strides[:-1], x.data.ptr, columns.data.ptr]
        return next(unit for unit in _UNITS if unit <= size or not any(end % unit for end in ends))
    return size


def fold_kernel(
    parts: Array,
    out: Array,
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    first: tuple[int, int] | None = None,
) -> Kernel:
    """Return the kernel that adds windows up where they lie in images.

    ``parts`` is (images, *counts, *window, groups, channels of a group), with any strides. With ``first``,
    the numbers of the first row of ``out`` and of ``parts`` in the whole, kernels for other rows have the
    same code.
    """
    axes = len(stride)
    _, *between, groups, inside = parts.shape
    counts, window = between[:axes], between[axes:]
    strides = element_strides(parts)
    index = index_type_of(parts, out)
    p, j, k = (numbered(letter, axes) for letter in "pjk")
    lines = coordinates(["image", *p, "c"], out.shape, index)
    kind = register_type(out.dtype)
    channel = offset("c", (groups, inside), strides[-2:])
    element = f"{place(['image', *j, *k], strides[:-2])} + {channel}"
    numbers = () if first is None else (first[0] + before[0], first[1])
    start = [str(b) if b else "0" for b in before]
    start[0] = "a2" if numbers else start[0]
    lines += [f"{kind} value = 0;"]
    for a in range(axes):
        lines.append(f"for ({index} k{a} = 0; k{a} < {window[a]}; k{a}++) {{")
        lines.append(f"{index} q{a} = {_sum(start[a], (p[a], 1), (k[a], -dilation[a]))};")
        strided = f" || q{a} % {stride[a]}" if stride[a] > 1 else ""
        lines.append(f"{index} j{a} = q{a} / {stride[a]}{' - a3' if a == 0 and numbers else ''};")
        lines.append(f"if (q{a} < 0{strided} || j{a} < 0 || j{a} >= {counts[a]}) continue;")
    lines += [f"value += {load(f'a1[{element}]', parts.dtype)};", "}" * axes]
    lines.append(f"a0[{place(['image', *p, 'c'], element_strides(out))}] = {store('value', out.dtype)};")
    size = out.size
    code = loop_over(index, size, lines)
    return Kernel("add up windows", code, [out, parts], blocks_for(size), numbers=numbers)


# --- max pooling ----------------------------------------------------------------------------------


def select_maxima_kernel(
    values: Array | None, x: Array, window: Sequence[int], stride: Sequence[int], out: Array
) -> Kernel:
    """Return the kernel that picks, from each window of ``values``, the element where x is largest.

    Without ``values``, it picks from x. Of equal elements the first counts, and NaN as the largest of all.
    """
    axes = len(window)
    source = x if values is None else values
    index = index_type_of(x, source)
    names = ["image", *numbered("j", axes), "c"]
    lines = coordinates(names, out.shape, index)
    lines += _largest(x, window, stride, names, index)
    result = "best"
    if values is not None:
        lines += coordinates(numbered("k", axes), window, "int", "chosen")
        spots = [f"(j{a} * {stride[a]} + k{a})" for a in range(axes)]
        result = load(f"a2[{place(['image', *spots, 'c'], element_strides(values))}]", values.dtype)
    lines.append(f"a0[i] = {store(result, out.dtype)};")
    code = loop_over(index, out.size, lines)
    arrays = [out, x] if values is None else [out, x, values]
    return Kernel("select maxima", code, arrays, blocks_for(out.size))


def number_of_maxima_kernel(x: Array, window: Sequence[int], stride: Sequence[int], chosen: Array) -> Kernel:
    """Return the kernel that finds the number of the largest element in each window, into int32."""
    axes = len(window)
    index = index_type_of(x)
    names = ["image", *numbered("j", axes), "c"]
    lines = [*coordinates(names, chosen.shape, index), *_largest(x, window, stride, names, index)]
    lines.append("a0[i] = chosen;")
    code = loop_over(index, chosen.size, lines)
    return Kernel("number of maxima", code, [chosen, x], blocks_for(chosen.size))


def scatter_to_maxima_kernel(
    g: Array, x: Array, window: Sequence[int], stride: Sequence[int], out: Array
) -> Kernel:
    """Return the kernel that puts, for each window, an element of g where x is largest, and 0 elsewhere.

    Windows must not overlap: each element looks for the maximum of the window that it is in.
    """
    if do_overlap(window, stride):
        raise Unsupported("windows that overlap")
    axes = len(window)
    index = index_type_of(x, g)
    p, j = numbered("p", axes), numbered("j", axes)
    names = ["image", *j, "c"]
    lines, conditions, number = coordinates(["image", *p, "c"], out.shape, index), [], "0"
    kind = register_type(g.dtype)
    for a in range(axes):
        lines.append(f"{index} j{a} = p{a} / {stride[a]}, k{a} = p{a} % {stride[a]};")
        conditions += [f"j{a} < {g.shape[1 + a]}"] if g.shape[1 + a] * stride[a] < x.shape[1 + a] else []
        conditions += [f"k{a} < {window[a]}"] if window[a] < stride[a] else []
        number = f"({number}) * {window[a]} + k{a}" if a else "k0"
    lines += [f"{kind} value = 0;", f"if ({' && '.join(conditions) or 'true'}) {{"]
    lines += [f"    {line}" for line in _largest(x, window, stride, names, index)]
    element = load(f"a2[{place(names, element_strides(g))}]", g.dtype)
    lines += [f"    if (chosen == {number}) value = {element};", "}"]
    lines.append(f"a0[i] = {store('value', out.dtype)};")
    code = loop_over(index, out.size, lines)
    return Kernel("scatter to maxima", code, [out, x, g], blocks_for(out.size))


def gather_from_maxima_kernel(
    g: Array, chosen: Array, window: Sequence[int], stride: Sequence[int], out: Array
) -> Kernel:
    """Return the kernel that does so where windows overlap: each element asks all windows that it is in.

    ``chosen`` has the number of the largest element in each window.
    """
    axes = len(window)
    index = index_type_of(out, g)
    p, j = numbered("p", axes), numbered("j", axes)
    lines, number = coordinates(["image", *p, "c"], out.shape, index), "0"
    lines += [f"{register_type(g.dtype)} value = 0;"]
    for a in range(axes):
        lines.append(f"for ({index} k{a} = 0; k{a} < {window[a]}; k{a}++) {{")
        lines.append(f"{index} q{a} = p{a} - k{a}, j{a} = q{a} / {stride[a]};")
        strided = f" || q{a} % {stride[a]}" if stride[a] > 1 else ""
        lines.append(f"if (q{a} < 0{strided} || j{a} >= {g.shape[1 + a]}) continue;")
        number = f"({number}) * {window[a]} + k{a}" if a else "k0"
    names = ["image", *j, "c"]
    element = load(f"a2[{place(names, element_strides(g))}]", g.dtype)
    own = f"a1[{place(names, element_strides(chosen))}]"
    lines += [f"if ({own} == {number}) value += {element};", "}" * axes]
    lines.append(f"a0[i] = {store('value', out.dtype)};")
    code = loop_over(index, out.size, lines)
    return Kernel("gather from maxima", code, [out, chosen, g], blocks_for(out.size))


def _largest(
    x: Array, window: Sequence[int], stride: Sequence[int], names: Sequence[str], index: str
) -> list[str]:
    """Return the lines that find the largest element of a window, ``best``, and its number, ``chosen``.

    x is ``a1``, and ``names`` are where the window is: the image, its place along each axis, the channel.
    """
    if x.dtype.kind not in "fiu" or x.size == 0:
        raise Unsupported(f"maxima of {x.dtype}")
    strides, kind = element_strides(x), register_type(x.dtype)
    within = numbered("m", len(window))
    steps = [a * s for a, s in zip(strides[1:-1], stride, strict=True)]
    start = place(names, [strides[0], *steps, strides[-1]])
    element = load(f"a1[start + {place(within, strides[1:-1])}]", x.dtype)
    number = "0"
    for a, length in enumerate(window):
        number = f"({number}) * {length} + m{a}" if a else "m0"
    lines = [f"{index} start = {start};", f"{kind} best = {load('a1[start]', x.dtype)}; int chosen = 0;"]
    for name, length in zip(within, window, strict=True):
        lines.append(f"for (int {name} = 0; {name} < {length}; {name}++)")
    lines.append(
        f"{{ {kind} next = {element};"
        f" if (next > best || next != next) {{ best = next; chosen = {number}; }} }}"
    )
    return lines
