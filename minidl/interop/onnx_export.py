"""Networks as ONNX files: the forward of a network in evaluation mode, recorded and written down.

The network runs twice, on batches of two sizes. What is as long as the batch in both becomes symbolic; a
network that does something else for another batch is refused. onnx_operators.py says what each step is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import index
from os import PathLike
from typing import Any

import numpy

from minidl import devices, files
from minidl.inspection.trace import LayerCall, NetworkTrace, one_observation, trace_tensors
from minidl.interop.onnx_operators import PRIMITIVES, Unsupported, entry_of
from minidl.layers.layer import Layer
from minidl.layers.normalize import Normalize
from minidl.primitives.convolution import conv_, conv_input_
from minidl.primitives.elementwise import add
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.shape import concatenate, transpose_
from minidl.program.lowered.check import check_
from minidl.program.program import Instruction, Value
from minidl.tensor import Tensor

#: The sizes of the two batches.
_BATCHES = (2, 3)

#: A length: a number, or a multiple of the batch as a text, "batch" or "4*batch"; None if it is neither.
Length = int | str | None

Item = Instruction | LayerCall


def to_onnx(network: Layer, path: str | PathLike[str], samples: tuple[Any, ...], opset: int = 18) -> None:
    """Write a network's forward in evaluation mode as an ONNX file.

    The first axis of every input is the batch, of any size; other lengths are those of the samples. Names are
    those of Layers and Parameters. A shared Parameter is stored once. LSTM, GRU and RNN are ONNX's operators,
    unless they are given a state or a mask, or are subclassed: then their steps are written one by one.

    Parameters
    ----------
    path : the file; it is checked by onnx.checker before it is written
    samples : for each input, the shape of one observation, or an array of observations, as for summary()
    opset : the version of ONNX's operators, 18 or later

    Raises
    ------
    ValueError
        The network does something that ONNX or minidl's table has nothing for: all of it is listed, with the
        Layers. Or it depends on the number of observations, has an unfitted Normalize, or changes state.
    ModuleNotFoundError
        The package onnx is not installed; the extra ``onnx`` brings it.
    """
    onnx = _onnx()
    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, str) or not 18 <= index(opset) <= newest:
        raise ValueError(f"to_onnx writes opset 18 to {newest}, got {opset!r}")
    graph = Graph(_TwoTraces(network, samples), index(opset))
    model = graph.model(type(network).__name__)
    onnx.checker.check_model(model, full_check=True)
    with files.replacing(path) as temporary:
        onnx.save(model, str(temporary))


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ModuleNotFoundError(
            "ONNX files need the package onnx: install it with `pip install minidl[onnx]`", name="onnx"
        ) from None
    return onnx


class _TwoTraces:
    """A network's forward recorded on two batches, step beside step.

    Attributes
    ----------
    items : what is written, in order: instructions, and calls of Layers that have an entry of their own
    owners : the name of the Layer of each item
    lengths : of each value, the length of each axis
    """

    def __init__(self, network: Layer, samples: tuple[Any, ...]):
        self.network = network
        _require_ready(network)
        both = [trace_tensors(network, _batch(network, samples, size)) for size in _BATCHES]
        self.trace = both[0]
        if any(traced.program.updates for traced in both):
            raise ValueError(
                f"to_onnx: {type(network).__name__} assigns state in its forward, which a file cannot"
            )
        listed = [list(_items(traced.root)) for traced in both]
        self.items = [item for item, _ in listed[0]]
        self.owners = [name for _, name in listed[0]]
        if list(map(_kind, self.items)) != [_kind(item) for item, _ in listed[1]]:
            raise ValueError(
                f"to_onnx: {type(network).__name__} takes other steps for another number of observations"
            )
        self.lengths: dict[Value, tuple[Length, ...]] = {}
        self.twins: dict[Value, Value] = {}
        for one, two in zip(self.items, (item for item, _ in listed[1]), strict=True):
            self._compare(one, two)
        for a, b in zip(_ends(both[0]), _ends(both[1]), strict=True):
            self._pair(a, b)

    def _compare(self, one: Any, two: Any) -> None:
        for a, b in zip([*one.inputs, *one.outputs], [*two.inputs, *two.outputs], strict=True):
            self._pair(a, b)
        if isinstance(one, Instruction):
            ignored = {"shape", "generator"} if one.name in ("reshape", "broadcast_to") else {"generator"}
            for key in one.attributes.keys() - ignored:
                if one.attributes[key] != two.attributes[key]:
                    raise ValueError(
                        f"to_onnx: {one.name} has another {key} for another number of observations: "
                        f"{one.attributes[key]} and {two.attributes[key]}"
                    )

    def _pair(self, a: Value, b: Value) -> None:
        self.twins[a] = b
        if len(a.shape) != len(b.shape):
            raise ValueError("to_onnx: the number of axes depends on the number of observations")
        self.lengths[a] = tuple(map(_length, a.shape, b.shape))


def _batch(network: Layer, samples: tuple[Any, ...], size: int) -> list[Tensor]:
    """Return a batch of one observation repeated, for each input."""
    if not samples:
        raise TypeError("to_onnx needs, for each input, a shape of one observation or an array of them")
    return [concatenate([one_observation(x, network)] * size) for x in samples]


def _require_ready(network: Layer) -> None:
    for name, layer in [("", network), *network.named_layers()]:
        if isinstance(layer, Normalize) and not layer.fitted:
            raise ValueError(f"to_onnx: {name or 'the network'} = {layer!r} is not fitted yet")
        if layer.unset is not None:
            raise ValueError(f"to_onnx: {name or 'the network'} has sizes left open: call initialize(sample)")


def _items(call: LayerCall, name: str = "") -> Iterator[tuple[Item, str]]:
    """Yield what is written of a call, and the name of the Layer that it belongs to."""
    if entry_of(call) is not None:
        yield call, call.name
        return
    for item in call.items:
        if isinstance(item, LayerCall):
            yield from _items(item, item.name)
        elif item.primitive is not check_:
            yield item, call.name or name


def _kind(item: Item) -> tuple[str, int]:
    name = item.name if isinstance(item, Instruction) else type(item.layer).__name__
    return name, len(item.inputs)


def _ends(traced: NetworkTrace) -> list[Value]:
    return [value for _, value in [*traced.inputs, *traced.outputs]]


def _length(a: int, b: int) -> Length:
    """Return what a length in both batches means."""
    if a == b:
        return a
    factor, rest = divmod(a, _BATCHES[0])
    if rest or b != factor * _BATCHES[1]:
        return None
    return "batch" if factor == 1 else f"{factor}*batch"


class Graph:
    """An ONNX graph that is being written, by the functions of onnx_operators.py."""

    def __init__(self, traces: _TwoTraces, opset: int):
        self.onnx = _onnx()
        self.traces = traces
        self.opset = opset
        self.protos: list[Any] = []
        self.initializers: dict[str, numpy.ndarray] = {}
        self.names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._made: dict[Any, str] = {}
        self._made_of_parameters: set[str] = set()
        self._scope = ""
        self._transposed: dict[str, tuple[str, tuple[int, ...]]] = {}  # what results are transpositions of
        self._tensor_names = {id(x): name for name, x in traces.network.named_tensors()}
        self._states = {id(value.tensor): value for value in traces.trace.program.states}
        self._needed = _needed(traces)
        self._only_in_convolutions = _only_in_convolutions(traces, self._needed)
        self._problems: list[str] = []

    # --- the model --------------------------------------------------------------------------------

    def model(self, name: str) -> Any:
        """Return the model of everything."""
        helper = self.onnx.helper
        inputs = []
        arguments = self.traces.trace.inputs
        for argument, value in arguments:
            unnamed = "x" if len(arguments) == 1 else f"x{argument}"  # one of several in *inputs
            self.names[value] = self._unique(unnamed if argument.isdigit() else argument)
            inputs.append(self._information(self.names[value], value))
        for name_ in self._tensor_names.values():  # so that no step takes such a name
            self._taken.add(name_)
        self._write_steps()
        if self._problems:
            raise ValueError("to_onnx has nothing for:\n  " + "\n  ".join(dict.fromkeys(self._problems)))
        outputs = []
        for label, value in self.traces.trace.outputs:
            public = self._unique(label if label and not label.isdigit() else f"output{label}")
            self.protos.append(
                helper.make_node("Identity", [self.name(value)], [public], name=f"{public}/Identity")
            )
            outputs.append(self._information(public, value))
        self._drop_unused()
        arrays = [self.onnx.numpy_helper.from_array(x, name_) for name_, x in self.initializers.items()]
        graph = helper.make_graph(self.protos, name, inputs, outputs, arrays)
        from minidl import __version__

        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            producer_name="minidl",
            producer_version=__version__,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
        )
        trained = {name for name, _ in self.traces.network.named_parameters()} | self._made_of_parameters
        names = [name for name in self.initializers if name in trained]
        helper.set_model_props(model, {"minidl.parameters": json.dumps(names)})
        return model

    def _drop_unused(self) -> None:
        """Drop nodes and arrays that nothing reads, such as a transposition that a Gemm does itself."""
        used = {name for proto in self.protos if proto.name.endswith("/Identity") for name in proto.input}
        kept = []
        for proto in reversed(self.protos):
            if proto.name.endswith("/Identity") or used.intersection(proto.output):
                used.update(proto.input)
                kept.append(proto)
        self.protos = kept[::-1]
        self.initializers = {name: x for name, x in self.initializers.items() if name in used}

    def _write_steps(self) -> None:
        fused = _biases(self.traces.items, self._needed)
        for item, owner in zip(self.traces.items, self.traces.owners, strict=True):
            if not any(value in self._needed for value in item.outputs) or item in fused.values():
                continue
            with self._in(owner):
                try:
                    self._write(item, fused)
                except Unsupported as problem:
                    self._note(item, f"{item.name}: {problem}")

    def _write(self, item: Item, fused: dict[Item, Instruction]) -> None:
        if isinstance(item, LayerCall):
            names = entry_of(item)(self, item, item.layer, self.name(item.inputs[0]))
            self.names |= dict(zip(item.outputs, names, strict=True))
        elif item in fused:
            self.names[item.output] = self._product_and_bias(fused[item], item)
        elif item.name in PRIMITIVES:
            names = [
                "" if place == 1 and item.primitive in (conv_, conv_input_) else self.name(value)
                for place, value in enumerate(item.inputs)
            ]
            self.names[item.output] = PRIMITIVES[item.name](self, item, names)
        else:
            self._note(item, item.name)

    def _note(self, item: Item, problem: str) -> None:
        self._problems.append(f"{problem} in {self._scope or 'the network'}")
        for value in item.outputs:
            self.names[value] = ""

    def _product_and_bias(self, product: Instruction, sum_: Instruction) -> str:
        a, b = product.inputs
        bias = next(value for value in sum_.inputs if value is not product.output)
        transposed = self._transposed_state(b)
        inputs = (self.name(a), self.name(transposed or b), self.name(bias))
        return self.node("Gemm", *inputs, **({"transB": 1} if transposed else {}))

    def _transposed_state(self, value: Value) -> Value | None:
        """Return the state that a matrix is the transpose of, if it is one."""
        for item in self.traces.items:
            if isinstance(item, Instruction) and item.output is value and item.primitive is transpose_:
                return item.inputs[0] if len(value.shape) == 2 else None
        return None

    def _information(self, name: str, value: Value) -> Any:
        lengths = ["unknown" if n is None else n for n in self.traces.lengths[value]]
        return self.onnx.helper.make_tensor_value_info(name, self._type(value.dtype), lengths)

    def _type(self, dtype: numpy.dtype) -> int:
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(dtype))

    # --- what the entries use ---------------------------------------------------------------------

    @contextmanager
    def _in(self, scope: str) -> Iterator[None]:
        self._scope = scope
        try:
            yield
        finally:
            self._scope = ""

    def _unique(self, name: str) -> str:
        chosen, number = name, 1
        while chosen in self._taken:
            number += 1
            chosen = f"{name}_{number}"
        self._taken.add(chosen)
        return chosen

    def nodes(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs; return their names."""
        path = f"{self._scope}/" if self._scope else ""
        name = self._unique(f"{path}{operator}")
        outputs = [name, *(f"{name}:{i}" for i in range(1, count))]
        attributes = {key: list(x) if isinstance(x, tuple) else x for key, x in attributes.items()}
        self.protos.append(
            self.onnx.helper.make_node(operator, list(inputs), outputs, name=name, **attributes)
        )
        return outputs

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; return its name."""
        return self.nodes(operator, 1, *inputs, **attributes)[0]

    def transpose(self, name: str, axes: Sequence[int]) -> str:
        """Return a value with its axes in another order; one transposition after another is one."""
        source, before = self._transposed.get(name, (name, tuple(range(len(axes)))))
        order = tuple(before[axis] for axis in axes)
        if order == tuple(range(len(order))):
            return source
        result = self.node("Transpose", source, perm=order)
        self._transposed[result] = (source, order)
        return result

    def constant(self, array: Any) -> str:
        """Return the name of an array; equal arrays are stored once."""
        array = numpy.ascontiguousarray(array) if numpy.ndim(array) else numpy.asarray(array)
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._made:
            self._made[key] = self._unique("constant")
            self.initializers[self._made[key]] = array
        return self._made[key]

    def integers(self, numbers: Any) -> str:
        """Return the name of a vector of int64."""
        return self.constant(numpy.array(list(numbers), numpy.int64))

    def number(self, value: float, dtype: numpy.dtype) -> str:
        """Return the name of a single number."""
        return self.constant(numpy.array(value, dtype))

    def cast(self, name: str, value: Value, dtype: numpy.dtype) -> str:
        """Return a value in a dtype."""
        return name if value.dtype == dtype else self.node("Cast", name, to=self._type(dtype))

    def alike(self, step: Instruction, names: list[str], first: int = 0) -> list[str]:
        """Return the inputs of a step, from the first on, in the dtype of its output."""
        pairs = zip(names[first:], step.inputs[first:], strict=True)
        return [self.cast(name, value, step.output.dtype) for name, value in pairs]

    def shape(self, value: Value, for_reshape: bool = False) -> str:
        """Return the name of a shape, in which the batch is that of the input.

        ``for_reshape`` lets one length that depends on the batch be -1.
        """
        lengths = self.traces.lengths[value]
        unknown = [length for length in lengths if not isinstance(length, int)]
        if not unknown:
            return self.integers(lengths)
        if for_reshape and len(unknown) == 1 and 0 not in lengths:
            return self.integers([n if isinstance(n, int) else -1 for n in lengths])
        if None in unknown:
            raise Unsupported("a shape that is not a multiple of the number of observations")
        return self.node("Concat", *(self._one_length(length) for length in lengths), axis=0)

    def _one_length(self, length: Length) -> str:
        if isinstance(length, int):
            return self.integers([length])
        batch = self._made.get("batch")
        if batch is None:
            with self._in(""):
                batch = self._made["batch"] = self.node("Shape", self._batch_input(), start=0, end=1)
        factor = str(length).removesuffix("batch").removesuffix("*")
        return self.node("Mul", batch, self.integers([int(factor)])) if factor else batch

    def _batch_input(self) -> str:
        return self.names[self.traces.trace.inputs[0][1]]

    # --- values -----------------------------------------------------------------------------------

    def name(self, value: Value) -> str:
        """Return the name of a value; state and constants become initializers."""
        if value not in self.names:
            if value.kind == "state":
                self.names[value] = self._initializer(value.tensor, value.array)
            else:
                self.names[value] = self._constant_value(value)
        return self.names[value]

    def tensor(self, x: Tensor) -> str:
        """Return the name of a Parameter or state Tensor of a Layer."""
        state = self._states.get(id(x))
        return self._initializer(x, x.data) if state is None else self.name(state)

    def _initializer(self, x: Tensor, array: Any) -> str:
        if id(x) not in self._made:
            name = self._tensor_names.get(id(x))
            self._made[id(x)] = name = self._unique("state") if name is None else name
            self.initializers[name] = numpy.ascontiguousarray(devices.to_numpy(array)).reshape(array.shape)
        return self._made[id(x)]

    def made(self, call: LayerCall, name: str, array: numpy.ndarray, source: Tensor) -> str:
        """Return the name of an initializer that is made of a Parameter, for a Layer; it is stored once."""
        key = (id(source), name)
        if key not in self._made:
            self._made[key] = self._unique(f"{call.name}.{name}" if call.name else name)
            self.initializers[self._made[key]] = numpy.ascontiguousarray(array)
            self._made_of_parameters.add(self._made[key])
        return self._made[key]

    def convolution_weight(self, value: Value) -> str:
        """Return the weights of a convolution, (*window, in, out), as (out, in, *window)."""
        ndim = len(value.shape)
        order = (ndim - 1, ndim - 2, *range(ndim - 2))
        if value not in self._only_in_convolutions:
            return self.transpose(self.name(value), order)
        name = self.name(value)
        if self.initializers[name].shape == value.shape and name not in self._made:
            self.initializers[name] = numpy.ascontiguousarray(self.initializers[name].transpose(order))
            self._made[name] = name  # turned once
        return name

    def _constant_value(self, value: Value) -> str:
        """Return a constant; one that is as long as the batch has equal rows, of which one is stored."""
        array, twin = (devices.to_numpy(x.array) for x in (value, self.traces.twins[value]))
        lengths = self.traces.lengths[value]
        if all(isinstance(length, int) for length in lengths):
            if not numpy.array_equal(array, twin, equal_nan=array.dtype.kind == "f"):
                raise Unsupported("a constant that depends on the number of observations")
            return self.constant(array)
        one = tuple(slice(None) if isinstance(length, int) else slice(0, 1) for length in lengths)
        row = array[one]
        if not (numpy.array_equal(numpy.broadcast_to(row, array.shape), array) and (twin == row).all()):
            raise Unsupported("a constant that is another one for each observation")
        return self.node("Expand", self.constant(row), self.shape(value))


def _needed(traces: _TwoTraces) -> set[Value]:
    """Return the values that outputs depend on."""
    needed = {value for _, value in traces.trace.outputs}
    for item in reversed(traces.items):
        if any(value in needed for value in item.outputs):
            needed.update(item.inputs)
    return needed


def _only_in_convolutions(traces: _TwoTraces, needed: set[Value]) -> set[Value]:
    """Return the state that is used as weights of convolutions, and nowhere else."""
    weights, others = set(), {value for _, value in traces.trace.outputs}
    for item in traces.items:
        if not any(value in needed for value in item.outputs):
            continue
        for place, value in enumerate(item.inputs):
            if isinstance(item, Instruction) and place == 1 and item.primitive in (conv_, conv_input_):
                weights.add(value)
            else:
                others.add(value)
        if isinstance(item, LayerCall):
            used = {id(x) for x in item.layer.parameters()}
            held = {value for value in traces.trace.program.states if id(value.tensor) in used}
            is_convolution = any(step.primitive in (conv_, conv_input_) for step in item.instructions)
            turned = {value for value in held if len(value.shape) > 2} if is_convolution else set()
            weights |= turned
            others |= held - turned
    return {value for value in weights - others if value.kind == "state"}


def _biases(items: list[Item], needed: set[Value]) -> dict[Item, Instruction]:
    """Return for each sum that adds a vector to a product of matrices, read by it alone, that product."""
    readers: dict[Value, list[Item]] = {}
    for item in items:
        if any(value in needed for value in item.outputs):
            for value in item.inputs:
                readers.setdefault(value, []).append(item)
    products = {
        item.output: item
        for item in items
        if isinstance(item, Instruction)
        and item.primitive is matmul_
        and all(len(value.shape) == 2 for value in item.inputs)
        and item.output.dtype.kind == "f"
    }
    found: dict[Item, Instruction] = {}
    for item in items:
        if not isinstance(item, Instruction) or item.primitive is not add:
            continue
        for product, bias in (item.inputs, item.inputs[::-1]):
            fits = product in products and bias.shape == product.shape[-1:] and bias.dtype == product.dtype
            if fits and readers.get(product) == [item]:
                found[item] = products[product]
                break
    return found
