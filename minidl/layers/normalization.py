"""Normalisation layers: activations are shifted and scaled to mean 0 and variance 1."""

from __future__ import annotations

from minidl.creation import ones, zeros
from minidl.distributed.share import batch_mean, batch_size
from minidl.layers.layer import Layer
from minidl.layers.sizes import may_be_open
from minidl.layers.validation import check_input
from minidl.primitives.normalization import batch_norm, group_norm, layer_norm, rms_norm
from minidl.tensor import Parameter, Tensor


class BatchNorm(Layer):
    """Batch normalisation (Ioffe & Szegedy, 2015): each channel has mean 0 and variance 1 over the batch.

    In training, mean and variance are those of the mini-batch, over all axes but the last, and the running
    ones move towards them: ``running = (1 - momentum) * running + momentum * batch``. In evaluation, the
    running ones are used. The normalisation takes the biased variance (divided by the count), the running
    one is unbiased (divided by the count - 1), as in PyTorch. Keras's momentum is 1 minus this one. Where
    several processes share a mini-batch, mean and variance are those of the whole.

    Parameters
    ----------
    features : the length of the last axis; it may be None until ``initialize(sample)``
    momentum : how far the running statistics move at each step, 0 < momentum <= 1
    epsilon : added to the variance, so that equal values can be divided

    Attributes
    ----------
    gain, bias : Parameters (features,), without L2 regularisation, that scale and shift the result
    running_mean, running_variance : state Tensors (features,)
    """

    @may_be_open("features")
    def __init__(self, features: int | None, momentum: float = 0.1, epsilon: float = 1e-5):
        assert features is not None  # see may_be_open
        _require_features("BatchNorm", features)
        if not 0 < momentum <= 1:
            raise ValueError(f"BatchNorm: momentum must be above 0 and at most 1, got {momentum}")
        self.features = features
        self.momentum = momentum
        _require_epsilon(type(self).__name__, epsilon)
        self.epsilon = epsilon
        self.gain, self.bias = Parameter(ones(features)), Parameter(zeros(features))
        self.running_mean, self.running_variance = zeros(features), ones(features)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x (batch, ..., features)."""
        check_input(self, x, ("batch", ..., self.features), like=self.gain)
        if not self.training:
            return batch_norm(x, self.running_mean, self.running_variance, self.gain, self.bias, self.epsilon)
        count = batch_size(x) * (x.size // max(len(x), 1)) // self.features
        if count < 2:
            raise ValueError(
                f"{self!r} needs at least two values of each channel in training, got an input of shape "
                f"{x.shape}: make the mini-batch larger, or switch to evaluation with .eval()"
            )
        axes = tuple(range(x.ndim - 1))
        center = batch_mean(x, axes)
        variance = batch_mean((x - center) ** 2, axes)
        self._move(self.running_mean, center.detach())
        self._move(self.running_variance, variance.detach() * (count / (count - 1)))
        return batch_norm(x, center, variance, self.gain, self.bias, self.epsilon)

    def _move(self, running: Tensor, batch: Tensor) -> None:
        running.assign((1 - self.momentum) * running + self.momentum * batch)

    def extra_repr(self) -> str:
        """Return the number of features, and what is not the default."""
        text = "" if self.momentum == 0.1 else f", momentum={self.momentum}"
        return f"{self.features}{text}{_epsilon(self)}"


class LayerNorm(Layer):
    """Layer normalisation: each observation has mean 0 and variance 1 over its features.

    Parameters
    ----------
    features : the length of the last axis; it may be None until ``initialize(sample)``
    epsilon : added to the variance
    bias : whether there is a bias

    Attributes
    ----------
    gain, bias : Parameters (features,), without L2 regularisation; the bias may be None
    """

    @may_be_open("features")
    def __init__(self, features: int | None, epsilon: float = 1e-5, bias: bool = True):
        assert features is not None  # see may_be_open
        _require_features("LayerNorm", features)
        self.features = features
        _require_epsilon(type(self).__name__, epsilon)
        self.epsilon = epsilon
        self.gain = Parameter(ones(features))
        self.bias = Parameter(zeros(features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x (batch, ..., features)."""
        check_input(self, x, ("batch", ..., self.features), like=self.gain)
        return layer_norm(x, self.gain, self.bias, epsilon=self.epsilon)

    def extra_repr(self) -> str:
        """Return the number of features, and what is not the default."""
        return f"{self.features}{_epsilon(self)}" + (", bias=False" if self.bias is None else "")


class RMSNorm(Layer):
    """Root-mean-square normalisation: ``x / sqrt(mean(x^2) + epsilon) * gain``, over the last axis.

    Parameters
    ----------
    features : the length of the last axis; it may be None until ``initialize(sample)``
    epsilon : added to the mean square

    Attributes
    ----------
    gain : Parameter (features,), without L2 regularisation
    """

    @may_be_open("features")
    def __init__(self, features: int | None, epsilon: float = 1e-5):
        assert features is not None  # see may_be_open
        _require_features("RMSNorm", features)
        self.features = features
        _require_epsilon(type(self).__name__, epsilon)
        self.epsilon = epsilon
        self.gain = Parameter(ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x (batch, ..., features)."""
        check_input(self, x, ("batch", ..., self.features), like=self.gain)
        return rms_norm(x, self.gain, epsilon=self.epsilon)

    def extra_repr(self) -> str:
        """Return the number of features, and what is not the default."""
        return f"{self.features}{_epsilon(self)}"


class GroupNorm(Layer):
    """Group normalisation: over each group of channels, and all axes between the batch and the channels.

    Parameters
    ----------
    groups : how many groups the channels are cut into
    features : the number of channels, the length of the last axis
    epsilon : added to the variance

    Attributes
    ----------
    gain, bias : Parameters (features,), without L2 regularisation
    """

    @may_be_open("features")
    def __init__(self, groups: int, features: int | None, epsilon: float = 1e-5):
        assert features is not None  # see may_be_open
        _require_features("GroupNorm", features)
        if groups < 1 or features % groups:
            raise ValueError(f"GroupNorm: {features} features cannot be cut into {groups} groups")
        self.groups = groups
        self.features = features
        _require_epsilon(type(self).__name__, epsilon)
        self.epsilon = epsilon
        self.gain, self.bias = Parameter(ones(features)), Parameter(zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output, of the shape of x (batch, ..., features)."""
        check_input(self, x, ("batch", ..., self.features), like=self.gain)
        return group_norm(x, self.groups, self.gain, self.bias, self.epsilon)

    def extra_repr(self) -> str:
        """Return the number of groups and features, and what is not the default."""
        return f"{self.groups}, {self.features}{_epsilon(self)}"


def _require_features(name: str, features: int) -> None:
    if features < 1:
        raise ValueError(f"{name} needs at least one feature, got {features}")


def _require_epsilon(name: str, epsilon: float) -> None:
    if not epsilon >= 0:
        raise ValueError(f"{name}: epsilon must not be negative, got {epsilon}")


def _epsilon(layer: BatchNorm | LayerNorm | RMSNorm | GroupNorm) -> str:
    return "" if layer.epsilon == 1e-5 else f", epsilon={layer.epsilon}"
