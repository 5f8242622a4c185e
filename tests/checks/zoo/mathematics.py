"""Layers that differentiate, iterate or solve, and primitives with rules of their own."""

import numpy

import minidl as dl
from minidl.primitives.primitive import Primitive, elementwise
from tests.checks.mistakes import named
from tests.checks.zoo.registry import right, weight


class PhysicsInformed(dl.Layer):
    """A network and its derivative with respect to the input; the last bias has no effect on that."""

    def __init__(self, hidden, seed):
        self.net = dl.Network([dl.Dense(1, hidden, seed=seed), dl.Tanh(), dl.Dense(hidden, 1, seed=seed + 1)])

    def forward(self, x):
        with dl.enable_grad():
            if not x.requires_grad:
                x = dl.tensor(x, requires_grad=True)
            return dl.grad(self.net(x).sum(), x, create_graph=True)


@right((1,))
def physics_informed(seed):
    return PhysicsInformed(4, seed)


class Equilibrium(dl.Layer):
    """A fixed point of z = tanh(z W + x), by iteration until it stands still."""

    def __init__(self, features, rng):
        self.weight = dl.Parameter(0.3 * weight(rng, features, features))

    def forward(self, x):
        z = dl.zeros_like(x)
        for _ in range(30):
            z = dl.tanh(z @ self.weight + x)
        return z


@right((3,))
def deep_equilibrium(seed):
    return Equilibrium(3, numpy.random.default_rng(seed))


class OrdinaryDifferentialEquation(dl.Layer):
    def __init__(self, features, steps, seed):
        self.field = dl.Network([dl.Dense(features, features, seed=seed), dl.Tanh()])
        self.steps = steps

    def forward(self, x):
        h = 1.0 / self.steps
        for _ in range(self.steps):
            middle = x + 0.5 * h * self.field(x)
            x = x + h * self.field(middle)
        return x


@right((3,))
def neural_ode(seed):
    return OrdinaryDifferentialEquation(3, 4, seed)


class Swish(dl.Layer):
    """x * sigmoid(beta x), as a primitive with rules of its own."""

    def __init__(self, features):
        self.beta = dl.Parameter(dl.ones(features))
        self.swish = elementwise(
            named("swish"),
            lambda xp, x, b, out=None: xp.divide(x, 1 + xp.exp(-b * x), out=out),
            gradients=(
                lambda g, out, x, b: (
                    g * (dl.sigmoid(b * x) + b * x * dl.sigmoid(b * x) * (1 - dl.sigmoid(b * x)))
                ),
                lambda g, out, x, b: g * x * x * dl.sigmoid(b * x) * (1 - dl.sigmoid(b * x)),
            ),
        )

    def forward(self, x):
        return self.swish(dl.clip(x, -30.0, 30.0), self.beta)


@right((3,))
def swish(seed):
    return Swish(3)


class Projection(dl.Layer):
    """A matrix product as a primitive with rules of its own."""

    def __init__(self, inside, outside, rng):
        self.weight = weight(rng, inside, outside)
        self.product = Primitive(
            named("product"),
            lambda xp, a, b, out=None: xp.matmul(a, b, out=out),
            gradients=(lambda g, out, a, b: g @ b.T, lambda g, out, a, b: a.T @ g),
        )

    def forward(self, x):
        return self.product(x, self.weight)


@right((4,))
def own_product(seed):
    return Projection(4, 4, numpy.random.default_rng(seed))


class OwnSoftmax(dl.Layer):
    def __init__(self, inside, outside, seed):
        self.dense = dl.Dense(inside, outside, seed=seed)
        self.softmax = Primitive(
            named("choice"),
            _softmax,
            gradients=(lambda g, out, x: out * (g - (g * out).sum(axis=-1, keepdims=True)),),
        )

    def forward(self, x):
        return self.softmax(self.dense(x))


def _softmax(xp, x, out=None):
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return xp.divide(e, xp.sum(e, axis=-1, keepdims=True), out=out)


@right((3,))
def own_softmax(seed):
    return OwnSoftmax(3, 4, seed)


