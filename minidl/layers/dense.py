"""Dense: the fully connected layer."""

from __future__ import annotations

from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.layers.sizes import may_be_open
from minidl.layers.validation import check_input
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor


class Dense(Layer):
    """A fully connected layer: ``x @ weight + bias``, for inputs (batch, ..., in_features).

    Parameters
    ----------
    in_features, out_features : lengths of the last axis of input and output; ``in_features`` may be None
        until ``initialize(sample)``
    bias : whether there is a bias
    weight_initializer, bias_initializer : a name from `minidl.initializers` or a function
        ``(shape, numpy_generator) -> array``
    seed : an integer, a Generator (which several layers may share) or None

    Attributes
    ----------
    weight : Parameter (in_features, out_features)
    bias : Parameter (out_features,), without L2 regularisation; or None
    """

    @may_be_open("in_features")
    def __init__(
        self,
        in_features: int | None,
        out_features: int,
        bias: bool = True,
        weight_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        seed: int | Generator | None = None,
    ):
        assert in_features is not None  # see may_be_open
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
        """Compute (batch, ..., out_features) from (batch, ..., in_features), in the dtype of the weight."""
        check_input(self, x, ("batch", ..., self.in_features), like=self.weight)
        y = x @ self.weight
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the sizes, and ``bias=False`` where there is none."""
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if self.bias is None else "")
