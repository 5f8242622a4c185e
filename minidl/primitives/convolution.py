"""Convolution: one trilinear form and its three derivatives.

``sum(g * conv(x, w))`` is linear in each of x, w and g. Its derivative by g is ``conv(x, w)``, that by x is
``conv_input(g, w)`` (a convolution transposed), that by w is ``conv_weight(x, g)``. So the gradient rules
of each of the three are the other two, and gradients of every order are made of these.

x is (batch, *lengths, channels), w is (*window, channels / groups, out_channels), g is
(batch, *counts, out_channels), for any number of middle axes. As everywhere in deep learning, the window is
not flipped: a convolution here is what mathematics calls a cross-correlation.

The arrays' work is a matrix product: windows are copied side by side into a block of columns that stays in
the processor's cache, one product is made from each block, and no more is ever unfolded than one block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy

from minidl.devices import Array
from minidl.primitives.primitive import Primitive
from minidl.primitives.windows import (
    Lengths,
    Padding,
    Pairs,
    PerAxis,
    padding_pairs,
    per_axis,
    require_windows,
    taps,
    window_count,
    window_view,
)
from minidl.tensor import Tensor, as_tensors

#: Elements of a block of columns: 1 MiB of float32, so that it stays in or near a level-2 cache. Smaller ones
#: take more calls, each of which costs a thread the interpreter lock.
_BLOCK = 2**18
#: The same on a GPU: 32 MiB, for its cache is larger, and each block costs launches of kernels.
_GPU_BLOCK = 2**23
#: Rows that a block has at least: a product of fewer would read the weights more often than it pays.
_ROWS = 64


# --- blocks ---------------------------------------------------------------------------------------


def _blocks(xp: Any, batch: int, counts: Lengths, row_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of images, and of the first middle axis within them, that cover all windows."""
    block = _BLOCK if xp is numpy else _GPU_BLOCK
    rows = max(block // max(row_size, 1), _ROWS)
    per_image = max(math.prod(counts), 1)
    images, first_rows = max(rows // per_image, 1), max(rows * counts[0] // per_image, 1)
    for image in range(0, batch, images):
        for row in range(0, counts[0], first_rows):
            yield slice(image, min(image + images, batch)), slice(row, min(row + first_rows, counts[0]))


def _bordered(xp: Any, x: Array, before: list[int], lengths: list[int]) -> Array:
    """Return x with zeros before its middle axes (or, where negative, without its first elements).

    The middle axes of the result have these lengths; it is a view of x where nothing is added.
    """
    source, target = [slice(None)], [slice(None)]
    for border, wanted, length in zip(before, lengths, x.shape[1:-1], strict=True):
        start, stop = max(border, 0), min(border + length, wanted)
        target.append(slice(start, max(stop, start)))
        source.append(slice(start - border, max(stop, start) - border))
    if all(part == slice(0, n) for part, n in zip(target[1:], lengths, strict=True)):
        return x[tuple(source)]
    result = xp.zeros((x.shape[0], *lengths, x.shape[-1]), x.dtype)
    result[tuple(target)] = x[tuple(source)]
    return result


def _columns(
    xp: Any,
    x: Array,
    window: Lengths,
    counts: Lengths,
    stride: Lengths,
    before: Lengths,
    dilation: Lengths,
    groups: int,
) -> Iterator[tuple[tuple[slice, slice], Array]]:
    """Yield each block, and its windows as the rows of a matrix for each group of channels.

    The matrices are (groups, windows in the block, elements of a window); each block overwrites the last.
    """
    channels = x.shape[-1] // groups
    size = math.prod(window) * channels
    lengths = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(counts, stride, window, dilation, strict=True)
    ]
    scratch = None
    for images, rows in _blocks(xp, len(x), counts, size * groups):
        here = (rows.stop - rows.start, *counts[1:])
        lengths[0] = (here[0] - 1) * stride[0] + (window[0] - 1) * dilation[0] + 1
        borders = [before[0] - rows.start * stride[0], *before[1:]]
        view = window_view(xp, _bordered(xp, x[images], borders, lengths), window, here, stride, dilation)
        shape = (groups, images.stop - images.start, *here, *window, channels)
        if scratch is None:
            scratch = xp.empty(math.prod(shape), x.dtype)
        columns = scratch[: math.prod(shape)].reshape(shape)
        grouped = xp.moveaxis(view.reshape(*view.shape[:-1], groups, channels), -2, 0)
        _copy_windows(xp, columns, grouped, len(window))
        yield (images, rows), columns.reshape(groups, -1, size)


def _copy_windows(xp: Any, columns: Array, view: Array, axes: int) -> None:
    """Copy windows; a position at a time where a row of a window is too short for NumPy to copy fast."""
    window, channels = view.shape[-1 - axes : -1], view.shape[-1]
    if window[-1] * channels >= 8:
        xp.copyto(columns, view)
        return
    for position, _ in taps(window, window, (1,) * axes, (1,) * axes):
        xp.copyto(columns[(..., *position, slice(None))], view[(..., *position, slice(None))])


def _by_groups(xp: Any, x: Array, groups: int) -> Array:
    """Return (..., groups * n) as matrices (groups, rows, n): a view for one group of contiguous x."""
    return xp.moveaxis(x.reshape(-1, groups, x.shape[-1] // groups), 1, 0)


def _weight_matrices(xp: Any, w: Array, groups: int) -> Array:
    """Return (*window, channels, out_channels) as matrices (groups, window and channels, out_channels)."""
    return _by_groups(xp, w.reshape(-1, w.shape[-1]), groups)


# --- the three forms ------------------------------------------------------------------------------


def _conv(
    xp: Any,
    x: Array,
    w: Array,
    stride: Lengths,
    padding: Pairs,
    dilation: Lengths,
    groups: int,
    out: Array | None = None,
) -> Array:
    window = w.shape[:-2]
    counts = _counts(x.shape[1:-1], window, stride, padding, dilation)
    if out is None:
        out = xp.empty((len(x), *counts, w.shape[-1]), xp.result_type(x, w))
    matrices = _weight_matrices(xp, w, groups)
    before = tuple(pair[0] for pair in padding)
    for block, columns in _columns(xp, x, window, counts, stride, before, dilation, groups):
        result = out[block]
        if groups == 1 and result.flags.c_contiguous:
            xp.matmul(columns[0], matrices[0], out=result.reshape(-1, w.shape[-1]))
        else:
            xp.copyto(result, xp.moveaxis(xp.matmul(columns, matrices), 0, 1).reshape(result.shape))
    return out


def _conv_input(
    xp: Any,
    g: Array,
    w: Array,
    lengths: Lengths,
    stride: Lengths,
    padding: Pairs,
    dilation: Lengths,
    groups: int,
    out: Array | None = None,
) -> Array:
    window = w.shape[:-2]
    if out is None:
        out = xp.empty((len(g), *lengths, w.shape[-2] * groups), xp.result_type(g, w))
    if max(stride) == 1:  # a convolution with the window flipped, and input and output channels exchanged
        reach = [(k - 1) * d for k, d in zip(window, dilation, strict=True)]
        borders = [r - pair[0] for r, pair in zip(reach, padding, strict=True)]
        flipped = w[(slice(None, None, -1),) * len(window)]
        flipped = xp.swapaxes(flipped.reshape(*window, w.shape[-2], groups, -1), -1, -3)
        flipped = flipped.reshape(*window, -1, groups * w.shape[-2])
        pairs = tuple(
            (before, length + r - count - before)
            for before, length, r, count in zip(borders, lengths, reach, g.shape[1:-1], strict=True)
        )
        return _conv(xp, g, flipped, stride, pairs, dilation, groups, out)
    out.fill(0)
    transposed = xp.swapaxes(_weight_matrices(xp, w, groups), -1, -2)
    for images, rows in _blocks(xp, len(g), g.shape[1:-1], math.prod(window) * out.shape[-1]):
        part = g[images, rows]
        columns = xp.matmul(_by_groups(xp, part, groups), transposed)
        columns = columns.reshape(groups, *part.shape[:-1], *window, w.shape[-2])
        parts = xp.moveaxis(columns, 0, -2).reshape(*part.shape[:-1], *window, out.shape[-1])
        starts = [rows.start * stride[0] - padding[0][0], *(-pair[0] for pair in padding[1:])]
        _add_windows(xp, out[images], parts, starts, stride, dilation)
    return out


def _add_windows(
    xp: Any, out: Array, parts: Array, starts: list[int], stride: Lengths, dilation: Lengths
) -> None:
    """Add windows (batch, *counts, *window, channels) to where they begin; what is outside is dropped."""
    axes = len(starts)
    counts, window = parts.shape[1 : 1 + axes], parts.shape[1 + axes : -1]
    for position, _ in taps(window, window, (1,) * axes, (1,) * axes):
        source, target = [slice(None)], [slice(None)]
        for p, start, count, s, d, length in zip(
            position, starts, counts, stride, dilation, out.shape[1:-1], strict=True
        ):
            offset = start + p * d
            low = max(-(offset // s), 0)  # the first window whose element is inside, and the last
            high = max(min((length - 1 - offset) // s + 1, count), low)
            source.append(slice(low, high))
            target.append(slice(offset + low * s, max(offset + (high - 1) * s + 1, 0), s))
        if all(part.stop > part.start for part in source[1:]):
            place = out[tuple(target)]
            xp.add(place, parts[(*source, *position)], out=place)


def _conv_weight(
    xp: Any,
    x: Array,
    g: Array,
    window: Lengths,
    stride: Lengths,
    padding: Pairs,
    dilation: Lengths,
    groups: int,
    out: Array | None = None,
) -> Array:
    if out is None:
        out = xp.empty((*window, x.shape[-1] // groups, g.shape[-1]), xp.result_type(x, g))
    total = xp.zeros((groups, math.prod(out.shape[:-1]), g.shape[-1] // groups), out.dtype)
    before = tuple(pair[0] for pair in padding)
    for block, columns in _columns(xp, x, window, g.shape[1:-1], stride, before, dilation, groups):
        part = xp.matmul(xp.swapaxes(columns, -1, -2), _by_groups(xp, g[block], groups))
        xp.add(total, part, out=total)
    xp.copyto(out, xp.moveaxis(total, 0, 1).reshape(out.shape))
    return out


def _counts(lengths: Lengths, window: Lengths, stride: Lengths, padding: Pairs, dilation: Lengths) -> Lengths:
    bordered = [length + sum(pair) for length, pair in zip(lengths, padding, strict=True)]
    return tuple(map(window_count, bordered, window, stride, dilation))


conv_: Primitive = Primitive(
    "conv",
    _conv,
    gradients=(
        lambda g, out, x, w, **where: conv_input_(g, w, lengths=x.shape[1:-1], **where),
        lambda g, out, x, w, **where: conv_weight_(x, g, window=w.shape[:-2], **where),
    ),
    promotes_to_float=True,
)
conv_input_: Primitive = Primitive(
    "conv_input",
    _conv_input,
    gradients=(
        lambda x, out, g, w, lengths, **where: conv_(x, w, **where),
        lambda x, out, g, w, lengths, **where: conv_weight_(x, g, window=w.shape[:-2], **where),
    ),
    promotes_to_float=True,
)
conv_weight_: Primitive = Primitive(
    "conv_weight",
    _conv_weight,
    gradients=(
        lambda w, out, x, g, window, **where: conv_input_(g, w, lengths=x.shape[1:-1], **where),
        lambda w, out, x, g, window, **where: conv_(x, w, **where),
    ),
    promotes_to_float=True,
)

#: The three forms: each one's derivatives are the other two.
CONVOLUTIONS = (conv_, conv_input_, conv_weight_)


# --- functions ------------------------------------------------------------------------------------


def conv1d(
    x: Any,
    weight: Any,
    stride: PerAxis = 1,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of x (batch, time, channels): (batch, count, out_channels).

    ``weight`` is (window, channels / groups, out_channels); other arguments and errors are those of conv2d().
    """
    return _convolve("conv1d", 1, x, weight, stride, padding, dilation, groups)


def conv2d(
    x: Any,
    weight: Any,
    stride: PerAxis = 1,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of x (batch, height, width, channels).

    The result is (batch, rows, columns, out_channels): the sum over every window of its elements times the
    weights. The window is not flipped.

    Parameters
    ----------
    weight : (height, width, channels / groups, out_channels)
    stride : how far apart windows start, for both axes or each
    padding : the border of zeros: ``"valid"`` (none), ``"same"`` (ceil(length / stride) windows; of an odd
        border, the larger half comes after), an integer, or an integer or pair (before, after) for each axis
    dilation : how far apart the elements of one window lie
    groups : the number of groups that the channels are cut into, each with output channels of its own

    Raises
    ------
    ValueError
        The shapes do not fit each other, or no window fits.
    """
    return _convolve("conv2d", 2, x, weight, stride, padding, dilation, groups)


def conv_transpose2d(
    x: Any,
    weight: Any,
    stride: PerAxis = 1,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Tensor:
    """Return the transposed convolution of x (batch, height, width, channels): the adjoint of conv2d().

    Each element adds the weights, times itself, to a window of the result. The result's lengths are
    (length - 1) * stride + (window - 1) * dilation + 1, less the border that ``padding`` cuts off; with
    ``"same"`` they are length * stride.

    Parameters
    ----------
    weight : (height, width, out_channels / groups, channels): of the convolution that this is the adjoint of
    stride, padding, dilation, groups : of that convolution
    """
    operation = "conv_transpose2d"
    x, weight = as_tensors((x, weight))
    _require_axes(operation, 2, x, weight)
    if x.shape[-1] != weight.shape[-1] or weight.shape[-1] % groups:
        raise ValueError(
            f"{operation}: {x.shape[-1]} channels in {groups} groups do not fit weights of {weight.shape}"
        )
    window, counts = weight.shape[:-2], x.shape[1:-1]
    stride, dilation = per_axis(stride, 2, "stride"), per_axis(dilation, 2, "dilation")
    if padding == "same":
        lengths = tuple(n * s for n, s in zip(counts, stride, strict=True))
        pairs = padding_pairs("same", lengths, window, stride, dilation)
    else:
        pairs = padding_pairs(padding, counts, window, stride, dilation)
        lengths = tuple(
            (n - 1) * s + (k - 1) * d + 1 - sum(pair)
            for n, s, k, d, pair in zip(counts, stride, window, dilation, pairs, strict=True)
        )
    require_windows(operation, counts, window, lengths)
    return conv_input_(
        x, weight, lengths=lengths, stride=stride, padding=pairs, dilation=dilation, groups=groups
    )


def _convolve(
    operation: str,
    axes: int,
    x: Any,
    weight: Any,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> Tensor:
    x, weight = as_tensors((x, weight))
    _require_axes(operation, axes, x, weight)
    if x.shape[-1] != weight.shape[-2] * groups or weight.shape[-1] % groups:
        raise ValueError(
            f"{operation}: {x.shape[-1]} channels in {groups} groups do not fit weights of {weight.shape}"
        )
    window, lengths = weight.shape[:-2], x.shape[1:-1]
    stride, dilation = per_axis(stride, axes, "stride"), per_axis(dilation, axes, "dilation")
    pairs = padding_pairs(padding, lengths, window, stride, dilation)
    bordered = tuple(length + sum(pair) for length, pair in zip(lengths, pairs, strict=True))
    require_windows(operation, bordered, window, _counts(lengths, window, stride, pairs, dilation))
    return conv_(x, weight, stride=stride, padding=pairs, dilation=dilation, groups=groups)


def _require_axes(operation: str, axes: int, x: Any, weight: Any) -> None:
    if x.ndim != axes + 2 or weight.ndim != axes + 2:
        raise ValueError(
            f"{operation} takes {axes + 2} axes, (batch, ..., channels) and (*window, channels, channels); "
            f"got shapes {x.shape} and {weight.shape}"
        )