class OwnRelu(dl.Layer):
    def __init__(self, inside, outside, seed):
        self.dense = dl.Dense(inside, outside, seed=seed)
        self.rectify = elementwise(
            named("rectify"),
            lambda xp, x, out=None: xp.maximum(x, 0, out=out),
            gradients=(lambda g, out, x: g * (x > 0),),
        )

    def forward(self, x):
        return self.rectify(self.dense(x))


@right((3,))
def own_relu(seed):
    return OwnRelu(3, 4, seed)


class LogDeterminant(dl.Layer):
    """The log-determinant of a covariance that observations make positive definite."""

    def __init__(self, features, rng):
        self.factor = weight(rng, features, features)

    def forward(self, x):
        n = x.shape[-1]
        matrix = self.factor @ self.factor.T + dl.eye(n, dtype=x.dtype)
        matrix = matrix + x.reshape(-1, n, 1) * x.reshape(-1, 1, n)
        return dl.linalg.slogdet(matrix)[1]


@right((3,))
def log_determinant(seed):
    return LogDeterminant(3, numpy.random.default_rng(seed))


class Solver(dl.Layer):
    """Solves (A + x1 I) y = x, a layer that is a linear system."""

    def __init__(self, features, rng):
        self.matrix = weight(rng, features, features)

    def forward(self, x):
        n = x.shape[-1]
        a = self.matrix @ self.matrix.T + dl.eye(n, dtype=x.dtype)
        return dl.linalg.solve(a, x.T).T


@right((3,))
def linear_system(seed):
    return Solver(3, numpy.random.default_rng(seed))


class RadialBasis(dl.Layer):
    def __init__(self, inside, centers, rng):
        self.centers = weight(rng, centers, inside)
        self.log_widths = dl.Parameter(dl.zeros(centers))

    def forward(self, x):
        gap = x.reshape(-1, 1, x.shape[-1]) - self.centers
        return dl.exp(-(gap * gap).sum(axis=-1) * dl.exp(-2 * self.log_widths))


@right((2,))
def radial_basis(seed):
    return RadialBasis(2, 4, numpy.random.default_rng(seed))


class Fourier(dl.Layer):
    def __init__(self, inside, frequencies, rng):
        self.frequencies = dl.tensor(rng.normal(size=(inside, frequencies)).astype("float32"))
        self.scale = dl.Parameter(dl.ones(2 * frequencies))

    def forward(self, x):
        phase = 2 * numpy.pi * (x @ self.frequencies)
        return dl.concatenate([dl.sin(phase), dl.cos(phase)], axis=-1) * self.scale


@right((2,))
def fourier_features(seed):
    return Fourier(2, 3, numpy.random.default_rng(seed))


class Siren(dl.Layer):
    def __init__(self, inside, outside, rng):
        self.weight, self.bias = weight(rng, inside, outside), weight(rng, outside)
        self.omega = 30.0

    def forward(self, x):
        return dl.sin(self.omega * (x @ self.weight + self.bias))


@right((2,))
def siren(seed):
    return Siren(2, 3, numpy.random.default_rng(seed))


class Quantile(dl.Layer):
    """Three quantiles that cannot cross."""

    def __init__(self, inside, seed):
        self.dense = dl.Dense(inside, 3, seed=seed)

    def forward(self, x):
        y = self.dense(x)
        return dl.cumsum(dl.concatenate([y[:, :1], dl.softplus(y[:, 1:])], axis=1), axis=1)


@right((3,))
def quantiles(seed):
    return Quantile(3, seed)


class Positive(dl.Layer):
    """Takes the logarithm of positive inputs."""

    def __init__(self, features):
        self.power = dl.Parameter(dl.ones(features))

    def forward(self, x):
        return self.power * dl.log(x) + dl.sqrt(x)


@right(numpy.random.default_rng(0).uniform(0.5, 2, (5, 3)))
def logarithm(seed):
    return Positive(3)


class Attractor(dl.Layer):
    """Moving averages with a rate that trains, within (0, 1)."""

    def __init__(self, features):
        self.logit = dl.Parameter(dl.zeros(features))

    def forward(self, x):
        rate, y, out = dl.sigmoid(self.logit), 0.0, []
        for t in range(x.shape[1]):
            y = y + rate * (x[:, t] - y)
            out.append(y)
        return dl.stack(out, axis=1)


@right((4, 2))
def moving_average(seed):
    return Attractor(2)
