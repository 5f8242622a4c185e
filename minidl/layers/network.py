"""Network: Layers one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minidl.layers.layer import Layer


class Network(Layer):
    """A sequence of Layers that is a Layer itself, so networks nest to any depth.

    The output of each Layer is the input of the next; a tuple becomes several inputs. A Network
    is indexed, sliced and iterated like a list; a slice shares its Layers with the whole.

    Parameters
    ----------
    layers : Layers, or functions of Tensors such as ``minidl.relu``
    """

    def __init__(self, layers: Iterable[Any]):
        self.layers = list(layers)
        for i, layer in enumerate(self.layers):
            if not callable(layer):
                raise TypeError(f"Network: entry {i} is no Layer or function, but {type(layer).__name__}")

    def members(self) -> dict[str, Any]:
        """Return the Layers by their positions, and attributes that were added to the Network."""
        added = {name: value for name, value in vars(self).items() if name != "layers"}
        return {str(i): layer for i, layer in enumerate(self.layers)} | added

    def forward(self, *inputs: Any) -> Any:
        """Compute the output of the last Layer."""
        for layer in self.layers:
            outputs = layer(*inputs)
            inputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return inputs if len(inputs) > 1 else inputs[0]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self.layers[index]
        part = Network(self.layers[index])
        part.training = self.training
        return part
