"""Autoencoders, densities, flows and energies."""

import numpy

import minidl as dl
from tests.checks.zoo.registry import right, weight


class VariationalAutoencoder(dl.Layer):
    def __init__(self, features, code, seed):
        self.encoder = dl.Dense(features, 2 * code, seed=seed)
        self.decoder = dl.Dense(code, features, seed=seed + 1)
        self.generator = dl.Generator(seed)
        self.code = code

    def forward(self, x):
        both = self.encoder(x)
        mean, log_variance = both[:, : self.code], both[:, self.code :]
        z = mean
        if self.training:
            noise = dl.random.normal(mean.shape, dtype=x.dtype, device=x.device, generator=self.generator)
            z = mean + dl.exp(0.5 * log_variance) * noise
        divergence = -0.5 * (1 + log_variance - mean**2 - dl.exp(log_variance)).sum(axis=1).mean()
        return dl.sigmoid(self.decoder(z)), divergence


@right((4,))
def variational_autoencoder(seed):
    return VariationalAutoencoder(4, 2, seed)


class MixtureDensity(dl.Layer):
    def __init__(self, features, components, seed):
        self.dense = dl.Dense(features, 3 * components, seed=seed)
        self.components = components

    def forward(self, x):
        y = self.dense(x)
        n = self.components
        return {
            "log_weights": dl.log_softmax(y[:, :n]),
            "means": y[:, n : 2 * n],
            "scales": dl.softplus(y[:, 2 * n :]) + 1e-3,
        }


@right((3,))
def mixture_density(seed):
    return MixtureDensity(3, 2, seed)


class MixtureLikelihood(dl.Layer):
    """The log-likelihood of points under a mixture of Gaussians."""

    def __init__(self, features, components, rng):
        self.means = weight(rng, components, features)
        self.log_scales = dl.Parameter(dl.zeros((components, features)))
        self.logits = dl.Parameter(dl.zeros(components))

    def forward(self, x):
        z = (x.reshape(-1, 1, x.shape[-1]) - self.means) * dl.exp(-self.log_scales)
        log_p = (-0.5 * z * z - self.log_scales).sum(axis=-1)
        return dl.logsumexp(log_p + dl.log_softmax(self.logits), axis=-1, keepdims=True)


@right((2,))
def mixture_likelihood(seed):
    return MixtureLikelihood(2, 3, numpy.random.default_rng(seed))


class Coupling(dl.Layer):
    """A coupling of RealNVP: the result, and the log-determinant of each observation."""

    def __init__(self, features, seed):
        half = features // 2
        self.net = dl.Network([dl.Dense(half, 5, seed=seed), dl.Tanh(), dl.Dense(5, 2 * half, seed=seed + 1)])

    def forward(self, x):
        half = x.shape[1] // 2
        a, b = x[:, :half], x[:, half:]
        y = self.net(a)
        scale, shift = dl.tanh(y[:, :half]), y[:, half:]
        return dl.concatenate([a, b * dl.exp(scale) + shift], axis=1), scale.sum(axis=1)


@right((4,))
def coupling(seed):
    return Coupling(4, seed)


class VectorQuantizer(dl.Layer):
    """The nearest code; gradients pass straight through, and two losses pull codes and inputs together."""

    def __init__(self, codes, features, rng):
        self.codes = weight(rng, codes, features)

    def forward(self, x):
        square = (x * x).sum(axis=1, keepdims=True) + (self.codes * self.codes).sum(axis=1)
        nearest = dl.argmin(square - 2 * x @ self.codes.T, axis=1)
        chosen = self.codes[nearest]
        loss = ((chosen - x.detach()) ** 2).mean() + 0.25 * ((x - chosen.detach()) ** 2).mean()
        return x + (chosen - x).detach(), loss


@right((3,), skip={"gradients": "straight-through: codes are trained by the loss"})
def vector_quantizer(seed):
    return VectorQuantizer(5, 3, numpy.random.default_rng(seed))


class DenoisingAutoencoder(dl.Layer):
    def __init__(self, features, hidden, seed):
        self.encode = dl.Dense(features, hidden, seed=seed)
        self.bias = dl.Parameter(dl.zeros(features))
        self.generator = dl.Generator(seed)
        self.noise = 0.3

    def forward(self, x):
        if self.training:
            kept = dl.random.bernoulli(1 - self.noise, x.shape, generator=self.generator)
            x = x * kept
        return dl.sigmoid(dl.tanh(self.encode(x)) @ self.encode.weight.T + self.bias)


@right((4,))
def denoising_autoencoder(seed):
    return DenoisingAutoencoder(4, 3, seed)


class Gumbel(dl.Layer):
    """Soft samples of categories in training, probabilities in evaluation."""

    def __init__(self, inside, classes, seed):
        self.dense = dl.Dense(inside, classes, seed=seed)
        self.generator = dl.Generator(seed)
        self.temperature = 0.7

    def forward(self, x):
        logits = self.dense(x)
        if not self.training:
            return dl.softmax(logits, axis=-1)
        u = dl.random.uniform(logits.shape, 1e-6, 1 - 1e-6, dtype=x.dtype, generator=self.generator)
        return dl.softmax((logits - dl.log(-dl.log(u))) / self.temperature, axis=-1)


@right((3,))
def gumbel(seed):
    return Gumbel(3, 4, seed)


class HopfieldEnergy(dl.Layer):
    def __init__(self, features, patterns, rng):
        self.patterns = weight(rng, patterns, features)
        self.log_beta = dl.Parameter(dl.zeros(()))

    def forward(self, x):
        beta = dl.exp(self.log_beta)
        recalled = dl.softmax(beta * (x @ self.patterns.T), axis=-1) @ self.patterns
        energy = 0.5 * (x * x).sum(axis=-1) - dl.logsumexp(beta * (x @ self.patterns.T), axis=-1) / beta
        return recalled, energy


@right((3,))
def hopfield(seed):
    return HopfieldEnergy(3, 4, numpy.random.default_rng(seed))


class PlanarFlow(dl.Layer):
    def __init__(self, features, rng):
        self.w, self.u = weight(rng, features), weight(rng, features)
        self.b = dl.Parameter(dl.zeros(()))

    def forward(self, x):
        inner = (self.w * self.u).sum()
        u = self.u + (dl.softplus(inner) - 1 - inner) * self.w / ((self.w * self.w).sum() + 1e-6)
        h = dl.tanh(x @ self.w + self.b)
        slope = (1 - h * h).reshape(-1, 1) * self.w
        return x + h.reshape(-1, 1) * u, dl.log(abs(1 + slope @ u) + 1e-6)


@right((3,))
def planar_flow(seed):
    return PlanarFlow(3, numpy.random.default_rng(seed))


class SoftKMeans(dl.Layer):
    def __init__(self, clusters, features, rng):
        self.centers = weight(rng, clusters, features)
        self.log_width = dl.Parameter(dl.zeros(()))

    def forward(self, x):
        gap = x.reshape(-1, 1, x.shape[-1]) - self.centers
        return dl.softmax(-(gap * gap).sum(axis=-1) * dl.exp(-self.log_width), axis=-1)


@right((2,))
def soft_kmeans(seed):
    return SoftKMeans(4, 2, numpy.random.default_rng(seed))
