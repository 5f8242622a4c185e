"""Further layers, of other kinds: with caches, counters, memories, several inputs, algorithms."""

from typing import NamedTuple

import numpy

import minidl as dl
from minidl.primitives.primitive import Primitive
from tests.checks.mistakes import named
from tests.checks.zoo.registry import right, weight


class Teacher(dl.Layer):
    """Keeps a slow average of its weight, and predicts with that."""

    def __init__(self, inside, outside, rng):
        self.weight = weight(rng, inside, outside)
        self.slow = dl.tensor(self.weight.numpy())

    def forward(self, x):
        if self.training:
            self.slow.assign(0.9 * self.slow + 0.1 * self.weight.detach())
            return x @ self.weight
        return x @ self.slow + 0 * (x @ self.weight)


@right((3,))
def teacher(seed):
    return Teacher(3, 2, numpy.random.default_rng(seed))


class Observer(dl.Layer):
    """Scales by the largest number seen while training."""

    def __init__(self, inside, outside, seed):
        self.dense, self.largest = dl.Dense(inside, outside, seed=seed), dl.zeros(())

    def forward(self, x):
        y = self.dense(x)
        scale = dl.maximum(self.largest, 0.1)
        if self.training:
            self.largest.assign(dl.maximum(self.largest, abs(y.detach()).max()))
        return y / scale


@right((3,))
def observer(seed):
    return Observer(3, 2, seed)


class Memory(dl.Layer):
    """Attends to a ring of the latest keys, which training writes."""

    def __init__(self, features, places, rng):
        self.project = weight(rng, features, features)
        self.keys = dl.tensor(rng.normal(size=(places, features)).astype("float32"))

    def forward(self, x):
        q = x @ self.project
        keys = self.keys.copy()
        if self.training:
            self.keys.assign(dl.concatenate([self.keys[1:], q.detach().mean(axis=0, keepdims=True)]))
        return dl.softmax(q @ keys.T, axis=-1) @ keys


@right((3,))
def memory(seed):
    return Memory(3, 5, numpy.random.default_rng(seed))


class Positions(dl.Layer):
    """Adds fixed positions, kept for each length; counts its calls; keeps its latest result to look at."""

    def __init__(self, features, rng):
        self.scale = weight(rng, features)
        self.tables, self.calls, self.latest = {}, 0, None

    def forward(self, x):
        self.calls += 1
        n, f = x.shape[1:]
        if n not in self.tables:
            self.tables[n] = numpy.sin(numpy.arange(n)[:, None] / 10 ** numpy.arange(f)).astype("float32")
        y = x * self.scale + dl.tensor(self.tables[n], x.dtype)
        self.latest = y.detach()
        return y


@right((3, 2))
def positions(seed):
    return Positions(2, numpy.random.default_rng(seed))


class Learned(dl.Layer):
    def __init__(self, length, features, rng):
        self.positions = weight(rng, length, features)

    def forward(self, x):
        return dl.silu(x + self.positions[: x.shape[1]])


@right((3, 2))
def learned_positions(seed):
    return Learned(3, 2, numpy.random.default_rng(seed))


class Pair(NamedTuple):
    mean: object
    deviation: object


class GaussianHead(dl.Layer):
    def __init__(self, inside, outside, seed):
        self.heads = {
            "mean": dl.Dense(inside, outside, seed=seed),
            "raw": dl.Dense(inside, outside, seed=seed + 1),
        }

    def forward(self, x):
        return Pair(self.heads["mean"](x), dl.softplus(self.heads["raw"](x)) + 1e-3)


@right((3,))
def gaussian_head(seed):
    return GaussianHead(3, 2, seed)


class Tabular(dl.Layer):
    """Categories and numbers."""

    def __init__(self, categories, numbers, outside, seed):
        self.table = dl.Embedding(categories, 2, seed=seed)
        self.dense = dl.Dense(numbers + 2, outside, seed=seed + 1)

    def forward(self, category, x):
        return self.dense(dl.concatenate([self.table(category), x], axis=-1))


@right([numpy.array([0, 3, 1, 2, 2]), (3,)])
def tabular(seed):
    return Tabular(4, 3, 2, seed)


class MaskedMean(dl.Layer):
    """The mean over the steps that are there."""

    def __init__(self, inside, outside, seed):
        self.dense = dl.Dense(inside, outside, seed=seed)

    def forward(self, x, there):
        y = dl.where(there.reshape(*there.shape, 1), self.dense(x), 0.0)
        return y.sum(axis=1) / dl.maximum(there.sum(axis=1, keepdims=True), 1)


@right([(3, 2), numpy.array([[True, True, False], [True, False, False], [True, True, True]])])
def masked_mean(seed):
    return MaskedMean(2, 3, seed)


class TimeMajor(dl.Layer):
    """(time, batch, features)."""

    def __init__(self, inside, rng):
        self.decay = weight(rng, inside)

    def forward(self, x):
        h, out = dl.zeros_like(x[0]), []
        for t in range(x.shape[0]):
            h = dl.sigmoid(self.decay) * h + x[t]
            out.append(h)
        return dl.stack(out, axis=0)


@right((3, 2), observation_dimension=1)
def time_major(seed):
    return TimeMajor(2, numpy.random.default_rng(seed))


class Sinkhorn(dl.Layer):
    def __init__(self, features, rng):
        self.weight = weight(rng, features, features)

    def forward(self, x):
        logits = x @ self.weight
        for _ in range(5):
            logits = logits - dl.logsumexp(logits, axis=-1, keepdims=True)
            logits = logits - dl.logsumexp(logits, axis=-2, keepdims=True)
        return dl.exp(logits)


