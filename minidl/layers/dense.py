"""Dense: the fully connected layer."""

from __future__ import annotations

import math

from minidl.errors import DeviceError
from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor


class Dense(Layer):
    """A fully connected layer: ``x @ weight + bias``.

    Parameters
    ----------
    in_features, out_features : lengths of the last axis of input and output
    bias : whether there is a bias
    weight_initializer, bias_initializer : a name from `minidl.initializers` or a function
        ``(shape, numpy_generator) -> array``
    seed : an integer, a Generator (which several layers may share) or None

    Attributes
    ----------
    weight : Parameter (in_features, out_features)
    bias : Parameter (out_features,), without L2 regularisation; or None
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        weight_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        seed: int | Generator | None = None,
    ):
        if in_features < 1 or out_features < 1:
            raise ValueError(
                f"Dense needs at least one feature on each side, got {in_features}, {out_features}"
            )
        generator = as_generator(seed)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = initial_parameter(weight_initializer, (in_features, out_features), generator)
        self.bias = initial_parameter(bias_initializer, (out_features,), generator) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute (..., out_features) from (..., in_features), both of the dtype of the weight."""
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ValueError(self._wrong_shape(x.shape))
        if x.dtype != self.weight.dtype:
            raise TypeError(
                f"{self!r} computes in {self.weight.dtype}; got {x.dtype}: "
                f"convert the input with .astype({self.weight.dtype.name!r})"
            )
        if x.device != self.weight.device:
            raise DeviceError(
                f"{self!r} is on {self.weight.device}; got an input on {x.device}: "
                f"move one of them with .to({self.weight.device!r}) or .to({x.device!r})"
            )
        product = x @ self.weight
        return product if self.bias is None else product + self.bias

    def _wrong_shape(self, shape: tuple[int, ...]) -> str:
        message = f"{self!r} takes inputs (batch, {self.in_features}); got {shape}"
        if shape == (self.in_features,):
            return f"{message}: add a batch axis with .reshape(1, {self.in_features})"
        if len(shape) > 2 and math.prod(shape[1:]) == self.in_features:
            return f"{message}: add Flatten() before it"
        return message

    def settings(self) -> str:
        """Return the sizes, and that there is no bias if so."""
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")
