"""Layers that change the shape of each observation."""

from __future__ import annotations

import math

from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.tensor import Tensor


class Flatten(Layer):
    """Flatten each observation: (batch, ...) to (batch, features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, features) from (batch, ...)."""
        check_input(self, x, ("batch", ...))
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Reshape(Layer):
    """Give each observation another shape.

    Parameters
    ----------
    shape : the shape without the batch axis, for example ``Reshape(28, 28, 1)``, or as a tuple; one
        length may be -1
    """

    def __init__(self, *shape: int | tuple[int, ...]):
        lengths = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if not all(hasattr(type(length), "__index__") for length in lengths):
            raise TypeError(f"Reshape takes lengths, which are integers, got {shape}")
        self.shape: tuple[int, ...] = tuple(map(int, lengths))  # type: ignore[arg-type]
        if self.shape.count(-1) > 1:
            raise ValueError(f"Reshape: only one length may be -1, got {self.shape}")

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, *shape) from (batch, ...)."""
        check_input(self, x, ("batch", ...))
        size = math.prod(x.shape[1:])
        known = math.prod(length for length in self.shape if length != -1)
        fits = known == size or (-1 in self.shape and known and size % known == 0)
        if not fits:
            raise ValueError(f"{self!r} takes inputs (batch, ...) with {known} values each; got {x.shape}")
        return x.reshape(x.shape[0], *(size // known if length == -1 else length for length in self.shape))

    def extra_repr(self) -> str:
        """Return the shape."""
        return ", ".join(map(str, self.shape))