@right((3, 3))
def sinkhorn(seed):
    return Sinkhorn(3, numpy.random.default_rng(seed))


class RandomField(dl.Layer):
    """The log-partition function of a linear chain."""

    def __init__(self, inside, tags, seed):
        self.emit = dl.Dense(inside, tags, seed=seed)
        self.transitions = dl.Parameter(dl.zeros((tags, tags)))

    def forward(self, x):
        emissions = self.emit(x)
        alpha = emissions[:, 0]
        for t in range(1, x.shape[1]):
            scores = alpha.reshape(*alpha.shape, 1) + self.transitions
            alpha = dl.logsumexp(scores, axis=1) + emissions[:, t]
        return dl.logsumexp(alpha, axis=-1)


@right((4, 2))
def random_field(seed):
    return RandomField(2, 3, seed)


class Cayley(dl.Layer):
    """An orthogonal matrix, from a skew one."""

    def __init__(self, features, rng):
        self.raw = weight(rng, features, features)

    def forward(self, x):
        skew, one = self.raw - self.raw.T, dl.eye(self.raw.shape[0], dtype=x.dtype)
        return x @ dl.linalg.solve(one + skew, one - skew)


@right((3,))
def cayley(seed):
    return Cayley(3, numpy.random.default_rng(seed))


class Householder(dl.Layer):
    def __init__(self, features, count, rng):
        self.vectors = weight(rng, count, features)

    def forward(self, x):
        for i in range(self.vectors.shape[0]):
            v = self.vectors[i]
            x = x - 2 * (x @ v).reshape(-1, 1) * v / ((v * v).sum() + 1e-6)
        return x


@right((3,))
def householder(seed):
    return Householder(3, 2, numpy.random.default_rng(seed))


class Gated(dl.Layer):
    def __init__(self, inside, outside, seed):
        self.dense = dl.Dense(inside, 2 * outside, seed=seed)

    def forward(self, x):
        a, b = dl.split(self.dense(x), 2, axis=-1)
        return a * dl.sigmoid(b)


@right((2, 3))
def gated_linear_unit(seed):
    return Gated(3, 2, seed)


class Large(dl.Layer):
    """Numbers of very different sizes side by side."""

    def __init__(self, inside, seed):
        self.dense = dl.Dense(inside, 3, seed=seed)
        self.sizes = dl.tensor([1e-6, 1.0, 1e6])

    def forward(self, x):
        return dl.tanh(self.dense(x)) * self.sizes


@right((3,))
def units(seed):
    return Large(3, seed)


class ByNumPy(dl.Layer):
    """Calls NumPy's functions, which keep the tape."""

    def __init__(self, features, rng):
        self.gain = weight(rng, features)

    def forward(self, x):
        return np_tanh(x * self.gain) + numpy.exp(-x * x).mean(axis=-1, keepdims=True)


def np_tanh(x):
    return numpy.tanh(x)


@right((3,))
def numpy_functions(seed):
    return ByNumPy(3, numpy.random.default_rng(seed))


class Kalman(dl.Layer):
    def __init__(self, seed):
        self.log_noise = dl.Parameter(dl.zeros(2))

    def forward(self, x):
        process, measurement = dl.exp(self.log_noise[0]), dl.exp(self.log_noise[1])
        mean, variance, out = dl.zeros_like(x[:, 0]), 1.0 + 0 * process, []
        for t in range(x.shape[1]):
            variance = variance + process
            gain = variance / (variance + measurement)
            mean, variance = mean + gain * (x[:, t] - mean), (1 - gain) * variance
            out.append(mean)
        return dl.stack(out, axis=1)


@right((4, 2))
def kalman(seed):
    return Kalman(seed)


class Huberized(dl.Layer):
    """A primitive of two inputs with attributes."""

    def __init__(self, features, rng):
        self.center = weight(rng, features)
        self.width = 0.8
        self.robust = Primitive(
            named("robust"),
            lambda xp, a, b, out=None, width=1.0: xp.arctan((a - b) / width, out=out),
            gradients=(
                lambda g, out, a, b, width: g * width / (width**2 + (a - b) ** 2),
                lambda g, out, a, b, width: -g * width / (width**2 + (a - b) ** 2),
            ),
        )

    def forward(self, x):
        return self.robust(x, self.center, width=self.width)


@right((3,))
def robust(seed):
    return Huberized(3, numpy.random.default_rng(seed))


class Growing(dl.Layer):
    """The largest k of learned scores, by a mask without gradient."""

    def __init__(self, inside, outside, k, rng):
        self.weight, self.k = weight(rng, inside, outside), k

    def forward(self, x):
        scores = x @ self.weight
        threshold = dl.sort(scores.detach(), axis=-1)[:, -self.k].reshape(-1, 1)
        return dl.where(scores >= threshold, scores, 0.0)


@right((3,))
def sparse_codes(seed):
    return Growing(3, 6, 2, numpy.random.default_rng(seed))


class ConvTransposeDecoder(dl.Layer):
    def __init__(self, code, seed):
        self.start = dl.Dense(code, 2 * 2 * 2, seed=seed)
        self.up = dl.ConvTranspose2D(2, 1, 2, stride=2, seed=seed + 1)

    def forward(self, z):
        return dl.tanh(self.up(dl.relu(self.start(z)).reshape(-1, 2, 2, 2)))


@right((3,))
def decoder(seed):
    return ConvTransposeDecoder(3, seed)
