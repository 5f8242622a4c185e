"""Convolutions as Layers: a window of weights slides over the middle axes of (batch, ..., channels)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from minidl.initializers import Initializer, initial_parameter
from minidl.layers.layer import Layer
from minidl.layers.sizes import may_be_open
from minidl.layers.validation import check_input
from minidl.primitives.convolution import conv1d, conv2d, conv_transpose2d
from minidl.primitives.windows import Padding, PerAxis, per_axis, require_padding
from minidl.random.generator import Generator, as_generator
from minidl.tensor import Tensor


class _Convolution(Layer):
    """What all convolutions share; a subclass names its middle axes and its function."""

    axes: ClassVar[tuple[str, ...]]
    function: ClassVar[Callable[..., Tensor]]

    @may_be_open("in_channels")
    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = "valid",
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        weight_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        seed: int | Generator | None = None,
    ):
        assert in_channels is not None  # see may_be_open
        name, axes = type(self).__name__, len(self.axes)
        if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name} needs channels of which {groups} groups can be made, "
                f"got {in_channels} in, {out_channels} out"
            )
        generator = as_generator(seed)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_axis(kernel_size, axes, f"{name}: kernel_size")
        self.stride = per_axis(stride, axes, f"{name}: stride")
        self.padding = require_padding(padding, axes, name)
        self.dilation = per_axis(dilation, axes, f"{name}: dilation")
        self.groups = groups
        self.weight = initial_parameter(weight_initializer, self._weight_shape(), generator)
        self.bias = initial_parameter(bias_initializer, (out_channels,), generator) if bias else None

    def _weight_shape(self) -> tuple[int, ...]:
        return (*self.kernel_size, self.in_channels // self.groups, self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, ..., out_channels) from (batch, ..., in_channels)."""
        check_input(self, x, ("batch", *self.axes, self.in_channels), like=self.weight)
        y = type(self).function(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return the sizes, and what is not the default."""
        text = f"{self.in_channels}, {self.out_channels}, {_short(self.kernel_size)}"
        for name, usual in (("stride", 1), ("padding", "valid"), ("dilation", 1), ("groups", 1)):
            value = _short(getattr(self, name))
            text += "" if value == usual else f", {name}={value!r}"
        return text + (", bias=False" if self.bias is None else "")


def _short(numbers: Any) -> Any:
    if not isinstance(numbers, tuple):
        return numbers
    return numbers[0] if len(set(numbers)) == 1 and isinstance(numbers[0], int) else numbers


class Conv1D(_Convolution):
    """A convolution along time: (batch, time, in_channels) to (batch, count, out_channels).

    Parameters and attributes are those of Conv2D; ``weight`` is (kernel_size, in_channels / groups,
    out_channels). For a causal convolution, pass ``padding=[(dilation * (kernel_size - 1), 0)]``.
    """

    axes = ("time",)
    function = staticmethod(conv1d)


class Conv2D(_Convolution):
    """A convolution: ``conv2d(x, weight) + bias`` for x (batch, height, width, in_channels).

    Parameters
    ----------
    in_channels, out_channels : lengths of the last axis of input and output; ``in_channels`` may be None
        until ``initialize(sample)``
    kernel_size : the (height, width) of the window, or one number for both
    stride : how far apart windows start
    padding : ``"valid"``, ``"same"`` (ceil(length / stride) windows; of an odd border, the larger half comes
        below and on the right), an integer, or an integer or pair (before, after) for each axis
    dilation : how far apart the elements of one window lie
    groups : the number of groups that the channels are cut into, each with output channels of its own
    bias : whether there is a bias
    weight_initializer, bias_initializer, seed : as for Dense

    Attributes
    ----------
    weight : Parameter (height, width, in_channels / groups, out_channels)
    bias : Parameter (out_channels,), without L2 regularisation; or None
    """

    axes = ("height", "width")
    function = staticmethod(conv2d)


class ConvTranspose2D(_Convolution):
    """A transposed convolution, the adjoint of Conv2D: with a stride, it makes images larger.

    The result's lengths are (length - 1) * stride + (kernel_size - 1) * dilation + 1, less the border that
    ``padding`` cuts off; with ``padding="same"`` they are length * stride. Parameters are those of Conv2D.

    Attributes
    ----------
    weight : Parameter (height, width, out_channels / groups, in_channels)
    bias : Parameter (out_channels,), without L2 regularisation; or None
    """

    axes = ("height", "width")
    function = staticmethod(conv_transpose2d)

    def _weight_shape(self) -> tuple[int, ...]:
        return (*self.kernel_size, self.out_channels // self.groups, self.in_channels)


class DepthwiseConv2D(Conv2D):
    """A convolution of each channel by itself: Conv2D with as many groups as channels.

    Parameters
    ----------
    channels : the length of the last axis of the input
    multiplier : how many output channels each channel has
    kernel_size, stride, padding, dilation, bias, weight_initializer, bias_initializer, seed : as for Conv2D

    Attributes
    ----------
    weight : Parameter (height, width, 1, channels * multiplier)
    """

    @may_be_open("channels")
    def __init__(
        self,
        channels: int | None,
        kernel_size: PerAxis,
        multiplier: int = 1,
        stride: PerAxis = 1,
        padding: Padding = "valid",
        dilation: PerAxis = 1,
        **options: Any,
    ):
        assert channels is not None  # see may_be_open
        super().__init__(
            channels,
            channels * multiplier,
            kernel_size,
            stride,
            padding,
            dilation,
            groups=channels,
            **options,
        )
        self.multiplier = multiplier

    def extra_repr(self) -> str:
        """Return the sizes, and what is not the default."""
        if self.unset is not None:
            return f"None, {self.kernel_size}"
        _, _, rest = super().extra_repr().split(", ", 2)
        rest = rest.replace(f", groups={self.groups}", "")
        return f"{self.in_channels}, {rest}" + (
            "" if self.multiplier == 1 else f", multiplier={self.multiplier}"
        )
