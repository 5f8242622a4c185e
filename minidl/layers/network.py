"""Network: Layers one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minidl.layers.layer import Layer


class Network(Layer):
    """A sequence of Layers that is a Layer itself, so networks nest to any depth.

    The output of each Layer is the input of the next; a tuple becomes several inputs. A Network
    is indexed, sliced and iterated like a list; a slice shares its Layers with the whole.

    It is edited like a list, too: ``append``, ``insert``, ``network[i] = layer``, ``del network[i]``, and
    ``replace``. An optimizer holds the Parameters that were there when it was made: make another one then.

    Parameters
    ----------
    layers : Layers, or functions of Tensors such as ``minidl.relu``
    """

    def __init__(self, layers: Iterable[Any]):
        if not isinstance(layers, Iterable):
            raise TypeError(
                f"Network takes a list of Layers, got {type(layers).__name__}: write Network([...])"
            )
        self._set(list(layers))

    def _set(self, layers: list[Any]) -> None:
        """Take another list of Layers: a new one, so that compiled functions notice."""
        for i, layer in enumerate(layers):
            if isinstance(layer, type):
                raise TypeError(f"Network: entry {i} is a class: write {layer.__name__}(...)")
            if not callable(layer):
                raise TypeError(f"Network: entry {i} is no Layer or function, but {type(layer).__name__}")
        self.layers = layers

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

    # --- editing ----------------------------------------------------------------------------------

    def append(self, layer: Any) -> None:
        """Add a Layer at the end."""
        self._set([*self.layers, layer])

    def insert(self, index: int, layer: Any) -> None:
        """Add a Layer before the one at this position."""
        layers = list(self.layers)
        layers.insert(index, layer)
        self._set(layers)

    def replace(self, old: Any, *new: Any) -> None:
        """Put other Layers, one or several, wherever a Layer stands in this Network.

        Raises
        ------
        ValueError
            It does not stand in this Network; it may stand in a Network inside.
        """
        if not any(layer is old for layer in self.layers):
            raise ValueError(f"Network.replace: {old!r} is not in this Network")
        self._set([part for layer in self.layers for part in (new if layer is old else (layer,))])

    def __setitem__(self, index: int | slice, value: Any) -> None:
        layers = list(self.layers)
        layers[index] = value
        self._set(layers)

    def __delitem__(self, index: int | slice) -> None:
        layers = list(self.layers)
        del layers[index]
        self._set(layers)
