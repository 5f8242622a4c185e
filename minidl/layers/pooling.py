"""Pooling and upsampling of images (batch, height, width, channels)."""

from __future__ import annotations

from minidl.layers.layer import Layer
from minidl.layers.validation import check_input
from minidl.primitives.windows import (
    Padding,
    PerAxis,
    average_pool2d,
    global_average_pool2d,
    max_pool2d,
    per_axis,
    require_interpolation,
    require_padding,
    upsample2d,
)
from minidl.tensor import Tensor

IMAGES = ("batch", "height", "width", "channels")


class _Pooling(Layer):
    """What both poolings share."""

    def __init__(self, window: PerAxis = 2, stride: PerAxis | None = None, padding: Padding = "valid"):
        name = type(self).__name__
        self.window = per_axis(window, 2, f"{name}: window")
        self.stride = self.window if stride is None else per_axis(stride, 2, f"{name}: stride")
        self.padding = require_padding(padding, 2, name)

    def extra_repr(self) -> str:
        """Return the window, and what is not the default."""
        text = str(self.window[0] if len(set(self.window)) == 1 else self.window)
        text += "" if self.stride == self.window else f", stride={self.stride}"
        return text + ("" if self.padding == "valid" else f", padding={self.padding!r}")


class MaxPool2D(_Pooling):
    """The largest element of each window, for each channel; a border is never the largest.

    The gradient goes to the first of equal maxima, row by row.

    Parameters
    ----------
    window : the (height, width) of a window, or one number for both
    stride : how far apart windows start; by default they lie side by side
    padding : as for Conv2D
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, rows, columns, channels) from (batch, height, width, channels)."""
        check_input(self, x, IMAGES)
        return max_pool2d(x, self.window, self.stride, self.padding)


class AveragePool2D(_Pooling):
    """The mean of each window, for each channel; a border is not counted.

    Parameters
    ----------
    window, stride, padding : as for MaxPool2D
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, rows, columns, channels) from (batch, height, width, channels)."""
        check_input(self, x, IMAGES)
        return average_pool2d(x, self.window, self.stride, self.padding)


class GlobalAveragePool2D(Layer):
    """The mean of each channel over the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, channels) from (batch, height, width, channels)."""
        check_input(self, x, IMAGES)
        return global_average_pool2d(x)


class UpSample2D(Layer):
    """Enlarge images.

    Parameters
    ----------
    factor : how many times along (height, width), or one number for both
    interpolation : ``"nearest"`` repeats each pixel; ``"bilinear"`` draws lines between the centres of pixels
    """

    def __init__(self, factor: PerAxis = 2, interpolation: str = "nearest"):
        self.factor = per_axis(factor, 2, "UpSample2D: factor")
        require_interpolation("UpSample2D", interpolation)
        self.interpolation = interpolation

    def forward(self, x: Tensor) -> Tensor:
        """Compute (batch, height * factor, width * factor, channels)."""
        check_input(self, x, IMAGES)
        return upsample2d(x, self.factor, self.interpolation)

    def extra_repr(self) -> str:
        """Return the factor, and the interpolation unless it is the nearest pixel."""
        text = str(self.factor[0] if len(set(self.factor)) == 1 else self.factor)
        return text + ("" if self.interpolation == "nearest" else f", {self.interpolation!r}")
