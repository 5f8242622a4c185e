"""Embedding: a vector for each of many things, such as words."""

from __future__ import annotations

import numpy

from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.primitives.shape import expand_dims
from minidl.random.generator import Generator
from minidl.tensor import Tensor
from minidl.value_checks import check_values


class Embedding(Layer):
    """The row of a table for each index: ``weight[x]``.

    Parameters
    ----------
    count : how many rows there are; indices are 0 to count - 1
    features : the length of a row
    padding_index : an index whose vector is 0, whatever its row holds, and whose row gets no gradient
    weight_initializer : a name from `minidl.initializers` or a function ``(shape, numpy_generator) -> array``
    seed : an integer, a Generator or None

    Attributes
    ----------
    weight : Parameter (count, features)
    """

    def __init__(
        self,
        count: int,
        features: int,
        padding_index: int | None = None,
        weight_initializer: str | Initializer = "narrow_normal",
        seed: int | Generator | None = None,
    ):
        if count < 1 or features < 1:
            raise ValueError(f"Embedding needs at least one row and one feature, got {count}, {features}")
        if padding_index is not None and not 0 <= padding_index < count:
            raise ValueError(f"Embedding: padding_index must be in 0 .. {count - 1}, got {padding_index}")
        self.count = count
        self.features = features
        self.padding_index = padding_index
        self.weight = initial_parameter(weight_initializer, (count, features), seed)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (..., features) from integers (...).

        Raises
        ------
        ValueError
            An index is not in 0 .. count - 1 (checked on the CPU); the message says where.
        """
        check_input(self, x, (...,), like=self.weight, kinds="iu")
        self._check_range(x)
        vectors = self.weight[x]
        if self.padding_index is None:
            return vectors
        result: Tensor = vectors * expand_dims(x != self.padding_index, -1)
        return result

    def _check_range(self, x: Tensor) -> None:
        def holds(array: numpy.ndarray) -> bool:
            return not array.size or bool(array.min() >= 0 and array.max() < self.count)

        def message(array: numpy.ndarray) -> str:
            place = tuple(map(int, numpy.argwhere((array < 0) | (array >= self.count))[0]))
            return f"{self!r} takes indices in 0 .. {self.count - 1}; got {array[place]} at position {place}"

        check_values(x, holds, message)

    def extra_repr(self) -> str:
        """Return the sizes, and the padding index if there is one."""
        padding = "" if self.padding_index is None else f", padding_index={self.padding_index}"
        return f"{self.count}, {self.features}{padding}"
