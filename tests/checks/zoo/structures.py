"""Experts, adapters, weights that networks make, graphs, and other ways to put layers together."""

import numpy

import minidl as dl
from tests.checks.zoo.registry import right, weight


class Experts(dl.Layer):
    """A soft mixture of experts."""

    def __init__(self, inside, outside, experts, seed):
        self.gate = dl.Dense(inside, experts, seed=seed)
        self.experts = [dl.Dense(inside, outside, seed=seed + i + 1) for i in range(experts)]

    def forward(self, x):
        share = dl.softmax(self.gate(x), axis=-1)
        outputs = dl.stack([expert(x) for expert in self.experts], axis=1)
        return (share.reshape(*share.shape, 1) * outputs).sum(axis=1)


@right((3,))
def experts(seed):
    return Experts(3, 2, 3, seed)


class HardExperts(dl.Layer):
    """Each observation goes to the expert with the largest gate; some may be chosen by nobody."""

    def __init__(self, inside, outside, experts, rng):
        self.gate = weight(rng, inside, experts)
        self.weights = weight(rng, experts, inside, outside)

    def forward(self, x):
        share = dl.softmax(x @ self.gate, axis=-1)
        best = share.argmax(axis=-1)
        chosen = dl.take_along_axis(share, best.reshape(-1, 1), axis=1)
        return chosen * (x.reshape(-1, 1, x.shape[1]) @ self.weights[best]).reshape(x.shape[0], -1)


@right((3,))
def hard_experts(seed):
    return HardExperts(3, 2, 6, numpy.random.default_rng(seed))


class LoadBalanced(dl.Layer):
    """Experts with a penalty, and how often each was chosen."""

    def __init__(self, inside, experts, seed):
        self.gate = dl.Dense(inside, experts, seed=seed)
        self.scales = dl.Parameter(dl.ones(experts))

    def forward(self, x):
        share = dl.softmax(self.gate(x), axis=-1)
        used = (
            (share.argmax(axis=-1).reshape(-1, 1) == dl.arange(share.shape[1])).astype(x.dtype).mean(axis=0)
        )
        penalty = (used * share.mean(axis=0)).sum() * share.shape[1]
        return share * self.scales, penalty, used


@right((3,))
def load_balanced(seed):
    return LoadBalanced(3, 4, seed)


class LoRA(dl.Layer):
    """A frozen weight and a trained product of two thin ones, of which the second begins at 0."""

    def __init__(self, inside, outside, rank, rng):
        self.frozen = dl.tensor(rng.normal(size=(inside, outside)).astype("float32"))
        self.a, self.b = weight(rng, inside, rank), dl.Parameter(dl.zeros((rank, outside)))
        self.scale = 2.0

    def forward(self, x):
        return x @ self.frozen + (x @ self.a @ self.b) * self.scale


@right((4,))
def lora(seed):
    return LoRA(4, 3, 2, numpy.random.default_rng(seed))


class HyperNetwork(dl.Layer):
    """One input makes the weights with which the other is multiplied."""

    def __init__(self, context, inside, outside, seed):
        self.weights = dl.Dense(context, inside * outside, seed=seed)
        self.bias = dl.Dense(context, outside, seed=seed + 1)
        self.inside, self.outside = inside, outside

    def forward(self, x, context):
        w = self.weights(context).reshape(-1, self.inside, self.outside)
        return (x.reshape(-1, 1, self.inside) @ w).reshape(-1, self.outside) + self.bias(context)


@right([(3,), (2,)])
def hypernetwork(seed):
    return HyperNetwork(2, 3, 2, seed)


class FiLM(dl.Layer):
    def __init__(self, context, features, seed):
        self.make = dl.Dense(context, 2 * features, seed=seed)

    def forward(self, x, context):
        scale, shift = dl.split(self.make(context), 2, axis=-1)
        return x * (1 + scale) + shift


@right([(3,), (2,)])
def film(seed):
    return FiLM(2, 3, seed)


class Highway(dl.Layer):
    def __init__(self, features, rng):
        self.weight, self.gate = weight(rng, features, features), weight(rng, features, features)
        self.bias = dl.Parameter(dl.full(features, -1.0))

    def forward(self, x):
        t = dl.sigmoid(x @ self.gate + self.bias)
        return t * dl.tanh(x @ self.weight) + (1 - t) * x


@right((4,))
def highway(seed):
    return Highway(4, numpy.random.default_rng(seed))


