"""What each primitive, and some whole layers, are in ONNX: one entry each.

An entry is a function of the Graph that is being written, the step and the names of its inputs, and returns
the name of its output. What has no entry is refused by name. Sizes of the batch axis are symbolic: a shape is
asked for with ``graph.shape(...)``, never written down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy

from minidl.inspection.trace import LayerCall
from minidl.layers import (
    GRU,
    LSTM,
    RNN,
    AveragePool2D,
    BatchNorm,
    Conv1D,
    Conv2D,
    ConvTranspose2D,
    Dense,
    DepthwiseConv2D,
    Layer,
    LayerNorm,
    MaxPool2D,
)
from minidl.primitives.indexing import SLOT
from minidl.primitives.windows import padding_pairs, window_count
from minidl.program.program import Instruction

if TYPE_CHECKING:
    from minidl.interop.onnx_export import Graph

Entry = Callable[["Graph", Instruction, list[str]], str]

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)


class Unsupported(Exception):
    """ONNX, or this table, has nothing for a step; the text says what."""


# --- elements -------------------------------------------------------------------------------------


def _direct(operator: str, **attributes: Any) -> Entry:
    """The operator of this name, of the same inputs; all of the dtype of the output."""
    return lambda graph, step, x: graph.node(operator, *graph.alike(step, x), **attributes)


def _comparison(operator: str) -> Entry:
    def entry(graph: Graph, step: Instruction, x: list[str]) -> str:
        dtype = numpy.result_type(*(value.dtype for value in step.inputs))
        if dtype.kind == "b" and operator != "Equal":
            dtype = numpy.dtype(numpy.int32)
        return graph.node(
            operator, *(graph.cast(name, v, dtype) for name, v in zip(x, step.inputs, strict=True))
        )

    return entry


def _not_equal(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.node("Not", _comparison("Equal")(graph, step, x))


def _of_one(formula: Callable[[Graph, Callable[[float], str], str], str]) -> Entry:
    """A formula of one input; its second argument makes a constant of the output's dtype."""
    return lambda graph, step, x: formula(graph, lambda c: graph.number(c, step.output.dtype), x[0])


def _of_two(formula: Callable[[Graph, Callable[[float], str], str, str], str]) -> Entry:
    return lambda graph, step, x: formula(
        graph, lambda c: graph.number(c, step.output.dtype), *graph.alike(step, x)
    )


def _log1p(graph: Graph, number: Callable[[float], str], x: str) -> str:
    return graph.node("Log", graph.node("Add", x, number(1.0)))


def _log_add_exp(graph: Graph, number: Callable[[float], str], a: str, b: str) -> str:
    apart = graph.node("Neg", graph.node("Abs", graph.node("Sub", a, b)))
    return graph.node("Add", graph.node("Max", a, b), _log1p(graph, number, graph.node("Exp", apart)))


def _floor_mod(graph: Graph, number: Callable[[float], str], a: str, b: str) -> str:
    whole = graph.node("Floor", graph.node("Div", a, b))
    return graph.node("Sub", a, graph.node("Mul", whole, b))


def _cross_entropy(graph: Graph, number: Callable[[float], str], z: str, t: str) -> str:
    return graph.node("Sub", graph.node("Softplus", z), graph.node("Mul", z, t))


def _where(graph: Graph, step: Instruction, x: list[str]) -> str:
    condition, a, b = x
    if step.output.dtype.kind != "b":
        return graph.node("Where", condition, *graph.alike(step, x, first=1))
    chosen = graph.node("And", condition, a)  # ONNX Runtime has no Where for bools
    return graph.node("Or", chosen, graph.node("And", graph.node("Not", condition), b))


def _clip(graph: Graph, step: Instruction, x: list[str]) -> str:
    limits = (step.attributes["low"], step.attributes["high"])
    names = ["" if limit is None else graph.number(limit, step.output.dtype) for limit in limits]
    return graph.node("Clip", x[0], *names)


