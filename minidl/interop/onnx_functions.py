"""What each operator of ONNX is in minidl: one entry each.

An entry is a function of the inputs, Tensors or NumPy arrays (None for one that is left out), and of the
attributes. Images and sequences are channels first here, as ONNX has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from minidl.creation import full, zeros
from minidl.layers.recurrent import _steps
from minidl.primitives import (
    activations,
    cumulative,
    elementwise,
    indexing,
    linear_algebra,
    logic,
    mathematics,
    reduction,
    shape,
    sorting,
    windows,
)
from minidl.primitives.convolution import conv_, conv_input_
from minidl.primitives.normalization import batch_norm, layer_norm
from minidl.tensor import Tensor, TensorLike, as_tensor, tensor

_LARGEST = 2**31 - 1


def _numbers(x: Any, what: str) -> list[int]:
    """Return the numbers of a shape or of axes, which must not depend on values."""
    if isinstance(x, Tensor):
        raise NotImplementedError(f"its {what} is computed from values of Tensors")
    return [int(n) for n in numpy.ravel(x)]


def _beside(values: tuple[Any, ...]) -> list[Tensor]:
    """Return all values as Tensors, on the device of those that are."""
    like = next((x for x in values if isinstance(x, Tensor)), None)
    device = "cpu" if like is None else like.device
    return [x if isinstance(x, Tensor) else tensor(x, device=device) for x in values if x is not None]


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of this meaning, of the same inputs, without attributes."""
    return lambda *x: function(*_beside(x))