class Bilinear(dl.Layer):
    def __init__(self, first, second, outside, rng):
        self.weight = weight(rng, first, second, outside)
        self.bias = dl.Parameter(dl.zeros(outside))

    def forward(self, x, y):
        return dl.einsum("bi,bj,ijo->bo", x, y, self.weight) + self.bias


@right([(2,), (3,)])
def bilinear(seed):
    return Bilinear(2, 3, 2, numpy.random.default_rng(seed))


class FactorizationMachine(dl.Layer):
    def __init__(self, features, factors, rng):
        self.linear, self.factors = weight(rng, features, 1), weight(rng, features, factors)

    def forward(self, x):
        square = (x @ self.factors) ** 2
        squares = (x * x) @ (self.factors * self.factors)
        return x @ self.linear + 0.5 * (square - squares).sum(axis=1, keepdims=True)


@right((4,))
def factorization_machine(seed):
    return FactorizationMachine(4, 2, numpy.random.default_rng(seed))


class GraphConvolution(dl.Layer):
    """Neighbours on a fixed graph, averaged."""

    def __init__(self, nodes, inside, outside, seed):
        near = numpy.eye(nodes) + numpy.roll(numpy.eye(nodes), 1, axis=1)
        self.adjacency = dl.tensor((near / near.sum(axis=1, keepdims=True)).astype("float32"))
        self.dense = dl.Dense(inside, outside, seed=seed)

    def forward(self, x):
        return dl.relu(self.adjacency @ self.dense(x))


@right((4, 2))
def graph_convolution(seed):
    return GraphConvolution(4, 2, 3, seed)


class DeepSets(dl.Layer):
    def __init__(self, inside, hidden, outside, seed):
        self.each = dl.Network([dl.Dense(inside, hidden, seed=seed), dl.SiLU()])
        self.all = dl.Dense(2 * hidden, outside, seed=seed + 1)

    def forward(self, x):
        h = self.each(x)
        return self.all(dl.concatenate([h.mean(axis=1), h.max(axis=1)], axis=-1))


@right((3, 2))
def deep_sets(seed):
    return DeepSets(2, 3, 2, seed)


class SharedTower(dl.Layer):
    """The same network on two inputs, and the cosine of the results."""

    def __init__(self, inside, hidden, seed):
        self.tower = dl.Network([dl.Dense(inside, hidden, seed=seed), dl.Tanh()])

    def forward(self, x, y):
        a, b = self.tower(x), self.tower(y)
        lengths = dl.sqrt((a * a).sum(axis=-1) * (b * b).sum(axis=-1) + 1e-8)
        return (a * b).sum(axis=-1) / lengths


@right([(3,), (3,)])
def siamese(seed):
    return SharedTower(3, 4, seed)


class TiedWeights(dl.Layer):
    def __init__(self, features, code, seed):
        self.encode = dl.Dense(features, code, seed=seed)
        self.bias = dl.Parameter(dl.zeros(features))

    def forward(self, x):
        return dl.sigmoid(dl.relu(self.encode(x)) @ self.encode.weight.T + self.bias)


@right((5,))
def tied_autoencoder(seed):
    return TiedWeights(5, 3, seed)


class Masked(dl.Layer):
    """A masked autoregressive layer (MADE): output i sees inputs before i alone."""

    def __init__(self, features, rng):
        self.weight = weight(rng, features, features)
        self.bias = dl.Parameter(dl.zeros(features))

    def forward(self, x):
        return x @ dl.triu(self.weight, 1) + self.bias


@right((4,))
def autoregressive(seed):
    return Masked(4, numpy.random.default_rng(seed))


class Polynomial(dl.Layer):
    def __init__(self, degree, rng):
        self.coefficients = dl.Parameter(rng.normal(size=degree + 1).astype("float32"))

    def forward(self, x):
        y = 0.0 * x
        for i in reversed(range(self.coefficients.size)):
            y = y * x + self.coefficients[i]
        return y


@right((2,))
def polynomial(seed):
    return Polynomial(3, numpy.random.default_rng(seed))


class Sorted(dl.Layer):
    """Weights the sorted features."""

    def __init__(self, features, rng):
        self.weight = weight(rng, features)

    def forward(self, x):
        return dl.sort(x, axis=-1) * self.weight


@right((4,))
def sorted_features(seed):
    return Sorted(4, numpy.random.default_rng(seed))


class TopK(dl.Layer):
    def __init__(self, inside, outside, k, seed):
        self.dense, self.k = dl.Dense(inside, outside, seed=seed), k

    def forward(self, x):
        values, places = dl.topk(self.dense(x), self.k)
        return values, places


@right((3,))
def top_k(seed):
    return TopK(3, 5, 2, seed)
