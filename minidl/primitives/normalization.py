"""Normalisation: activations shifted and scaled to mean 0 and variance 1, over one set of axes or another."""

from __future__ import annotations

from typing import Any

from minidl.primitives.axes import Axes
from minidl.primitives.elementwise import sqrt
from minidl.primitives.reduction import mean
from minidl.primitives.shape import reshape
from minidl.tensor import Tensor, as_tensors


def layer_norm(x: Any, gain: Any = None, bias: Any = None, axis: Axes = -1, epsilon: float = 1e-5) -> Tensor:
    """Return (x - mean) / sqrt(variance + epsilon), over the axes (Ba, Kiros & Hinton, 2016).

    Parameters
    ----------
    gain, bias : what the result is multiplied by, and what is added then; of a shape that broadcasts to x
    axis : the axes over which mean and (biased) variance are taken; the last one by default
    """
    (x,) = as_tensors((x,))
    deviation = x - mean(x, axis, keepdims=True)
    variance = mean(deviation * deviation, axis, keepdims=True)
    return scale_and_shift(deviation / sqrt(variance + epsilon), gain, bias)


def rms_norm(x: Any, gain: Any = None, axis: Axes = -1, epsilon: float = 1e-5) -> Tensor:
    """Return x / sqrt(mean(x^2) + epsilon), over the axes, times the gain (Zhang & Sennrich, 2019)."""
    (x,) = as_tensors((x,))
    return scale_and_shift(x / sqrt(mean(x * x, axis, keepdims=True) + epsilon), gain, None)


def group_norm(x: Any, groups: int, gain: Any = None, bias: Any = None, epsilon: float = 1e-5) -> Tensor:
    """Return x (batch, ..., channels), normalised over each group of channels and all middle axes.

    As many groups as channels are instance normalisation, one group is layer normalisation over all axes but
    the first (Wu & He, 2018). ``gain`` and ``bias`` are (channels,).

    Raises
    ------
    ValueError
        The channels cannot be cut into groups of one size.
    """
    (x,) = as_tensors((x,))
    if groups < 1 or x.ndim < 2 or x.shape[-1] % groups:
        raise ValueError(f"group_norm: an input of shape {x.shape} cannot be cut into {groups} groups")
    parts = reshape(x, (*x.shape[:-1], groups, x.shape[-1] // groups))
    over = tuple(i for i in range(1, parts.ndim) if i != parts.ndim - 2)
    return scale_and_shift(reshape(layer_norm(parts, axis=over, epsilon=epsilon), x.shape), gain, bias)


def batch_norm(
    x: Any, mean: Any, variance: Any, gain: Any = None, bias: Any = None, epsilon: float = 1e-5
) -> Tensor:
    """Return (x - mean) / sqrt(variance + epsilon), with one mean and variance for each channel.

    This is batch normalisation in evaluation (Ioffe & Szegedy, 2015); `BatchNorm` keeps the statistics.
    All but x are (channels,).
    """
    scale = 1 / sqrt(variance + epsilon)
    return scale_and_shift(x - mean, scale if gain is None else gain * scale, bias)


def scale_and_shift(x: Any, gain: Any, bias: Any) -> Tensor:
    """Return x * gain + bias; what is None is left out."""
    x = x if gain is None else x * gain
    result: Tensor = x if bias is None else x + bias
    return result