def _several(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def entry(*x: Any) -> Any:
        first, *rest = _beside(x)
        for other in rest:
            first = function(first, other)
        return first

    return entry


# --- elements -------------------------------------------------------------------------------------


def _divide(a: Any, b: Any) -> Tensor:
    numerator, denominator = _beside((a, b))
    quotient = numerator / denominator
    if numerator.dtype.kind == "f":
        return quotient
    return mathematics.trunc(quotient).astype(numerator.dtype)  # of integers, towards 0


def _modulo(a: Any, b: Any, fmod: int = 0) -> Tensor:
    if fmod:
        raise NotImplementedError("fmod=1, whose sign is that of the dividend")
    return mathematics.mod(*_beside((a, b)))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return activations.gelu(x)
    return 0.5 * x * (1 + elementwise.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _prelu(x: Tensor, slope: Any) -> Tensor:
    return elementwise.where(x > 0, x, slope * x)


def _clip(x: Any, low: Any = None, high: Any = None, min: Any = None, max: Any = None) -> Tensor:
    result = as_tensor(x)
    for limit, bound in ((low if min is None else min, "maximum"), (high if max is None else max, "minimum")):
        if limit is not None:
            result = getattr(elementwise, bound)(
                result, limit if numpy.ndim(limit) else numpy.asarray(limit).item()
            )
    return result


# --- shapes ---------------------------------------------------------------------------------------


def _reshape(x: Any, lengths: Any, allowzero: int = 0) -> Tensor:
    wanted = _numbers(lengths, "shape")
    if not allowzero:
        wanted = [x.shape[i] if length == 0 else length for i, length in enumerate(wanted)]
    return shape.reshape(x, wanted)


def _expand(x: Any, lengths: Any) -> Tensor:
    (x,) = _beside((x,))
    return shape.broadcast_to(x, numpy.broadcast_shapes(x.shape, tuple(_numbers(lengths, "shape"))))


def _transpose(x: Tensor, perm: Any = None) -> Tensor:
    return shape.transpose(x) if perm is None else shape.transpose(x, list(perm))


def _flatten(x: Tensor, axis: int = 1) -> Tensor:
    axis = axis % (x.ndim + 1)
    return shape.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _squeeze(x: Tensor, positions: Any = None, axes: Any = None) -> Tensor:
    chosen = positions if axes is None else axes
    return shape.squeeze(x) if chosen is None else shape.squeeze(x, _numbers(chosen, "axes"))


def _unsqueeze(x: Any, positions: Any = None, axes: Any = None) -> Tensor:
    return shape.expand_dims(_beside((x,))[0], _numbers(positions if axes is None else axes, "axes"))


def _slices(ndim: int, starts: Any, ends: Any, axes: Any, steps: Any) -> tuple[slice, ...]:
    first, last = _numbers(starts, "start"), _numbers(ends, "end")
    positions = list(range(len(first))) if axes is None else _numbers(axes, "axes")
    strides = [1] * len(first) if steps is None else _numbers(steps, "step")
    key = [slice(None)] * ndim
    for axis, start, end, stride in zip(positions, first, last, strides, strict=True):
        if stride < 0:  # numbers beyond both ends are the ends
            key[axis] = slice(None if start >= _LARGEST else start, None if end <= -_LARGEST else end, stride)
        else:
            key[axis] = slice(start, None if end >= _LARGEST else end, stride)
    return tuple(key)


def _slice(x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    return x[_slices(x.ndim, starts, ends, axes, steps)]


def _split(x: Tensor, lengths: Any = None, axis: int = 0, num_outputs: int = 0) -> tuple[Tensor, ...]:
    if lengths is None:
        each = -(-x.shape[axis] // num_outputs)
        ends = [each * (i + 1) for i in range(num_outputs - 1)]
    else:
        ends = numpy.cumsum(_numbers(lengths, "split"))[:-1].tolist()
    return tuple(shape.split(x, ends, axis))


def _gather(x: Any, positions: Any, axis: int = 0) -> Tensor:
    array, chosen = _beside((x, positions))
    return array[(slice(None),) * (axis % array.ndim) + (chosen,)]


def _gather_nd(x: Any, positions: Any, batch_dims: int = 0) -> Tensor:
    if batch_dims:
        raise NotImplementedError("batch_dims")
    array, chosen = _beside((x, positions))
    return array[tuple(chosen[..., i] for i in range(chosen.shape[-1]))]


def _pad(x: Tensor, widths: Any, value: Any = None, axes: Any = None, mode: str = "constant") -> Tensor:
    numbers = _numbers(widths, "pads")
    positions = list(range(x.ndim)) if axes is None else [a % x.ndim for a in _numbers(axes, "axes")]
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(positions):
        pairs[axis] = (numbers[i], numbers[i + len(positions)])
    if mode != "constant":
        return shape.pad(x, pairs, mode)
    return shape.pad(x, pairs, constant_values=0.0 if value is None else numpy.asarray(value).item())


def _constant(value: Any = None, **others: Any) -> Any:
    if value is not None:
        return value
    ((name, number),) = others.items()
    return numpy.array(number, numpy.float32 if "float" in name else numpy.int64)


def _tile(x: Tensor, repeats: Any) -> Tensor:
    return shape.tile(x, _numbers(repeats, "repeats"))


# --- reductions and products ----------------------------------------------------------------------


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def entry(
        x: Tensor, positions: Any = None, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Tensor:
        chosen = positions if axes is None else axes
        if chosen is None or not len(numpy.ravel(chosen)):
            if noop_with_empty_axes:
                return x
            return function(x, None, keepdims=bool(keepdims))
        return function(x, tuple(_numbers(chosen, "axes")), keepdims=bool(keepdims))

    return entry


def _position(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def entry(x: Tensor, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            raise NotImplementedError("select_last_index")
        return function(x, axis, keepdims=bool(keepdims))

    return entry


def _top_k(x: Tensor, count: Any, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    axis, (k,) = axis % x.ndim, _numbers(count, "k")
    order = sorting.argsort(-x if largest else x, axis)
    order = order[(slice(None),) * axis + (slice(k),)]
    return indexing.take_along_axis(x, order, axis), order


def _cumsum(x: Tensor, axis: Any, exclusive: int = 0, reverse: int = 0) -> Tensor:
    if exclusive or reverse:
        raise NotImplementedError("exclusive or reverse")
    return cumulative.cumsum(x, int(numpy.asarray(axis).item()))


def _gemm(
    a: Any,
    b: Any,
    c: Any = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    left, right = _beside((a, b))
    product = (left.T if transA else left) @ (right.T if transB else right)
    product = product if alpha == 1 else product * alpha
    if c is None:
        return product
    return product + (c if beta == 1 else beta * as_tensor(c))


# --- convolutions and pooling ---------------------------------------------------------------------


def _last(x: Tensor) -> Tensor:
    return shape.moveaxis(x, 1, -1)


def _first(x: Tensor) -> Tensor:
    return shape.moveaxis(x, -1, 1)


def _place(
    lengths: tuple[int, ...],
    window: tuple[int, ...],
    auto_pad: str,
    pads: Any,
    strides: Any,
    dilations: Any,
) -> dict[str, Any]:
    """Return stride, padding and dilation as minidl has them."""
    axes = len(window)
    stride, dilation = tuple(strides or [1] * axes), tuple(dilations or [1] * axes)
    if auto_pad in ("SAME_UPPER", "VALID"):
        padding: Any = "same" if auto_pad == "SAME_UPPER" else "valid"
    elif auto_pad == "NOTSET":
        numbers = list(pads or [0] * (2 * axes))
        padding = [(numbers[i], numbers[i + axes]) for i in range(axes)]
    else:
        raise NotImplementedError(f"auto_pad {auto_pad}")
    pairs = windows.padding_pairs(padding, lengths, window, stride, dilation)
    return {"stride": stride, "padding": pairs, "dilation": dilation}


def _conv(
    x: Tensor,
    w: TensorLike,
    bias: Any = None,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Tensor:
    w = as_tensor(w)
    weight = shape.transpose(w, [*range(2, w.ndim), 1, 0])
    place = _place(x.shape[2:], w.shape[2:], auto_pad, pads, strides, dilations)
    y = conv_(_last(x), weight, groups=group, **place)
    return _first(y if bias is None else y + bias)


def _conv_transpose(
    x: Tensor,
    w: TensorLike,
    bias: Any = None,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
) -> Tensor:
    if auto_pad != "NOTSET" or output_shape:
        raise NotImplementedError("auto_pad or output_shape")
    w = as_tensor(w)
    weight, window = shape.transpose(w, [*range(2, w.ndim), 1, 0]), w.shape[2:]
    place = _place(x.shape[2:], window, auto_pad, pads, strides, dilations)
    more = output_padding or [0] * len(window)
    lengths = tuple(
        (n - 1) * s + (k - 1) * d + 1 - sum(pair) + extra
        for n, s, k, d, pair, extra in zip(
            x.shape[2:], place["stride"], window, place["dilation"], place["padding"], more, strict=True
        )
    )
    y = conv_input_(_last(x), weight, lengths=lengths, groups=group, **place)
    return _first(y if bias is None else y + bias)


def _pool(function: Callable[..., Any]) -> Callable[..., Any]:
    def entry(
        x: Tensor,
        kernel_shape: Any,
        auto_pad: str = "NOTSET",
        pads: Any = None,
        strides: Any = None,
        dilations: Any = None,
        ceil_mode: int = 0,
        storage_order: int = 0,
        count_include_pad: int = 0,
    ) -> Tensor:
        if len(kernel_shape) != 2 or ceil_mode or any(d != 1 for d in dilations or []):
            raise NotImplementedError("pooling that is not of images, with ceil_mode or dilations")
        place = _place(x.shape[2:], tuple(kernel_shape), auto_pad, pads, strides, None)
        if count_include_pad and any(map(any, place["padding"])):
            x = shape.pad(x, ((0, 0), (0, 0), *place["padding"]))
            place["padding"] = ((0, 0), (0, 0))
        return _first(function(_last(x), tuple(kernel_shape), place["stride"], place["padding"]))

    return entry


def _global_pool(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: function(x, tuple(range(2, x.ndim)), keepdims=True)


# --- normalisation and recurrence -----------------------------------------------------------------


def _batch_normalization(
    x: Tensor,
    gain: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:
    if training_mode:
        raise NotImplementedError("training_mode")
    y = batch_norm(_last(x), mean, variance, gain, bias, epsilon)
    return _first(y)


def _layer_normalization(
    x: Tensor, gain: Any, bias: Any = None, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    return layer_norm(x, gain, bias, tuple(range(axis % x.ndim, x.ndim)), epsilon)


def _lstm_step(x: list[Tensor], u: list[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, o, f, g = (a + b for a, b in zip(x, u, strict=True))
    c = elementwise.sigmoid(f) * c + elementwise.sigmoid(i) * elementwise.tanh(g)
    return elementwise.sigmoid(o) * elementwise.tanh(c), c


def _gru_step(x: list[Tensor], u: list[Tensor], h: Tensor) -> tuple[Tensor]:
    z, r = elementwise.sigmoid(x[0] + u[0]), elementwise.sigmoid(x[1] + u[1])
    n = elementwise.tanh(x[2] + r * u[2])
    return (n + z * (h - n),)


def _rnn_step(x: list[Tensor], u: list[Tensor], h: Tensor) -> tuple[Tensor]:
    return (elementwise.tanh(x[0] + u[0]),)


def _recurrent(gates: int, states: int, step: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    def entry(
        x: Tensor,
        w: Any,
        r: Any,
        b: Any = None,
        lengths: Any = None,
        *initial: Any,
        hidden_size: int = 0,
        direction: str = "forward",
        linear_before_reset: int = 0,
        layout: int = 0,
        **others: Any,
    ) -> tuple[Any, ...]:
        if direction != "forward" or layout or lengths is not None or others or any(initial[states:]):
            raise NotImplementedError("another direction, layout, lengths, activations or peepholes")
        if gates == 3 and not linear_before_reset:
            raise NotImplementedError(
                "a GRU whose reset gate stands before the product (linear_before_reset=0)"
            )
        w, r = as_tensor(w)[0], as_tensor(r)[0]
        batch, hidden = x.shape[1], r.shape[1]
        state: tuple[Any, ...] = tuple(
            zeros((batch, hidden), x.dtype, x.device)
            if k >= len(initial) or initial[k] is None
            else initial[k][0]
            for k in range(states)
        )
        both = zeros(2 * gates * hidden, x.dtype, x.device) if b is None else as_tensor(b)[0]
        projected = shape.swapaxes(x @ w.T + both[: gates * hidden], 0, 1)
        outputs = []
        for part in _steps(projected):
            inner = state[0] @ r.T + both[gates * hidden :]
            state = step(shape.split(part, gates, 1), shape.split(inner, gates, 1), *state)
            outputs.append(state[0])
        y = shape.expand_dims(shape.stack(outputs, 0), 1)
        return (y, *(shape.expand_dims(part, 0) for part in state))

    return entry


#: The function of each operator.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Abs": _of(elementwise.absolute),
    "Acos": _of(mathematics.arccos),
    "Acosh": _of(mathematics.arccosh),
    "Add": _of(elementwise.add),
    "And": _of(logic.logical_and),
    "ArgMax": _position(reduction.argmax),
    "ArgMin": _position(reduction.argmin),
    "Asin": _of(mathematics.arcsin),
    "Asinh": _of(mathematics.arcsinh),
    "Atan": _of(mathematics.arctan),
    "Atanh": _of(mathematics.arctanh),
    "AveragePool": _pool(windows.average_pool2d),
    "BatchNormalization": _batch_normalization,
    "BitwiseAnd": _of(logic.bitwise_and),
    "BitwiseOr": _of(logic.bitwise_or),
    "BitwiseXor": _of(logic.bitwise_xor),
    "Cast": lambda x, to, saturate=1: _beside((x,))[0].astype(to),
    "Ceil": _of(mathematics.ceil),
    "Clip": _clip,
    "Concat": lambda *x, axis: shape.concatenate(_beside(x), axis),
    "Constant": _constant,
    "ConstantOfShape": lambda lengths, value=None: full(
        tuple(_numbers(lengths, "shape")),
        0.0 if value is None else value.item(),
        getattr(value, "dtype", None),
    ),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Cos": _of(elementwise.cos),
    "Cosh": _of(mathematics.cosh),
    "CumSum": _cumsum,
    "Div": _divide,
    "Dropout": lambda x, *rest, seed=0: x,
    "Elu": lambda x, alpha=1.0: activations.elu(x, alpha),
    "Equal": _of(elementwise.equal),
    "Erf": _of(mathematics.erf),
    "Exp": _of(elementwise.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _of(elementwise.floor),
    "GRU": _recurrent(3, 1, _gru_step),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(reduction.mean),
    "GlobalMaxPool": _global_pool(reduction.max),
    "Greater": _of(elementwise.greater),
    "GreaterOrEqual": _of(elementwise.greater_equal),
    "Identity": lambda x: x,
    "LSTM": _recurrent(4, 2, _lstm_step),
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda x, alpha=0.01: activations.leaky_relu(x, alpha),
    "Less": _of(elementwise.less),
    "LessOrEqual": _of(elementwise.less_equal),
    "Log": _of(elementwise.log),
    "LogSoftmax": lambda x, axis=-1: reduction.log_softmax(x, axis),
    "MatMul": _of(linear_algebra.matmul),
    "Max": _several(elementwise.maximum),
    "MaxPool": _pool(windows.max_pool2d),
    "Mean": lambda *x: _several(elementwise.add)(*x) / float(len(x)),
    "Min": _several(elementwise.minimum),
    "Mod": _modulo,
    "Mul": _of(elementwise.multiply),
    "Neg": _of(elementwise.negative),
    "Not": _of(logic.logical_not),
    "Or": _of(logic.logical_or),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _of(elementwise.power),
    "RNN": _recurrent(1, 1, _rnn_step),
    "Reciprocal": _of(mathematics.reciprocal),
    "ReduceLogSumExp": _reduction(reduction.logsumexp),
    "ReduceMax": _reduction(reduction.max),
    "ReduceMean": _reduction(reduction.mean),
    "ReduceMin": _reduction(reduction.min),
    "ReduceProd": _reduction(reduction.prod),
    "ReduceSum": _reduction(reduction.sum),
    "Relu": _of(elementwise.relu),
    "Reshape": _reshape,
    "Round": _of(mathematics.rint),
    "Selu": lambda x: activations.selu(x),
    "Shape": lambda x, start=0, end=None: numpy.array(x.shape[start:end], numpy.int64),
    "Sigmoid": _of(elementwise.sigmoid),
    "Sign": _of(elementwise.sign),
    "Sin": _of(elementwise.sin),
    "Sinh": _of(mathematics.sinh),
    "Slice": _slice,
    "Softmax": lambda x, axis=-1: reduction.softmax(x, axis),
    "Softplus": _of(elementwise.softplus),
    "Softsign": _of(activations.softsign),
    "Split": _split,
    "Sqrt": _of(elementwise.sqrt),
    "Squeeze": _squeeze,
    "Sub": _of(elementwise.subtract),
    "Sum": _several(elementwise.add),
    "Tan": _of(mathematics.tan),
    "Tanh": _of(elementwise.tanh),
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _of(elementwise.where),
    "Xor": _of(logic.logical_xor),
}


def _gather_numbers(x: Any, positions: Any, axis: int = 0) -> Any:
    return numpy.take(x, positions, axis)


#: Operators of which shapes are made, on NumPy arrays alone.
SHAPE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Add": numpy.add,
    "Cast": lambda x, to, saturate=1: numpy.asarray(x).astype(to),
    "Concat": lambda *x, axis: numpy.concatenate(x, axis),
    "Div": lambda a, b: (
        numpy.floor_divide(a, b) if numpy.asarray(a).dtype.kind in "iu" else numpy.divide(a, b)
    ),
    "Equal": numpy.equal,
    "Gather": _gather_numbers,
    "Identity": lambda x: x,
    "Max": lambda *x: numpy.maximum.reduce(x),
    "Min": lambda *x: numpy.minimum.reduce(x),
    "Mul": numpy.multiply,
    "ReduceProd": lambda x, axes=None, keepdims=1, noop_with_empty_axes=0: numpy.prod(
        x, keepdims=bool(keepdims)
    ),
    "Reshape": lambda x, lengths, allowzero=0: numpy.reshape(x, lengths),
    "Shape": lambda x, start=0, end=None: numpy.array(numpy.shape(x)[start:end], numpy.int64),
    "Slice": lambda x, starts, ends, axes=None, steps=None: x[_slices(x.ndim, starts, ends, axes, steps)],
    "Squeeze": lambda x, axes=None: numpy.squeeze(x, None if axes is None else tuple(_numbers(axes, "axes"))),
    "Sub": numpy.subtract,
    "Unsqueeze": lambda x, axes: numpy.expand_dims(x, tuple(_numbers(axes, "axes"))),
    "Where": numpy.where,
}
