"""Dropout and its relatives, penalties, and deliberate gradients."""

import numpy

import minidl as dl
from minidl.primitives.primitive import elementwise
from tests.checks.mistakes import named
from tests.checks.zoo.registry import right, weight


class OwnDropout(dl.Layer):
    def __init__(self, probability, seed):
        self.probability, self.generator = probability, dl.Generator(seed)

    def forward(self, x):
        if not self.training:
            return x
        kept = dl.random.bernoulli(1 - self.probability, x.shape, generator=self.generator)
        return x * kept / (1 - self.probability)


@right((4,))
def dropout(seed):
    return OwnDropout(0.4, seed)


class DropConnect(dl.Layer):
    def __init__(self, inside, outside, probability, seed):
        self.dense = dl.Dense(inside, outside, seed=seed)
        self.probability, self.generator = probability, dl.Generator(seed)

    def forward(self, x):
        w = self.dense.weight
        if self.training:
            kept = dl.random.bernoulli(1 - self.probability, w.shape, generator=self.generator)
            w = w * kept / (1 - self.probability)
        return x @ w + self.dense.bias


@right((4,))
def drop_connect(seed):
    return DropConnect(4, 3, 0.5, seed)


class StochasticDepth(dl.Layer):
    """Leaves a branch out at random while training: its gradient is then 0."""

    def __init__(self, inner, survival, seed):
        self.inner, self.survival, self.generator = inner, survival, dl.Generator(seed)

    def forward(self, x):
        y = self.inner(x)
        if self.training:
            kept = dl.random.bernoulli(self.survival, (), generator=self.generator)
            return x + y * kept / self.survival
        return x + y


@right((3,))
def stochastic_depth(seed):
    return StochasticDepth(dl.Network([dl.Dense(3, 3, seed=seed), dl.Tanh()]), 0.5, seed)


class GaussianNoise(dl.Layer):
    def __init__(self, deviation, seed):
        self.deviation, self.generator = deviation, dl.Generator(seed)

    def forward(self, x):
        if not self.training:
            return x
        noise = dl.random.normal(x.shape, dtype=x.dtype, device=x.device, generator=self.generator)
        return x + self.deviation * noise


@right((2, 3))
def gaussian_noise(seed):
    return GaussianNoise(0.2, seed)


class SharedNoise(dl.Layer):
    """Draws from the Generator that all share, as dl.random does by default."""

    def forward(self, x):
        if self.training:
            return x * (1 + 0.1 * dl.random.normal(x.shape, dtype=x.dtype))
        return x


@right((3,))
def shared_noise(seed):
    return SharedNoise()


class StraightThrough(dl.Layer):
    """Rounds, and lets gradients pass."""

    def __init__(self, inside, outside, seed):
        self.dense = dl.Dense(inside, outside, seed=seed)

    def forward(self, x):
        y = dl.sigmoid(self.dense(x)) * 7
        return y + (dl.round(y) - y).detach()


@right((3,), skip={"gradients agree": "straight-through: rounding passes gradients on"})
def straight_through(seed):
    return StraightThrough(3, 4, seed)


class Reversal(dl.Layer):
    """Turns the gradient of a domain classifier around (Ganin, 2015)."""

    def __init__(self, inside, hidden, seed):
        self.features, self.domain = dl.Dense(inside, hidden, seed=seed), dl.Dense(hidden, 1, seed=seed + 1)
        self.label = dl.Dense(hidden, 2, seed=seed + 2)
        self.reverse = elementwise(
            named("reverse"),
            lambda xp, x, out=None: xp.add(x, 0, out=out),
            gradients=(lambda g, out, x: -g,),
        )

    def forward(self, x):
        h = dl.tanh(self.features(x))
        return self.label(h), self.domain(self.reverse(h))


@right((3,), skip={"gradients agree": "reversal: the features are to confuse the domain classifier"})
def gradient_reversal(seed):
    return Reversal(3, 3, seed)


class FrozenBackbone(dl.Layer):
    def __init__(self, inside, hidden, outside, seed):
        self.backbone = dl.Network([dl.Dense(inside, hidden, seed=seed), dl.ReLU()])
        for p in self.backbone.parameters():
            p.requires_grad = False
        self.head = dl.Dense(hidden, outside, seed=seed + 1)

    def forward(self, x):
        return self.head(self.backbone(x))


@right((3,))
def frozen_backbone(seed):
    return FrozenBackbone(3, 4, 2, seed)


class DetachedBackbone(dl.Layer):
    def __init__(self, inside, hidden, outside, seed):
        self.backbone, self.head = dl.Dense(inside, hidden, seed=seed), dl.Dense(hidden, outside, seed=seed)

    def forward(self, x):
        with dl.no_grad():
            h = dl.tanh(self.backbone(x))
        return self.head(h)


@right((3,), skip={"gradients": "the backbone is frozen"})
def detached_backbone(seed):
    return DetachedBackbone(3, 4, 2, seed)


class ActivityPenalty(dl.Layer):
    """Returns a penalty beside the output."""

    def __init__(self, inside, outside, strength, seed):
        self.dense, self.strength = dl.Dense(inside, outside, seed=seed), strength

    def forward(self, x):
        y = dl.relu(self.dense(x))
        return y, self.strength * abs(y).mean()


@right((3,))
def activity_penalty(seed):
    return ActivityPenalty(3, 4, 0.1, seed)


class AuxiliaryHead(dl.Layer):
    """Has a second output while training."""

    def __init__(self, inside, hidden, outside, seed):
        self.first, self.second = dl.Dense(inside, hidden, seed=seed), dl.Dense(hidden, outside, seed=seed)
        self.auxiliary = dl.Dense(hidden, outside, seed=seed + 1)

    def forward(self, x):
        h = dl.tanh(self.first(x))
        if self.training:
            return self.second(h), self.auxiliary(h)
        return self.second(h)


@right((3,))
def auxiliary_head(seed):
    return AuxiliaryHead(3, 4, 2, seed)


class Mixed(dl.Layer):
    """Mixes observations while training (mixup), by a permutation that is drawn."""

    def __init__(self, inside, outside, seed):
        self.dense, self.generator = dl.Dense(inside, outside, seed=seed), dl.Generator(seed)

    def forward(self, x):
        if self.training:
            share = dl.random.uniform((), 0.5, 1.0, dtype=x.dtype, generator=self.generator)
            order = dl.random.permutation(x.shape[0], generator=self.generator)
            x = share * x + (1 - share) * x[order]
        return self.dense(x)


@right((3,))
def mixup(seed):
    return Mixed(3, 2, seed)


class WarmUp(dl.Layer):
    """Lets a branch in slowly, by a count of steps that is state."""

    def __init__(self, inside, seed):
        self.dense, self.steps = dl.Dense(inside, inside, seed=seed), dl.zeros(())
        self.length = 5.0

    def forward(self, x):
        if self.training:
            self.steps.assign(self.steps + 1)
        return x + dl.minimum(self.steps / self.length, 1.0) * self.dense(x)


@right((3,))
def warm_up(seed):
    return WarmUp(3, seed)


class SampledTemperature(dl.Layer):
    def __init__(self, inside, outside, rng):
        self.weight = weight(rng, inside, outside)
        self.log_temperature = dl.Parameter(dl.zeros(()))

    def forward(self, x):
        return dl.log_softmax((x @ self.weight) * dl.exp(-self.log_temperature))


@right((3,))
def temperature(seed):
    return SampledTemperature(3, 4, numpy.random.default_rng(seed))
