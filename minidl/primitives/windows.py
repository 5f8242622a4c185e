"""Windows that slide over the middle axes of (batch, ..., channels), and pooling, which is built on them.

`windows` copies every window out of its input (unfold), `overlap_add` adds windows up where they came
from (fold): each is the other's gradient. Max pooling picks one element of each window, and has
primitives of its own, because all windows together need many times the memory of the input.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy

from minidl.devices import Array
from minidl.primitives.elementwise import where_
from minidl.primitives.indexing import take
from minidl.primitives.linear_algebra import matmul
from minidl.primitives.primitive import Primitive
from minidl.primitives.reduction import mean
from minidl.primitives.shape import broadcast_to, pad, reshape
from minidl.tensor import Tensor, as_tensors, promote_dtypes, tensor

Lengths = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
#: One number for all axes, or one for each.
PerAxis = int | Sequence[int]
#: Elements of images that max pooling takes at a time, so that they stay in or near a level-2 cache.
_BLOCK = 2**18
Padding = str | int | Sequence[int] | Sequence[tuple[int, int]]


# --- where windows lie ----------------------------------------------------------------------------


def do_overlap(window: Sequence[int], stride: Sequence[int]) -> bool:
    """Return whether an element may be in several windows."""
    return any(length > step for length, step in zip(window, stride, strict=True))


def window_count(length: int, window: int, stride: int = 1, dilation: int = 1) -> int:
    """Return how many windows fit an axis; not more than 0 means that none does."""
    return (length - (window - 1) * dilation - 1) // stride + 1


def window_view(
    xp: Any, x: Array, window: Lengths, count: Lengths, stride: Lengths, dilation: Lengths
) -> Array:
    """Return a view (batch, *count, *window, channels) of an array (batch, ..., channels)."""
    first, *middle, last = x.strides
    steps = [step * s for step, s in zip(middle, stride, strict=True)]
    within = [step * d for step, d in zip(middle, dilation, strict=True)]
    shape = (x.shape[0], *count, *window, x.shape[-1])
    return xp.lib.stride_tricks.as_strided(x, shape, (first, *steps, *within, last))


def per_axis(value: PerAxis, axes: int, what: str, smallest: int = 1) -> Lengths:
    """Return one integer for each axis, from one for all of them or one for each."""
    numbers: tuple[Any, ...] = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(numbers) != axes or not all(isinstance(n, Integral) and int(n) >= smallest for n in numbers):
        raise ValueError(f"{what} is an integer of at least {smallest}, or {axes} of them; got {value!r}")
    return tuple(map(int, numbers))


def padding_pairs(
    padding: Padding, lengths: Lengths, window: Lengths, stride: Lengths, dilation: Lengths
) -> Pairs:
    """Return the border (before, after) of each axis.

    ``"valid"`` is none. ``"same"`` makes ceil(length / stride) windows; where the border is an odd number,
    its larger half comes after (as in TensorFlow and MATLAB). An integer is the border on all sides;
    a sequence holds an integer or a pair for each axis.
    """
    if padding == "valid":
        return ((0, 0),) * len(lengths)
    if padding == "same":
        return tuple(map(_same_padding, lengths, window, stride, dilation))
    entries: Any = padding
    if isinstance(padding, Integral):
        entries = (padding,) * len(lengths)
    if isinstance(entries, str) or len(entries) != len(lengths):
        raise ValueError(
            f'padding is "valid", "same", an integer, or {len(lengths)} integers or pairs; got {padding!r}'
        )
    pairs = tuple((entry, entry) if isinstance(entry, Integral) else tuple(entry) for entry in entries)
    if any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ValueError(f"padding must not be negative, and a pair has two numbers; got {padding!r}")
    return tuple((int(before), int(after)) for before, after in pairs)


def require_padding(padding: Padding, axes: int, layer: str) -> Padding:
    """Return a padding; refuse what is none, for a layer that will only use it later."""
    ones = (1,) * axes
    try:
        padding_pairs(padding, ones, ones, ones, ones)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{layer}: {error}") from None
    return padding


def _same_padding(length: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    count = -(-length // stride)
    total = max((count - 1) * stride + (window - 1) * dilation + 1 - length, 0)
    return total // 2, total - total // 2


def require_windows(operation: str, lengths: Lengths, window: Lengths, count: Lengths) -> None:
    """Refuse a window that is longer than the axis it slides along."""
    if min(count) < 1:
        raise ValueError(f"{operation}: a window of {window} does not fit into {lengths}, border included")


# --- windows and overlap_add ----------------------------------------------------------------------


def _counts(lengths: Lengths, window: Lengths, stride: Lengths, dilation: Lengths) -> Lengths:
    return tuple(map(window_count, lengths, window, stride, dilation))


def _windows(
    xp: Any, x: Array, window: Lengths, stride: Lengths, dilation: Lengths, out: Array | None = None
) -> Array:
    view = window_view(xp, x, window, _counts(x.shape[1:-1], window, stride, dilation), stride, dilation)
    if out is None:
        out = xp.empty(view.shape, x.dtype)
    xp.copyto(out, view)
    return out


def taps(
    window: Lengths, count: Lengths, stride: Lengths, dilation: Lengths
) -> Iterator[tuple[Lengths, Any]]:
    """Yield each position in a window with the key of the elements that stand there in all windows."""
    for position in itertools.product(*map(range, window)):
        starts = [p * d for p, d in zip(position, dilation, strict=True)]
        key = (slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, count, stride, strict=True))
        yield position, (slice(None), *key)


def _overlap_add(
    xp: Any,
    parts: Array,
    lengths: Lengths,
    stride: Lengths,
    dilation: Lengths,
    out: Array | None = None,
) -> Array:
    axes = len(lengths)
    count, window = parts.shape[1 : 1 + axes], parts.shape[1 + axes : -1]
    if out is None:
        out = xp.empty((parts.shape[0], *lengths, parts.shape[-1]), parts.dtype)
    out.fill(0)
    for position, key in taps(window, count, stride, dilation):
        xp.add(out[key], parts[(slice(None),) * (1 + axes) + position], out=out[key])
    return out


windows_: Primitive = Primitive(
    "windows",
    _windows,
    gradients=(
        lambda g, out, x, window, stride, dilation: overlap_add_(
            g, lengths=x.shape[1:-1], stride=stride, dilation=dilation
        ),
    ),
)
overlap_add_: Primitive = Primitive(
    "overlap_add",
    _overlap_add,
    gradients=(
        lambda g, out, parts, lengths, stride, dilation: windows_(
            g, window=parts.shape[1 + len(lengths) : -1], stride=stride, dilation=dilation
        ),
    ),
)


def windows(x: Any, window: PerAxis, stride: PerAxis = 1, dilation: PerAxis = 1) -> Tensor:
    """Return all windows of x (batch, *lengths, channels): (batch, *counts, *window, channels).

    Parameters
    ----------
    window : the number of elements along each middle axis of x
    stride : how far apart windows start
    dilation : how far apart the elements of one window lie

    Raises
    ------
    ValueError
        No window fits.
    """
    (x,) = as_tensors((x,))
    axes = x.ndim - 2
    window = per_axis(window, axes, "windows: window")
    stride = per_axis(stride, axes, "windows: stride")
    dilation = per_axis(dilation, axes, "windows: dilation")
    require_windows("windows", x.shape[1:-1], window, _counts(x.shape[1:-1], window, stride, dilation))
    return windows_(x, window=window, stride=stride, dilation=dilation)


def overlap_add(parts: Any, lengths: Sequence[int], stride: PerAxis = 1, dilation: PerAxis = 1) -> Tensor:
    """Return windows (batch, *counts, *window, channels) added up in place: (batch, *lengths, channels).

    This is the adjoint of windows(), with the same stride and dilation.
    """
    (parts,) = as_tensors((parts,))
    lengths = tuple(lengths)
    axes = len(lengths)
    stride = per_axis(stride, axes, "overlap_add: stride")
    dilation = per_axis(dilation, axes, "overlap_add: dilation")
    count = _counts(lengths, parts.shape[1 + axes : -1], stride, dilation)
    if parts.ndim != 2 + 2 * axes or parts.shape[1 : 1 + axes] != count:
        raise ValueError(f"overlap_add: shape {parts.shape} does not hold the windows of lengths {lengths}")
    return overlap_add_(parts, lengths=lengths, stride=stride, dilation=dilation)


# --- max pooling ----------------------------------------------------------------------------------


def _keys(x: Array, window: Lengths, stride: Lengths) -> tuple[Lengths, list[Any]]:
    """Return how many windows there are, and the key of each position in a window."""
    ones = (1,) * len(window)
    counts = _counts(x.shape[1:-1], window, stride, ones)
    return counts, [key for _, key in taps(window, counts, stride, ones)]


def _image_blocks(xp: Any, x: Array) -> Iterator[slice]:
    """Yield slices of images that together stay in a cache; on a GPU all at once."""
    step = max(1, _BLOCK * len(x) // max(x.size, 1) if xp is numpy else len(x))
    return (slice(first, first + step) for first in range(0, len(x), step))


def _first_maxima(xp: Any, x: Array, counts: Lengths, keys: list[Any]) -> Array:
    """Return for each window the number of its first largest element; NaN counts as larger than all."""
    largest = xp.array(x[keys[0]])
    chosen = xp.zeros(largest.shape, "uint8" if len(keys) <= 256 else "int32")
    for number, key in enumerate(keys[1:], 1):
        values = xp.ascontiguousarray(x[key])
        better = xp.logical_or(xp.greater(values, largest), xp.isnan(values))
        xp.maximum(largest, values, out=largest)
        xp.maximum(chosen, xp.multiply(better, chosen.dtype.type(number)), out=chosen)
    return chosen


def _select_maxima(
    xp: Any, values: Array, x: Array, window: Lengths, stride: Lengths, out: Array | None = None
) -> Array:
    counts, keys = _keys(x, window, stride)
    if out is None:
        out = xp.empty((x.shape[0], *counts, x.shape[-1]), values.dtype)
    if values is x:
        xp.copyto(out, x[keys[0]])
        for key in keys[1:]:
            xp.maximum(out, x[key], out=out)
        return out
    for images in _image_blocks(xp, x):
        chosen = _first_maxima(xp, x[images], counts, keys)
        selected = xp.array(values[images][keys[0]])
        for number, key in enumerate(keys[1:], 1):
            selected = where_.forward(xp, xp.equal(chosen, number), values[images][key], selected)
        out[images] = selected
    return out


def _scatter_to_maxima(
    xp: Any, g: Array, x: Array, window: Lengths, stride: Lengths, out: Array | None = None
) -> Array:
    counts, keys = _keys(x, window, stride)
    if out is None:
        out = xp.empty(x.shape, g.dtype)
    out.fill(0)
    overlap = do_overlap(window, stride)
    nothing = xp.zeros((), g.dtype)
    for images in _image_blocks(xp, x):
        chosen = _first_maxima(xp, x[images], counts, keys)
        for number, key in enumerate(keys):
            target = out[images][key]
            part = where_.forward(xp, xp.equal(chosen, number), g[images], nothing)
            if overlap:
                part = xp.add(target, part)
            xp.copyto(target, part)
    return out


select_maxima_: Primitive = Primitive(
    "select_maxima",
    _select_maxima,
    gradients=(
        lambda g, out, values, x, window, stride: scatter_to_maxima_(g, x, window=window, stride=stride),
        None,
    ),
)
scatter_to_maxima_: Primitive = Primitive(
    "scatter_to_maxima",
    _scatter_to_maxima,
    gradients=(
        lambda gg, out, g, x, window, stride: select_maxima_(gg, x, window=window, stride=stride),
        None,
    ),
)


# --- pooling --------------------------------------------------------------------------------------


def max_pool2d(
    x: Any, window: PerAxis = 2, stride: PerAxis | None = None, padding: Padding = "valid"
) -> Tensor:
    """Return the largest element of each window of x (batch, height, width, channels), for each channel.

    The gradient goes to the first of equal maxima, row by row.

    Parameters
    ----------
    window : the (height, width) of a window, or one number for both
    stride : how far apart windows start; by default they lie side by side
    padding : ``"valid"``, ``"same"``, or the border; an element of it is never the maximum

    Raises
    ------
    ValueError
        x has another number of axes, or no window fits.
    """
    x, window, stride, pairs = _pooling("max_pool2d", x, window, stride, padding)
    if any(map(any, pairs)):
        lowest = -math.inf if x.dtype.kind == "f" else numpy.iinfo(x.dtype).min
        x = pad(x, ((0, 0), *pairs, (0, 0)), constant_values=lowest)
    return select_maxima_(x, x, window=window, stride=stride)


def average_pool2d(
    x: Any, window: PerAxis = 2, stride: PerAxis | None = None, padding: Padding = "valid"
) -> Tensor:
    """Return the mean of each window of x (batch, height, width, channels), for each channel.

    Parameters and errors are those of max_pool2d(). A border is not counted: the mean is over the elements
    of x alone (as in TensorFlow; PyTorch's ``count_include_pad=False``).
    """
    x, window, stride, pairs = _pooling("average_pool2d", x, window, stride, padding)
    (x,) = promote_dtypes((x,), floating=True)
    if not any(map(any, pairs)):
        result: Tensor = mean(windows(x, window, stride), (3, 4))
        return result
    parts = windows(pad(x, ((0, 0), *pairs, (0, 0))), window, stride)
    rows, columns = map(_inside_counts, x.shape[1:3], pairs, window, stride)
    share = [[[1 / (row * column)] for column in columns] for row in rows]
    return parts.sum((3, 4)) * tensor(share, x.dtype, x.device)


def global_average_pool2d(x: Any) -> Tensor:
    """Return the mean of each channel of x (batch, height, width, channels): (batch, channels)."""
    (x,) = as_tensors((x,))
    _require_images("global_average_pool2d", x)
    result: Tensor = mean(x, (1, 2))
    return result


def upsample2d(x: Any, factor: PerAxis = 2, interpolation: str = "nearest") -> Tensor:
    """Return images x (batch, height, width, channels), enlarged.

    Parameters
    ----------
    factor : how many times along (height, width), or one number for both
    interpolation : ``"nearest"`` repeats each pixel; ``"bilinear"`` draws lines between the centres of pixels
        (as Keras, and PyTorch without ``align_corners``)
    """
    (x,) = as_tensors((x,))
    _require_images("upsample2d", x)
    rows, columns = per_axis(factor, 2, "upsample2d: factor")
    require_interpolation("upsample2d", interpolation)
    batch, height, width, channels = x.shape
    if interpolation == "nearest":
        pixels = reshape(x, (batch, height, 1, width, 1, channels))
        repeated = broadcast_to(pixels, (batch, height, rows, width, columns, channels))
        enlarged: Tensor = reshape(repeated, (batch, height * rows, width * columns, channels))
        return enlarged
    return resize(x, (height * rows, width * columns), "linear")


def resize(x: Any, lengths: PerAxis, interpolation: str = "nearest") -> Tensor:
    """Return x (batch, *lengths, channels) with other lengths of its middle axes, such as images.

    The elements of x are taken as the centres of cells that share the axis evenly. What shrinks is sampled,
    not averaged.

    Parameters
    ----------
    lengths : the new length of each middle axis, or one for all
    interpolation : ``"nearest"`` takes the element of the cell where a new centre lies (PyTorch's
        ``"nearest-exact"``); ``"linear"`` draws lines between centres (PyTorch's ``"linear"``, ``"bilinear"``
        and ``"trilinear"`` without ``align_corners``)
    """
    (x,) = as_tensors((x,))
    if interpolation not in ("nearest", "linear"):
        raise ValueError(f'resize: interpolation is "nearest" or "linear", got {interpolation!r}')
    if min(x.shape[1:-1], default=0) == 0:
        raise ValueError(f"resize takes (batch, *lengths, channels), lengths not 0; got shape {x.shape}")
    for axis, length in enumerate(per_axis(lengths, x.ndim - 2, "resize: lengths"), 1):
        if interpolation == "nearest":
            cells = (2 * numpy.arange(length) + 1) * x.shape[axis] // (2 * length)
            x = take(x, tensor(cells, device=x.device), axis)
        else:
            (x,) = promote_dtypes((x,), floating=True)
            lines = tensor(_lines_between(x.shape[axis], length), x.dtype, x.device)
            before, after = x.shape[:axis], x.shape[axis + 1 :]
            x = matmul(lines, reshape(x, (math.prod(before), x.shape[axis], math.prod(after))))
            x = reshape(x, (*before, length, *after))
    result: Tensor = x
    return result


def require_interpolation(operation: str, interpolation: str) -> None:
    """Refuse an unknown interpolation."""
    if interpolation not in ("nearest", "bilinear"):
        raise ValueError(f'{operation}: interpolation is "nearest" or "bilinear", got {interpolation!r}')


def _lines_between(length: int, wanted: int) -> numpy.ndarray:
    """Return the matrix (wanted, length) that interpolates along an axis; at the ends it repeats."""
    places = ((numpy.arange(wanted) + 0.5) * (length / wanted) - 0.5).clip(0, length - 1)
    result: numpy.ndarray = numpy.maximum(0, 1 - numpy.abs(places[:, None] - numpy.arange(length)))
    return result


def _require_images(operation: str, x: Any) -> None:
    if x.ndim != 4:
        raise ValueError(f"{operation} takes images (batch, height, width, channels); got shape {x.shape}")


def _pooling(
    operation: str, x: Any, window: PerAxis, stride: PerAxis | None, padding: Padding
) -> tuple[Any, Lengths, Lengths, Pairs]:
    """Return the arguments of a pooling, checked and complete."""
    (x,) = as_tensors((x,))
    _require_images(operation, x)
    window = per_axis(window, 2, f"{operation}: window")
    stride = window if stride is None else per_axis(stride, 2, f"{operation}: stride")
    pairs = padding_pairs(padding, x.shape[1:3], window, stride, (1, 1))
    if any(max(pair) >= w for pair, w in zip(pairs, window, strict=True)):
        raise ValueError(f"{operation}: a window of {window} would lie in the border of {pairs} alone")
    lengths = tuple(length + sum(pair) for length, pair in zip(x.shape[1:3], pairs, strict=True))
    require_windows(operation, lengths, window, _counts(lengths, window, stride, (1, 1)))
    return x, window, stride, pairs


def _inside_counts(length: int, pair: tuple[int, int], window: int, stride: int) -> list[int]:
    """Return for each window along an axis how many of its elements are no border."""
    count = window_count(length + sum(pair), window, stride)
    starts = [i * stride - pair[0] for i in range(count)]
    return [min(start + window, length) - max(start, 0) for start in starts]
