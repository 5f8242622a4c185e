"""The kernels of convolutions of many small groups of channels, such as depthwise ones.

Products of matrices with a few columns would be slow, and windows packed for them many times the images. So
each element of a result adds up its own products, in one order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy

from minidl.devices import Array
from minidl.program.gpu.kernels.reductions import sum_kernel
from minidl.program.gpu.kernels.source import (
    Kernel,
    blocks_for,
    index_type_of,
    load,
    register_type,
    store,
)
from minidl.program.gpu.kernels.windows import coordinates, loop_over, numbered, place
from minidl.program.plan.convolution import Form
from minidl.program.plan.strides import element_strides

#: The most channels of a group, of the images and of the result, for which this is done.
MAX_CHANNELS = 8


def is_of_small_groups(form: Form) -> bool:
    """Return whether a convolution is one of several groups of few channels."""
    return form.groups > 1 and max(form.inside, form.outside) <= MAX_CHANNELS


def grouped_conv_kernel(x: Array, w: Array, out: Array, form: Form) -> Kernel:
    """Return the kernel of a convolution: a thread for each element of the result."""
    axes = len(form.window)
    index = index_type_of(x, w, out)
    j, k, p = (numbered(letter, axes) for letter in "jkp")
    lines = coordinates(["image", *j, "o"], out.shape, index)
    lines.append(f"{register_type(out.dtype)} value = 0;")
    for a in range(axes):
        lines += [_over_window(a, form), f"{index} {_place_in_image(a, form)};"]
        lines.append(f"if (p{a} < 0 || p{a} >= {form.lengths[a]}) continue;")
    lines.append(f"for (int c = 0; c < {form.inside}; c++)")
    channel = f"(o / {form.outside} * {form.inside} + c)"
    left = load(f"a1[{place(['image', *p, channel], element_strides(x))}]", x.dtype)
    right = load(f"a2[{place([*k, 'c', 'o'], element_strides(w))}]", w.dtype)
    lines += [f"    value += {left} * {right};", "}" * axes]
    lines.append(f"a0[{place(['image', *j, 'o'], element_strides(out))}] = {store('value', out.dtype)};")
    code = loop_over(index, out.size, lines)
    return Kernel("conv of small groups", code, [out, x, w], blocks_for(out.size))


def grouped_conv_input_kernel(g: Array, w: Array, out: Array, form: Form) -> Kernel:
    """Return the kernel of the gradient of the input: a thread for each element of it."""
    axes = len(form.window)
    index = index_type_of(g, w, out)
    j, k, p = (numbered(letter, axes) for letter in "jkp")
    lines = coordinates(["image", *p, "c"], out.shape, index)
    lines.append(f"{register_type(out.dtype)} value = 0;")
    for a in range(axes):
        step, before = form.stride[a], form.before[a]
        lines.append(_over_window(a, form))
        lines.append(f"{index} q{a} = p{a} + {before} - k{a} * {form.dilation[a]}, j{a} = q{a} / {step};")
        strided = f" || q{a} % {step}" if step > 1 else ""
        lines.append(f"if (q{a} < 0{strided} || j{a} >= {form.counts[a]}) continue;")
    lines.append(f"for (int n = 0; n < {form.outside}; n++) {{")
    lines.append(f"    {index} o = c / {form.inside} * {form.outside} + n;")
    left = load(f"a1[{place(['image', *j, 'o'], element_strides(g))}]", g.dtype)
    right = load(f"a2[{place([*k, f'(c % {form.inside})', 'o'], element_strides(w))}]", w.dtype)
    lines += [f"    value += {left} * {right};", "}", "}" * axes]
    lines.append(f"a0[{place(['image', *p, 'c'], element_strides(out))}] = {store('value', out.dtype)};")
    code = loop_over(index, out.size, lines)
    return Kernel("conv_input of small groups", code, [out, g, w], blocks_for(out.size))


def grouped_conv_weight_kernel(
    x: Array, g: Array, out: Array, form: Form, zeros: Callable[[int, numpy.dtype], Array]
) -> Kernel:
    """Return the kernel of the gradient of the weights: a sum over all windows for each of them."""
    axes = len(form.window)
    index = index_type_of(x, g)
    j, k, p = (numbered(letter, axes) for letter in "jkp")
    lines = coordinates([*k, "c", "o"], (*form.window, form.inside, out.shape[-1]), index, "k")
    lines += coordinates(["image", *j], (form.batch, *form.counts), index)
    lines += [f"{index} {_place_in_image(a, form)};" for a in range(axes)]
    inside = " && ".join(f"p{a} >= 0 && p{a} < {form.lengths[a]}" for a in range(axes))
    channel = f"(o / {form.outside} * {form.inside} + c)"
    left = load(f"a0[{place(['image', *p, channel], element_strides(x))}]", x.dtype)
    right = load(f"a1[{place(['image', *j, 'o'], element_strides(g))}]", g.dtype)
    kind = register_type(out.dtype)
    lines.append(f"return {inside} ? ({kind}) ({left} * {right}) : ({kind}) 0;")
    element = f"[&] {{ {' '.join(lines)} }}()"
    is_along = out.shape[-1] >= 32  # as many channels are read side by side
    length = form.batch * math.prod(form.counts)
    return sum_kernel("conv_weight of small groups", [x, g], out, length, element, is_along, zeros, "")


def _over_window(axis: int, form: Form) -> str:
    return f"for (int k{axis} = 0; k{axis} < {form.window[axis]}; k{axis}++) {{"


def _place_in_image(axis: int, form: Form) -> str:
    """Return what sets ``p0`` (or ``p1``, ...): where an element of a window lies in the image."""
    return f"p{axis} = j{axis} * {form.stride[axis]} + k{axis} * {form.dilation[axis]} - {form.before[axis]}"
