"""ONNX files as Layers: a Layer that runs the file's nodes, each by a function of Tensors.

What shapes are made of (Shape, constants, and what is computed from them) are NumPy arrays while the nodes
run, and everything else Tensors, so that such a network trains, compiles and is exported like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy

from minidl.interop.onnx_export import _onnx
from minidl.interop.onnx_functions import FUNCTIONS, SHAPE_FUNCTIONS
from minidl.layers.layer import Layer
from minidl.tensor import Parameter, Tensor, tensor

#: Inputs, by position, that are state and do not train: the statistics of a BatchNormalization.
_STATISTICS = {"BatchNormalization": (3, 4)}


def read_onnx(path: str | PathLike[str]) -> OnnxNetwork:
    """Return the network of an ONNX file, as a Layer in evaluation mode.

    Its Parameters are the file's arrays of floats that nodes compute with, under their names there, in ONNX's
    order of axes; images are channels first, as in the file. It can be trained, saved and exported again.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, is no ONNX file, or has operators that minidl has not: all of them are listed.
    ModuleNotFoundError
        The package onnx is not installed; the extra ``onnx`` brings it.
    """
    onnx = _onnx()
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {fspath(path)!r}")
    try:
        model = onnx.load(fspath(path))
    except Exception as error:  # damaged bytes raise errors of several libraries
        raise ValueError(f"{fspath(path)!r} is no complete ONNX file: {error}") from error
    if not (model.graph.output and model.opset_import):
        raise ValueError(f"{fspath(path)!r} is no complete ONNX file: it has no outputs")
    unknown = sorted({_operator(node) for node in model.graph.node} - FUNCTIONS.keys())
    if unknown:
        raise ValueError(f"{fspath(path)!r} has operators that minidl has not: {', '.join(unknown)}")
    network = OnnxNetwork(onnx, model)
    network.eval()
    return network


def _operator(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


class OnnxNetwork(Layer):
    """The graph of an ONNX file. Make one with `read_onnx`.

    Attributes
    ----------
    weights : the Parameters and state Tensors by their names in the file
    inputs, outputs : the names of what the graph takes and returns
    """

    def __init__(self, onnx: Any, model: Any):
        graph = model.graph
        arrays = {x.name: numpy.array(onnx.numpy_helper.to_array(x)) for x in graph.initializer}
        self.inputs = [x.name for x in graph.input if x.name not in arrays]
        self.outputs = [x.name for x in graph.output]
        self.nodes = [_Node(onnx, node) for node in graph.node]
        properties = {x.key: x.value for x in model.metadata_props}
        trained = _trained(self.nodes, arrays, properties.get("minidl.parameters"))
        statistics = _statistics(self.nodes)
        self.weights: dict[str, Tensor] = {
            name: Parameter(arrays[name]) if name in trained else tensor(arrays[name])
            for name in arrays
            if name in trained or name in statistics
        }
        self.constants = {name: x for name, x in arrays.items() if name not in self.weights}

    def members(self) -> dict[str, Any]:
        """Return the Parameters and state by their names in the file."""
        return dict(self.weights)

    def forward(self, *inputs: Any) -> Any:
        """Compute the outputs of the graph: a Tensor, or a tuple of several."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"this network takes {', '.join(self.inputs)}; got {len(inputs)} inputs")
        values: dict[str, Any] = {"": None, **self.constants, **self.weights}
        values |= dict(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            values |= zip(node.outputs, node.run([values[name] for name in node.inputs]), strict=False)
        results = tuple(_as_tensor(values[name], values[self.inputs[0]]) for name in self.outputs)
        return results[0] if len(results) == 1 else results

    def extra_repr(self) -> str:
        """Return the names of what it takes and returns, and the number of nodes."""
        return f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}: {len(self.nodes)} nodes"


class _Node:
    """One node: its operator, the names of what it takes and returns, and its attributes."""

    def __init__(self, onnx: Any, node: Any):
        self.operator = _operator(node)
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes: dict[str, Any] = {}
        for attribute in node.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, onnx.TensorProto):
                value = numpy.array(onnx.numpy_helper.to_array(value))
            elif attribute.name == "to":
                value = onnx.helper.tensor_dtype_to_np_dtype(value)
            self.attributes[attribute.name] = value

    def run(self, values: list[Any]) -> tuple[Any, ...]:
        """Return the outputs."""
        given = [value for value in values if value is not None]
        shapes_alone = not any(isinstance(value, Tensor) for value in given)
        function: Callable[..., Any] = FUNCTIONS[self.operator]
        if shapes_alone and self.operator in SHAPE_FUNCTIONS:
            function = SHAPE_FUNCTIONS[self.operator]
        try:
            results = function(*values, **self.attributes)
        except (ValueError, TypeError, NotImplementedError) as error:
            name = self.outputs[0] if self.outputs else ""
            raise ValueError(f"{self.operator} {name!r} of the ONNX file: {error}") from error
        return results if isinstance(results, tuple) else (results,)


def _as_tensor(value: Any, like: Any) -> Tensor:
    return value if isinstance(value, Tensor) else tensor(value, device=like.device)


def _statistics(nodes: list[_Node]) -> set[str]:
    return {node.inputs[i] for node in nodes for i in _STATISTICS.get(node.operator, ())}


def _trained(nodes: list[_Node], arrays: dict[str, numpy.ndarray], listed: str | None) -> set[str]:
    """Return the names of Parameters: those that a file of minidl lists, else all arrays with many floats."""
    if listed is not None:
        return {name for name in json.loads(listed) if name in arrays}
    used = {name for node in nodes if node.operator not in ("Clip", "Pad", "Resize") for name in node.inputs}
    floats = {name for name, x in arrays.items() if x.dtype.kind == "f" and x.size > 1 and name in used}
    return floats - _statistics(nodes)
