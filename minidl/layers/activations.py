"""Activation functions as Layers."""

from __future__ import annotations

from minidl.creation import full
from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.primitives import elementwise, reduction
from minidl.primitives.activations import elu, gelu, leaky_relu, silu
from minidl.tensor import Parameter, Tensor


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


class Softplus(Layer):
    """log(1 + exp(x)), element by element."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        return elementwise.softplus(x)


class GELU(Layer):
    """x times the probability of a normal number below x, element by element (Hendrycks & Gimpel, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        return gelu(x)


class SiLU(Layer):
    """x * sigmoid(x), element by element; also called swish."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        return silu(x)


class LeakyReLU(Layer):
    """x where it is positive, and slope * x elsewhere, element by element.

    Parameters
    ----------
    slope : the slope for negative x
    """

    def __init__(self, slope: float = 0.01):
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        return leaky_relu(x, self.slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return str(self.slope)


class ELU(Layer):
    """x where it is positive, and alpha * (exp(x) - 1) elsewhere, element by element (Clevert et al., 2016).

    Parameters
    ----------
    alpha : the limit for negative x is -alpha
    """

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        return elu(x, self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return str(self.alpha)


class PReLU(Layer):
    """x where it is positive, and slope * x elsewhere, with slopes that train (He et al., 2015).

    Parameters
    ----------
    features : the length of the last axis, for a slope for each; by default one slope is for all
    initial_slope : what the slopes are to begin with

    Attributes
    ----------
    slope : Parameter (features,) or (1,), without L2 regularisation
    """

    def __init__(self, features: int = 1, initial_slope: float = 0.25):
        self.features = features
        self.slope = Parameter(full(features, initial_slope))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x."""
        check_input(self, x, (...,) if self.features == 1 else (..., self.features), like=self.slope)
        return elementwise.where(x > 0, x, self.slope * x)

    def extra_repr(self) -> str:
        """Return the number of slopes."""
        return str(self.features)
