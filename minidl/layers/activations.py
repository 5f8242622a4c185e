"""Activation functions as Layers."""

from __future__ import annotations

from minidl.layers.layer import Layer
from minidl.primitives import elementwise, reduction
from minidl.tensor import Tensor


class ReLU(Layer):
    """max(x, 0), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, in the shape of x."""
        return elementwise.relu(x)


class Sigmoid(Layer):
    """1 / (1 + exp(-x)), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, in the shape of x."""
        return elementwise.sigmoid(x)


class Tanh(Layer):
    """The hyperbolic tangent, element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, in the shape of x."""
        return elementwise.tanh(x)


class Softmax(Layer):
    """exp(x) / sum(exp(x)) along an axis.

    Parameters
    ----------
    axis : the axis along which the outputs sum to 1
    """

    def __init__(self, axis: int = -1):
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, in the shape of x."""
        return reduction.softmax(x, self.axis)

    def extra_repr(self) -> str:
        """Return the axis, unless it is the last one."""
        return "" if self.axis == -1 else f"axis={self.axis}"