def _cast(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.cast(x[0], step.inputs[0], step.output.dtype)


def _bitwise(of_bools: str, of_integers: str) -> Entry:
    def entry(graph: Graph, step: Instruction, x: list[str]) -> str:
        return graph.node(of_bools if step.output.dtype.kind == "b" else of_integers, *graph.alike(step, x))

    return entry


def _maximum(operator: str) -> Entry:
    def entry(graph: Graph, step: Instruction, x: list[str]) -> str:
        if step.output.dtype.kind == "b":
            return graph.node("Or" if operator == "Max" else "And", *x)
        return graph.node(operator, *graph.alike(step, x))

    return entry


# --- shapes ---------------------------------------------------------------------------------------


def _reshape(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.node("Reshape", x[0], graph.shape(step.output, for_reshape=True))


def _broadcast(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.node("Expand", x[0], graph.shape(step.output))


def _transpose(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.transpose(x[0], step.attributes["axes"])


def _concatenate(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.node("Concat", *graph.alike(step, x), axis=step.attributes["axis"])


def _pad(graph: Graph, step: Instruction, x: list[str]) -> str:
    before, after = zip(*step.attributes["widths"], strict=True)
    value = graph.number(step.attributes["value"], step.output.dtype)
    return graph.node("Pad", x[0], graph.integers([*before, *after]), value)


def _slice(graph: Graph, step: Instruction, x: list[str]) -> str:
    """A key of slices, integers, None and an ellipsis."""
    key = list(step.attributes["key"])
    taken = sum(part is not None and part is not Ellipsis for part in key)
    rest = [slice(None)] * (len(step.inputs[0].shape) - taken)
    place = key.index(Ellipsis) if Ellipsis in key else len(key)
    key[place : place + 1] = rest
    cuts: list[tuple[int, int, int, int]] = []  # axis, start, end, step
    dropped, added, axis = [], [], 0
    for position, part in enumerate(key):
        if part is None:
            added.append(position - sum(isinstance(before, int) for before in key[:position]))
            continue
        if isinstance(part, int):
            cuts.append((axis, part, part + 1 if part != -1 else _LARGEST, 1))
            dropped.append(axis)
        elif part != slice(None):
            stride = part.step or 1
            first, last = (0, _LARGEST) if stride > 0 else (_LARGEST, _SMALLEST)
            start = first if part.start is None else part.start
            cuts.append((axis, start, last if part.stop is None else part.stop, stride))
        axis += 1
    name = x[0]
    if cuts:
        axes, starts, ends, strides = (graph.integers(column) for column in zip(*cuts, strict=True))
        name = graph.node("Slice", name, starts, ends, axes, strides)
    name = graph.node("Squeeze", name, graph.integers(dropped)) if dropped else name
    return graph.node("Unsqueeze", name, graph.integers(added)) if added else name


def _gather(graph: Graph, step: Instruction, x: list[str]) -> str:
    """Rows by positions along one axis, or elements by positions along the first axes."""
    key = step.attributes["key"]
    slots = [i for i, part in enumerate(key) if part is SLOT]
    if any(part is not SLOT and part != slice(None) for part in key):
        raise Unsupported("indices beside slices or new axes")
    if len(slots) == 1:
        return graph.node("Gather", *x, axis=slots[0])
    if slots != list(range(len(slots))):
        raise Unsupported("several arrays of indices that are not those of the first axes")
    shapes = [value.shape for value in step.inputs[1:]]
    whole = numpy.broadcast_shapes(*shapes)
    if any(shape != whole for shape in shapes):
        raise Unsupported("arrays of indices of several shapes")
    last = graph.integers([-1])
    columns = [
        graph.node("Unsqueeze", graph.cast(name, value, numpy.dtype(numpy.int64)), last)
        for name, value in zip(x[1:], step.inputs[1:], strict=True)
    ]
    return graph.node("GatherND", x[0], graph.node("Concat", *columns, axis=-1))


# --- reductions and products ----------------------------------------------------------------------


def _reduction(operator: str) -> Entry:
    def entry(graph: Graph, step: Instruction, x: list[str]) -> str:
        axes, keep = step.attributes["axis"], int(step.attributes["keepdims"])
        source = graph.cast(x[0], step.inputs[0], step.output.dtype)
        return graph.node(operator, source, graph.integers(axes), keepdims=keep, noop_with_empty_axes=1)

    return entry


def _softmax(operator: str) -> Entry:
    def entry(graph: Graph, step: Instruction, x: list[str]) -> str:
        axes = step.attributes["axis"]
        if len(axes) == 1:
            return graph.node(operator, x[0], axis=axes[0])
        total = graph.node("ReduceLogSumExp", x[0], graph.integers(axes), keepdims=1)
        shifted = graph.node("Sub", x[0], total)
        return shifted if operator == "LogSoftmax" else graph.node("Exp", shifted)

    return entry


def _position(operator: str) -> Entry:
    return lambda graph, step, x: graph.node(operator, x[0], axis=step.attributes["axis"], keepdims=0)


def _argsort(graph: Graph, step: Instruction, x: list[str]) -> str:
    axis = step.attributes["axis"]
    count = graph.node("Shape", x[0], start=axis, end=axis + 1)
    return graph.nodes("TopK", 2, x[0], count, axis=axis, largest=0, sorted=1)[1]


def _cumsum(graph: Graph, step: Instruction, x: list[str]) -> str:
    return graph.node("CumSum", x[0], graph.number(step.attributes["axis"], numpy.dtype(numpy.int64)))


# --- windows and convolutions ---------------------------------------------------------------------


def _channels_first(graph: Graph, name: str, ndim: int) -> str:
    return graph.transpose(name, (0, ndim - 1, *range(1, ndim - 1)))


def _channels_last(graph: Graph, name: str, ndim: int) -> str:
    return graph.transpose(name, (0, *range(2, ndim), 1))


def _borders(pairs: Any) -> list[int]:
    return [pair[0] for pair in pairs] + [pair[1] for pair in pairs]


def _convolution(graph: Graph, step: Instruction, x: list[str]) -> str:
    """A convolution or a transposed one, with a third input for the bias.

    Channels and middle axes change places, around the operator and in the weights.
    """
    where, ndim, more = step.attributes, len(step.output.shape), {}
    if step.name == "conv_input":
        more["output_padding"] = _output_padding(step)
    result = graph.node(
        "ConvTranspose" if more else "Conv",
        _channels_first(graph, x[0], ndim),
        graph.convolution_weight(step.inputs[1]),
        *x[2:],
        kernel_shape=step.inputs[1].shape[:-2],
        strides=where["stride"],
        pads=_borders(where["padding"]),
        dilations=where["dilation"],
        group=where["groups"],
        **more,
    )
    return _channels_last(graph, result, ndim)


def _output_padding(step: Instruction) -> list[int]:
    """Return how much longer than by its padding the result of a transposed convolution is."""
    where, window = step.attributes, step.inputs[1].shape[:-2]
    axes = zip(
        step.inputs[0].shape[1:-1],
        where["stride"],
        window,
        where["dilation"],
        where["padding"],
        where["lengths"],
        strict=True,
    )
    more = [wanted - ((n - 1) * s + (k - 1) * d + 1 - sum(pair)) for n, s, k, d, pair, wanted in axes]
    if min(more) < 0:
        raise Unsupported("a transposed convolution that is cut off further than by its padding")
    return more


def _maxima(graph: Graph, step: Instruction, x: list[str]) -> str:
    if x[0] != x[1]:
        raise Unsupported("elements picked by the maxima of another array")
    ndim, where = len(step.output.shape), step.attributes
    result = graph.node(
        "MaxPool", _channels_first(graph, x[0], ndim), kernel_shape=where["window"], strides=where["stride"]
    )
    return _channels_last(graph, result, ndim)


def _windows(graph: Graph, step: Instruction, x: list[str]) -> str:
    """Elements of each axis are gathered by (count, window), and the axes of windows put behind."""
    where, axes = step.attributes, len(step.attributes["window"])
    name = x[0]
    for i, (length, window, stride, dilation) in enumerate(
        zip(step.inputs[0].shape[1:-1], where["window"], where["stride"], where["dilation"], strict=True)
    ):
        starts = numpy.arange(window_count(length, window, stride, dilation)) * stride
        places = starts[:, None] + numpy.arange(window) * dilation
        name = graph.node("Gather", name, graph.constant(places), axis=1 + 2 * i)
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
    return graph.transpose(name, order)


#: The entry of each primitive by its name.
PRIMITIVES: dict[str, Entry] = {
    "add": _direct("Add"),
    "subtract": _direct("Sub"),
    "multiply": _direct("Mul"),
    "divide": _direct("Div"),
    "power": _direct("Pow"),
    "negative": _direct("Neg"),
    "absolute": _direct("Abs"),
    "sign": _direct("Sign"),
    "floor": _direct("Floor"),
    "ceil": _direct("Ceil"),
    "rint": _direct("Round"),
    "trunc": _of_one(lambda g, c, x: g.node("Mul", g.node("Sign", x), g.node("Floor", g.node("Abs", x)))),
    "exp": _direct("Exp"),
    "log": _direct("Log"),
    "log1p": _of_one(_log1p),
    "expm1": _of_one(lambda g, c, x: g.node("Sub", g.node("Exp", x), c(1.0))),
    "exp2": _of_one(lambda g, c, x: g.node("Pow", c(2.0), x)),
    "log2": _of_one(lambda g, c, x: g.node("Mul", g.node("Log", x), c(1 / math.log(2)))),
    "log10": _of_one(lambda g, c, x: g.node("Mul", g.node("Log", x), c(1 / math.log(10)))),
    "logaddexp": _of_two(_log_add_exp),
    "sqrt": _direct("Sqrt"),
    "erf": _direct("Erf"),
    "sin": _direct("Sin"),
    "cos": _direct("Cos"),
    "tan": _direct("Tan"),
    "arcsin": _direct("Asin"),
    "arccos": _direct("Acos"),
    "arctan": _direct("Atan"),
    "sinh": _direct("Sinh"),
    "cosh": _direct("Cosh"),
    "arcsinh": _direct("Asinh"),
    "arccosh": _direct("Acosh"),
    "arctanh": _direct("Atanh"),
    "mod": _of_two(_floor_mod),
    "floor_divide": _of_two(lambda g, c, a, b: g.node("Floor", g.node("Div", a, b))),
    "relu": _direct("Relu"),
    "sigmoid": _direct("Sigmoid"),
    "tanh": _direct("Tanh"),
    "softplus": _direct("Softplus"),
    "sigmoid_cross_entropy": _of_two(_cross_entropy),
    "equal": _comparison("Equal"),
    "not_equal": _not_equal,
    "less": _comparison("Less"),
    "less_equal": _comparison("LessOrEqual"),
    "greater": _comparison("Greater"),
    "greater_equal": _comparison("GreaterOrEqual"),
    "bitwise_and": _bitwise("And", "BitwiseAnd"),
    "bitwise_or": _bitwise("Or", "BitwiseOr"),
    "bitwise_xor": _bitwise("Xor", "BitwiseXor"),
    "maximum": _maximum("Max"),
    "minimum": _maximum("Min"),
    "where": _where,
    "clip": _clip,
    "cast": _cast,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast,
    "detach": lambda graph, step, x: x[0],
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "gather": _gather,
    "matmul": _direct("MatMul"),
    "sum": _reduction("ReduceSum"),
    "max": _reduction("ReduceMax"),
    "min": _reduction("ReduceMin"),
    "logsumexp": _reduction("ReduceLogSumExp"),
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "argmax": _position("ArgMax"),
    "argmin": _position("ArgMin"),
    "argsort": _argsort,
    "cumsum": _cumsum,
    "conv": _convolution,
    "conv_input": _convolution,
    "select_maxima": _maxima,
    "windows": _windows,
}


# --- whole layers ---------------------------------------------------------------------------------


def _dense(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
    weight, bias = graph.tensor(layer.weight), None if layer.bias is None else graph.tensor(layer.bias)
    if len(call.inputs[0].shape) == 2:
        return [graph.node("Gemm", x, weight, *([] if bias is None else [bias]))]
    product = graph.node("MatMul", x, weight)
    return [product if bias is None else graph.node("Add", product, bias)]


def _convolution_layer(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
    step = next(step for step in call.instructions if step.name in ("conv", "conv_input"))
    return [_convolution(graph, step, [x, "", *([] if layer.bias is None else [graph.tensor(layer.bias)])])]


def _layer_norm(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
    inputs = [x, graph.tensor(layer.gain)] + ([] if layer.bias is None else [graph.tensor(layer.bias)])
    return [graph.node("LayerNormalization", *inputs, axis=-1, epsilon=float(layer.epsilon))]


def _batch_norm(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
    ndim = len(call.inputs[0].shape)
    state = (layer.gain, layer.bias, layer.running_mean, layer.running_variance)
    first = _channels_first(graph, x, ndim) if ndim > 2 else x
    inputs = [graph.tensor(part) for part in state]
    result = graph.node("BatchNormalization", first, *inputs, epsilon=float(layer.epsilon))
    return [_channels_last(graph, result, ndim) if ndim > 2 else result]


def _pool(operator: str, **attributes: Any) -> Any:
    def entry(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
        pairs = padding_pairs(layer.padding, call.inputs[0].shape[1:3], layer.window, layer.stride, (1, 1))
        result = graph.node(
            operator,
            _channels_first(graph, x, 4),
            kernel_shape=layer.window,
            strides=layer.stride,
            pads=_borders(pairs),
            **attributes,
        )
        return [_channels_last(graph, result, 4)]

    return entry


def _gates(array: numpy.ndarray, order: tuple[int, ...]) -> numpy.ndarray:
    """Return (..., gates * hidden) with the gates in another order, and the last axis in front."""
    parts = numpy.split(array, len(order), axis=-1)
    return numpy.concatenate([parts[i] for i in order], axis=-1).T


def _recurrent(operator: str, order: tuple[int, ...], states: int, **attributes: Any) -> Any:
    """A whole recurrent layer; ONNX has another order of gates, two biases, and time in front."""

    def entry(graph: Graph, call: LayerCall, layer: Any, x: str) -> list[str]:
        bias = layer.bias.numpy()
        inner = numpy.zeros_like(bias)
        if isinstance(layer, GRU):
            inner[2 * layer.hidden_features :] = layer.recurrent_bias.numpy()
        both = numpy.concatenate([_gates(bias, order), _gates(inner, order)])
        weights = [
            graph.made(call, name, array[None], made_of)
            for name, array, made_of in (
                ("W", _gates(layer.input_weight.numpy(), order), layer.input_weight),
                ("R", _gates(layer.recurrent_weight.numpy(), order), layer.recurrent_weight),
                ("B", both, layer.bias),
            )
        ]
        outputs = graph.nodes(
            operator,
            1 + states,
            graph.transpose(x, (1, 0, 2)),
            *weights,
            hidden_size=layer.hidden_features,
            **attributes,
        )
        first = graph.integers([0])
        final = [graph.node("Squeeze", name, first) for name in outputs[1:]]
        if not layer.return_sequences:
            return [final[0], *final] if layer.return_state else final[:1]
        steps = graph.transpose(graph.node("Squeeze", outputs[0], graph.integers([1])), (1, 0, 2))
        return [steps, *final] if layer.return_state else [steps]

    return entry


#: The entry of a layer that is one operator of ONNX: it takes the Graph, the call, the Layer and the name of
#: the input, and returns the names of the outputs. Subclasses are written by their primitives.
LAYERS: dict[type[Layer], Callable[[Graph, LayerCall, Any, str], list[str]]] = {
    Dense: _dense,
    Conv1D: _convolution_layer,
    Conv2D: _convolution_layer,
    DepthwiseConv2D: _convolution_layer,
    ConvTranspose2D: _convolution_layer,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    MaxPool2D: _pool("MaxPool"),
    AveragePool2D: _pool("AveragePool", count_include_pad=0),
    RNN: _recurrent("RNN", (0,), 1),
    LSTM: _recurrent("LSTM", (0, 3, 1, 2), 2),  # i, f, g, o; in ONNX i, o, f, g
    GRU: _recurrent("GRU", (1, 0, 2), 1, linear_before_reset=1),  # r, z, n; in ONNX z, r, n
}


def entry_of(call: LayerCall) -> Any:
    """Return the entry of a call of a layer, or None where its primitives are written."""
    layer: Any = call.layer
    plain = len(call.inputs) == 1 and all(value.dtype.kind == "f" for value in call.inputs)
    if not plain or getattr(layer, "stateful", False) or not hasattr(layer, "forward"):
        return None
    return LAYERS.get(type(layer))
