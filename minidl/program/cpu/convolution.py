"""The C statements of convolution and of its gradients, in one of two ways.

Where the output channels fill vectors and the weights are few, products are added up in registers: see
direct_convolution.py. Else a block of windows is packed into scratch memory that stays in the L2 cache, as
the rows of a matrix, and multiplied by the weights by BLAS; then comes the next block. The gradient of the
input is a convolution by the weights, flipped.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy

from minidl.program.cpu.blas import best_blas
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.direct_convolution import (
    Form,
    direct_conv_statement,
    direct_conv_weight_statement,
)
from minidl.program.cpu.loops import c_type, loop, smaller
from minidl.program.cpu.statements import copy_statement, fill_statement
from minidl.program.expressions import Unsupported

#: Elements of a block of packed windows: 256 KiB of float32.
BLOCK = 2**16

#: Up to how many multiplications OpenBLAS has a faster way for small products.
SMALL_PRODUCT = 10**6

#: Rows that a block has at least: a product of fewer would read the weights more often than it pays.
MIN_ROWS = 48

Attributes = dict[str, Any]


def conv_statement(
    source: CSource, x: numpy.ndarray, w: numpy.ndarray, out: numpy.ndarray, attributes: Attributes
) -> str:
    """Return the loops of a convolution of x by weights."""
    form = _form(x.shape[1:-1], out.shape[1:-1], w.shape[:-2], attributes)
    size, channels = math.prod(w.shape[:-1]), w.shape[-1]
    _require_contiguous(out, w)
    with suppress(Unsupported):
        return direct_conv_statement(source, x, w, out, form)
    _require_blas()
    product = (
        f"(101, 111, 111, m * {form.counts[1]}, {channels}, {size}, 1, columns, {size}, "
        f"{source.address(w)}, {channels}, 0, y + u * {form.counts[1] * channels}, {channels});"
    )
    return _by_blocks(source, x, form, channels, out, product)


def conv_input_statements(
    source: CSource, g: numpy.ndarray, w: numpy.ndarray, out: numpy.ndarray, attributes: Attributes
) -> list[str]:
    """Return the loops of the gradient of the input: of stride 1, a convolution by the weights, flipped."""
    attributes = dict(attributes)
    lengths, window = attributes.pop("lengths"), w.shape[:-2]
    if max(attributes["stride"]) > 1 or attributes["groups"] > 1:
        raise Unsupported("the gradient of a strided convolution")
    reach = [(k - 1) * d for k, d in zip(window, attributes["dilation"], strict=True)]
    borders = [r - pair[0] for r, pair in zip(reach, attributes["padding"], strict=True)]
    attributes["padding"] = tuple(
        (before, length + r - count - before)
        for before, length, r, count in zip(borders, lengths, reach, g.shape[1:-1], strict=True)
    )
    flipped = numpy.swapaxes(w[(slice(None, None, -1),) * len(window)], -1, -2)
    own = numpy.empty(flipped.shape, w.dtype)
    return [copy_statement(source, own, flipped), conv_statement(source, g, own, out, attributes)]


def conv_weight_statements(
    source: CSource, x: numpy.ndarray, g: numpy.ndarray, out: numpy.ndarray, attributes: Attributes
) -> list[str]:
    """Return the loops of the gradient of the weights; the blocks are added up in order."""
    attributes = dict(attributes)
    form = _form(x.shape[1:-1], g.shape[1:-1], attributes.pop("window"), attributes)
    size, channels = math.prod(out.shape[:-1]), out.shape[-1]
    _require_contiguous(out, g)
    with suppress(Unsupported):
        return [fill_statement(source, out, 0), direct_conv_weight_statement(source, x, g, out, form)]
    _require_blas()
    product = (
        f"(101, 112, 111, {size}, {channels}, m * {form.counts[1]}, 1, columns, {size}, "
        f"y + u * {form.counts[1] * channels}, {channels}, 1, {source.address(out)}, {channels});"
    )
    return [fill_statement(source, out, 0), _by_blocks(source, x, form, channels, g, product)]


def _form(lengths: Any, counts: Any, window: Any, attributes: Attributes) -> Form:
    if attributes["groups"] > 1 or len(lengths) > 2:
        raise Unsupported("a convolution of groups, or over more than two axes")
    before = tuple(pair[0] for pair in attributes["padding"])
    parts = (lengths, counts, window, attributes["stride"], before, attributes["dilation"])
    if len(lengths) == 2:
        return Form(*map(tuple, parts))
    return Form(*((first, *part) for first, part in zip((1, 1, 1, 1, 0, 1), parts, strict=True)))


def _require_blas() -> None:
    if best_blas() is None:
        raise Unsupported("a convolution without BLAS")


def _require_contiguous(*arrays: numpy.ndarray) -> None:
    if not all(array.flags.c_contiguous for array in arrays):
        raise Unsupported("a convolution of strided memory")
    if any(
        array.dtype != arrays[0].dtype or array.dtype.name not in ("float32", "float64") for array in arrays
    ):
        raise Unsupported("a convolution of these dtypes")


def _by_blocks(
    source: CSource, x: numpy.ndarray, form: Form, channels: int, y: numpy.ndarray, product: str
) -> str:
    """Return the loops that pack blocks of windows into ``columns`` and compute a product from each.

    ``u`` is the first row of windows of a block, of all images in one, and ``m`` how many rows it has; ``y``
    is the array of the outputs of the convolution.
    """
    if y.size == 0:
        return ";"
    if x.dtype != y.dtype or x.size == 0 or (x.shape[-1] > 1 and x.strides[-1] != x.itemsize):
        raise Unsupported("a convolution of strided memory")
    size = math.prod(form.window) * x.shape[-1]
    rows, per_row = len(x) * form.counts[0], form.counts[1]
    wanted = max(min(BLOCK // size, SMALL_PRODUCT // (size * channels)), MIN_ROWS)
    block = min(max(wanted // per_row, 1), rows)
    columns = numpy.empty(block * per_row * size, x.dtype)
    kind = c_type(x.dtype)
    return (
        f"{{ {kind} *x = {source.address(x)}, *y = {source.address(y)};\n"
        f"    {kind} *columns = {source.address(columns)};\n"
        f"    {loop('u', str(rows), step=block)} {{ int64_t m = {smaller(f'{rows} - u', block)};\n"
        f"    {loop('v', 'u + m', 'u')} {{\n"
        f"    {kind} *to = columns + (v - u) * {per_row * size};\n"
        f"{_packed_row(x, form, kind)}    }}\n"
        f"    {'s' if kind == 'float' else 'd'}{product} }} }}"
    )


def _packed_row(x: numpy.ndarray, form: Form, kind: str) -> str:
    """Return the loops that pack one row of windows, number ``v``."""
    channels, last = x.shape[-1], x.ndim - 2
    strides = [stride // x.itemsize for stride in x.strides]
    image, line, pixel = strides[0], strides[1] if x.ndim == 4 else 0, strides[last]
    run, size = form.window[1] * channels, math.prod(form.window) * channels
    (height, width), (_, step) = form.lengths, form.stride
    reach = (form.window[1] - 1) * form.dilation[1]
    if form.dilation[1] == 1 and pixel == channels:
        inside = f"{loop('c', str(run))} t[c] = from[c];"
    else:
        inside = (
            f"{loop('k', str(form.window[1]))} {loop('c', str(channels))}\n"
            f"        t[k * {channels} + c] = from[k * {form.dilation[1] * pixel} + c];"
        )
    return (
        f"    int64_t b = v / {form.counts[0]}, i = v % {form.counts[0]};\n"
        f"    {loop('h', str(form.window[0]))} {{\n"
        f"      int64_t r = i * {form.stride[0]} + h * {form.dilation[0]} - {form.before[0]};\n"
        f"      {loop('j', str(form.counts[1]))} {{\n"
        f"        int64_t p = j * {step} - {form.before[1]};\n"
        f"        {kind} *t = to + j * {size} + h * {run};\n"
        f"        {kind} *from = x + b * {image} + r * {line} + p * {pixel};\n"
        f"        if (r < 0 || r >= {height}) {loop('c', str(run))} t[c] = 0;\n"
        f"        else if (p >= 0 && p + {reach} < {width}) {inside}\n"
        f"        else {loop('k', str(form.window[1]))} {{\n"
        f"          int64_t q = p + k * {form.dilation[1]}; int is_inside = q >= 0 && q < {width};\n"
        f"          {loop('c', str(channels))} t[k * {channels} + c] =\n"
        f"          is_inside ? from[k * {form.dilation[1] * pixel} + c] : 0; }} }} }}\n"
    )
