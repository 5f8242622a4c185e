"""Normalisation, with and without running state."""

import numpy

import minidl as dl
from tests.checks.zoo.registry import right, weight


class OwnBatchNorm(dl.Layer):
    def __init__(self, features, momentum=0.1):
        self.gain, self.offset = dl.Parameter(dl.ones(features)), dl.Parameter(dl.zeros(features))
        self.mean, self.variance = dl.zeros(features), dl.ones(features)
        self.momentum = momentum

    def forward(self, x):
        if self.training:
            mean, variance = x.mean(axis=0), x.var(axis=0)
            m = self.momentum
            self.mean.assign((1 - m) * self.mean + m * mean.detach())
            self.variance.assign((1 - m) * self.variance + m * variance.detach())
        else:
            mean, variance = self.mean, self.variance
        return (x - mean) / dl.sqrt(variance + 1e-3) * self.gain + self.offset


@right((5,))
def batch_norm(seed):
    return OwnBatchNorm(5)


class OwnLayerNorm(dl.Layer):
    def __init__(self, features):
        self.gain, self.offset = dl.Parameter(dl.ones(features)), dl.Parameter(dl.zeros(features))

    def forward(self, x):
        centered = x - x.mean(axis=-1, keepdims=True)
        variance = (centered * centered).mean(axis=-1, keepdims=True)
        return centered / dl.sqrt(variance + 1e-5) * self.gain + self.offset


@right((6,))
def layer_norm(seed):
    return OwnLayerNorm(6)


class OwnRMSNorm(dl.Layer):
    def __init__(self, features):
        self.gain = dl.Parameter(dl.ones(features))

    def forward(self, x):
        return x / dl.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * self.gain


@right((3, 6))
def rms_norm(seed):
    return OwnRMSNorm(6)


class InstanceNorm(dl.Layer):
    def __init__(self, channels):
        self.gain, self.offset = dl.Parameter(dl.ones(channels)), dl.Parameter(dl.zeros(channels))

    def forward(self, x):
        mean = x.mean(axis=(1, 2), keepdims=True)
        variance = x.var(axis=(1, 2), keepdims=True)
        return (x - mean) / dl.sqrt(variance + 1e-3) * self.gain + self.offset


@right((4, 4, 2))
def instance_norm(seed):
    return InstanceNorm(2)


class WeightNorm(dl.Layer):
    def __init__(self, inside, outside, rng):
        self.direction = weight(rng, inside, outside)
        self.size = dl.Parameter(dl.ones(outside))
        self.bias = dl.Parameter(dl.zeros(outside))

    def forward(self, x):
        length = dl.sqrt((self.direction * self.direction).sum(axis=0))
        return x @ (self.direction * (self.size / length)) + self.bias


@right((5,))
def weight_norm(seed):
    return WeightNorm(5, 4, numpy.random.default_rng(seed))


class SpectralNorm(dl.Layer):
    """Divides a weight by an estimate of its largest singular value, one step of power iteration a call."""

    def __init__(self, inside, outside, rng):
        self.weight = weight(rng, inside, outside)
        self.u = dl.tensor(rng.normal(size=outside).astype("float32"))

    def forward(self, x):
        w = self.weight.detach()
        v = w @ self.u
        v = v / dl.sqrt((v * v).sum() + 1e-12)
        u = v @ w
        u = u / dl.sqrt((u * u).sum() + 1e-12)
        if self.training:
            self.u.assign(u)
        sigma = v @ self.weight @ u
        return x @ (self.weight / sigma)


@right((4,), skip={"gradients agree": "spectral norm: the singular vectors count as constants"})
def spectral_norm(seed):
    return SpectralNorm(4, 3, numpy.random.default_rng(seed))


class FilterResponseNorm(dl.Layer):
    def __init__(self, channels):
        self.gain, self.offset = dl.Parameter(dl.ones(channels)), dl.Parameter(dl.zeros(channels))
        self.threshold = dl.Parameter(dl.zeros(channels))

    def forward(self, x):
        energy = (x * x).mean(axis=(1, 2), keepdims=True)
        return dl.maximum(x / dl.sqrt(energy + 1e-6) * self.gain + self.offset, self.threshold)


@right((3, 3, 2))
def filter_response_norm(seed):
    return FilterResponseNorm(2)


class Whitening(dl.Layer):
    """Divides by running second moments, which it counts in training, with a correction of their "
    "start at 0."""

    def __init__(self, features):
        self.second, self.steps = dl.zeros(features), dl.zeros(())
        self.bias = dl.Parameter(dl.zeros(features))

    def forward(self, x):
        corrected = self.second / dl.maximum(1 - 0.9**self.steps, 1e-3)
        if self.training:
            self.steps.assign(self.steps + 1)
            self.second.assign(0.9 * self.second + 0.1 * (x * x).mean(axis=0).detach())
        return x / dl.sqrt(corrected + 1e-2) + self.bias


@right((4,))
def whitening(seed):
    return Whitening(4)
