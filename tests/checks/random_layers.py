"""Correct layers and networks, put together at random: what a check must not flag."""

import numpy

import minidl as dl


class Normalized(dl.Layer):
    """Standardises each feature over the batch in training, by running moments in evaluation."""

    def __init__(self, features):
        self.gain = dl.Parameter(dl.ones(features))
        self.offset = dl.Parameter(dl.zeros(features))
        self.mean, self.variance = dl.zeros(features), dl.ones(features)

    def forward(self, x):
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean(axis=0), x.var(axis=0)
            self.mean.assign(0.9 * self.mean + 0.1 * mean.detach())
            self.variance.assign(0.9 * self.variance + 0.1 * variance.detach())
        return (x - mean) / dl.sqrt(variance + 1e-3) * self.gain + self.offset


class RowNormalized(dl.Layer):
    def __init__(self, features):
        self.gain = dl.Parameter(dl.ones(features))

    def forward(self, x):
        deviation = x - x.mean(axis=-1, keepdims=True)
        return deviation / dl.sqrt(x.var(axis=-1, keepdims=True) + 1e-2) * self.gain


class Residual(dl.Layer):
    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Twice(dl.Layer):
    """The same layer, two times in a row: shared."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return self.inner(dl.tanh(self.inner(x)))


class Tied(dl.Layer):
    def __init__(self, features, code, seed):
        self.encoder = dl.Network([dl.Dense(features, code, seed=seed), dl.ReLU()])
        self.bias = dl.Parameter(dl.zeros(features))

    def forward(self, x):
        return dl.sigmoid(self.encoder(x) @ self.encoder[0].weight.T + self.bias)


class Gate(dl.Layer):
    """Two inputs, two outputs."""

    def __init__(self, features, seed):
        self.dense = dl.Dense(features, features, seed=seed)

    def forward(self, x, y):
        share = dl.sigmoid(self.dense(x))
        return share * x + (1 - share) * y, share


class Split(dl.Layer):
    """A slice, a maximum and a join."""

    def __init__(self, features):
        self.gain = {"left": dl.Parameter(dl.full(features // 2, 0.7))}

    def forward(self, x):
        half = self.gain["left"].shape[0]
        left, right = x[:, :half], x[:, half:]
        return dl.concatenate([left * self.gain["left"], right, x.max(axis=1, keepdims=True)], axis=1)


class Embedding(dl.Layer):
    def __init__(self, words, features, rng):
        self.table = dl.Parameter(rng.normal(size=(words, features)).astype("float32"))

    def forward(self, words):
        return dl.tanh(self.table[words])


class Noise(dl.Layer):
    """Adds noise in training."""

    def __init__(self, seed):
        self.generator = dl.Generator(seed)

    def forward(self, x):
        if not self.training:
            return x
        return x + 0.1 * dl.primitives.random.random_normal(x, generator=self.generator)


def activation(rng):
    choices = [dl.ReLU, dl.Sigmoid, dl.Tanh, dl.Softmax, lambda: dl.softplus, lambda: dl.sin, lambda: abs]
    return choices[rng.integers(len(choices))]()


def same_size(rng, features, depth=0):
    """Return a random layer from (batch, features) to the same."""
    seed = int(rng.integers(1000))
    simple = [
        lambda: dl.Network([dl.Dense(features, features, seed=seed), activation(rng)]),
        lambda: dl.Network([activation(rng), dl.Dropout(0.3, seed=seed)]),
        lambda: Normalized(features),
        lambda: RowNormalized(features),
        lambda: Noise(seed),
        lambda: Tied(features, int(rng.integers(1, 6)), seed),
        lambda: dl.Network([dl.Reshape(1, features), dl.Flatten()]),
    ]
    nested = [
        lambda: Residual(same_size(rng, features, depth + 1)),
        lambda: Twice(same_size(rng, features, depth + 1)),
        lambda: dl.Network([same_size(rng, features, depth + 1), same_size(rng, features, depth + 1)]),
    ]
    choices = simple if depth >= 3 else simple + nested * 2
    return choices[rng.integers(len(choices))]()


def random_layer(seed):
    """Return a correct layer, and the input_shape to check it with."""
    rng = numpy.random.default_rng(seed)
    features = int(rng.integers(2, 6))
    kind = rng.integers(8)
    if kind == 0:
        return Gate(features, int(rng.integers(100))), [(features,), (features,)]
    if kind == 1:
        return Embedding(7, features, rng), rng.integers(0, 7, (6, 2))
    if kind == 2:
        return dl.Network([same_size(rng, features), Split(features)]), (features,)
    if kind == 3:
        return dl.Network([dl.Flatten(), same_size(rng, 2 * features)]), (2, features)
    return same_size(rng, features), (features,)
