"""Recurrent layers and attention."""

import numpy

import minidl as dl
from tests.checks.zoo.registry import right, weight


class Elman(dl.Layer):
    def __init__(self, inside, hidden, rng):
        self.input, self.recurrent = weight(rng, inside, hidden), weight(rng, hidden, hidden)
        self.bias = dl.Parameter(dl.zeros(hidden))

    def forward(self, x):
        h = dl.zeros((x.shape[0], self.bias.size), x.dtype, x.device)
        states = []
        for t in range(x.shape[1]):
            h = dl.tanh(x[:, t] @ self.input + h @ self.recurrent + self.bias)
            states.append(h)
        return dl.stack(states, axis=1)


@right((4, 3))
def elman(seed):
    return Elman(3, 4, numpy.random.default_rng(seed))


class OwnLSTM(dl.Layer):
    def __init__(self, inside, hidden, rng):
        self.weight = weight(rng, inside + hidden, 4 * hidden)
        self.bias = dl.Parameter(dl.zeros(4 * hidden))
        self.hidden = hidden

    def forward(self, x):
        h = c = dl.zeros((x.shape[0], self.hidden), x.dtype, x.device)
        for t in range(x.shape[1]):
            gates = dl.concatenate([x[:, t], h], axis=1) @ self.weight + self.bias
            i, f, o, g = dl.split(gates, 4, axis=1)
            c = dl.sigmoid(f + 1) * c + dl.sigmoid(i) * dl.tanh(g)
            h = dl.sigmoid(o) * dl.tanh(c)
        return h


@right((3, 2))
def lstm(seed):
    return OwnLSTM(2, 3, numpy.random.default_rng(seed))


class OwnGRU(dl.Layer):
    def __init__(self, inside, hidden, seed):
        self.gates = dl.Dense(inside + hidden, 2 * hidden, seed=seed)
        self.candidate = dl.Dense(inside + hidden, hidden, seed=seed + 1)
        self.hidden = hidden

    def forward(self, x):
        h = dl.zeros((x.shape[0], self.hidden), x.dtype, x.device)
        for t in range(x.shape[1]):
            both = dl.sigmoid(self.gates(dl.concatenate([x[:, t], h], axis=1)))
            z, r = both[:, : self.hidden], both[:, self.hidden :]
            new = dl.tanh(self.candidate(dl.concatenate([x[:, t], r * h], axis=1)))
            h = (1 - z) * h + z * new
        return h, z


@right((3, 2))
def gru(seed):
    return OwnGRU(2, 3, seed)


class Bidirectional(dl.Layer):
    def __init__(self, inside, hidden, seed):
        self.forwards = dl.RNN(inside, hidden, return_sequences=True, seed=seed)
        self.backwards = dl.RNN(inside, hidden, return_sequences=True, seed=seed + 1)

    def forward(self, x):
        there = self.forwards(x)
        back = dl.flip(self.backwards(dl.flip(x, 1)), 1)
        return dl.concatenate([there, back], axis=-1)


@right((3, 2))
def bidirectional(seed):
    return Bidirectional(2, 2, seed)


class SelfAttention(dl.Layer):
    def __init__(self, features, rng):
        self.query, self.key, self.value = (weight(rng, features, features) for _ in range(3))

    def forward(self, x):
        q, k, v = x @ self.query, x @ self.key, x @ self.value
        scores = q @ k.swapaxes(-1, -2) / (x.shape[-1] ** 0.5)
        return dl.softmax(scores, axis=-1) @ v


@right((4, 3))
def self_attention(seed):
    return SelfAttention(3, numpy.random.default_rng(seed))


class CausalAttention(dl.Layer):
    def __init__(self, features, rng):
        self.project = weight(rng, features, 3 * features)

    def forward(self, x):
        q, k, v = dl.split(x @ self.project, 3, axis=-1)
        scores = q @ k.swapaxes(-1, -2) / (x.shape[-1] ** 0.5)
        steps = dl.arange(x.shape[1])
        seen = steps.reshape(-1, 1) >= steps.reshape(1, -1)
        return dl.softmax(dl.where(seen, scores, -1e9), axis=-1) @ v


@right((4, 2))
def causal_attention(seed):
    return CausalAttention(2, numpy.random.default_rng(seed))


class MaskedLogits(dl.Layer):
    """Gives -infinity for classes that are not allowed."""

    def __init__(self, inside, classes, seed):
        self.dense = dl.Dense(inside, classes, seed=seed)
        self.allowed = dl.tensor(numpy.arange(classes) % 3 != 1)

    def forward(self, x):
        return dl.where(self.allowed, self.dense(x), -numpy.inf)


@right((3,))
def masked_logits(seed):
    return MaskedLogits(3, 5, seed)


class Rotary(dl.Layer):
    """Rotary position embedding and a dot product with a learned vector."""

    def __init__(self, features, rng):
        self.weight = weight(rng, features)
        rates = 1 / 100 ** (numpy.arange(features // 2) / (features // 2))
        self.rates = dl.tensor(rates.astype("float32"))

    def forward(self, x):
        angle = dl.arange(x.shape[1]).astype(x.dtype).reshape(-1, 1) * self.rates
        c, s = dl.cos(angle), dl.sin(angle)
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return dl.concatenate([a * c - b * s, a * s + b * c], axis=-1) * self.weight


@right((3, 4))
def rotary(seed):
    return Rotary(4, numpy.random.default_rng(seed))


class TransformerBlock(dl.Layer):
    def __init__(self, features, seed):
        self.attention = dl.MultiHeadAttention(features, 2, causal=True, seed=seed)
        self.norms = [dl.LayerNorm(features), dl.LayerNorm(features)]
        self.mlp = dl.Network([dl.Dense(features, 6, seed=seed), dl.GELU(), dl.Dense(6, features, seed=seed)])
        self.dropout = dl.Dropout(0.1, seed=seed)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norms[0](x)))
        return x + self.dropout(self.mlp(self.norms[1](x)))


@right((3, 4))
def transformer_block(seed):
    return TransformerBlock(4, seed)


class BagOfWords(dl.Layer):
    def __init__(self, words, features, rng):
        self.table = weight(rng, words, features)

    def forward(self, words):
        return self.table[words].mean(axis=1)


@right(numpy.random.default_rng(0).integers(0, 6, (7, 3)))
def bag_of_words(seed):
    return BagOfWords(6, 4, numpy.random.default_rng(seed))


class StatefulCell(dl.Layer):
    """Carries its state from call to call, until reset_state()."""

    stateful = True

    def __init__(self, inside, hidden, seed):
        self.dense = dl.Dense(inside + hidden, hidden, seed=seed)
        self.hidden = hidden
        self.reset_state(4)

    def reset_state(self, batch):
        self.h = dl.zeros((batch, self.hidden), self.dense.weight.dtype)

    def forward(self, x):
        h = dl.tanh(self.dense(dl.concatenate([x, self.h.copy()], axis=1)))
        self.h.assign(h.detach())
        return h


@right((2,))
def stateful_cell(seed):
    return StatefulCell(2, 3, seed)


@right((3, 2))
def stateful_lstm(seed):
    return dl.LSTM(2, 3, stateful=True, seed=seed)


class LinearAttention(dl.Layer):
    def __init__(self, features, rng):
        self.query, self.key = weight(rng, features, features), weight(rng, features, features)

    def forward(self, x):
        q, k = dl.elu(x @ self.query) + 1, dl.elu(x @ self.key) + 1
        memory = k.swapaxes(-1, -2) @ x
        norm = (q * k.sum(axis=1, keepdims=True)).sum(axis=-1, keepdims=True)
        return q @ memory / (norm + 1e-6)


@right((3, 3))
def linear_attention(seed):
    return LinearAttention(3, numpy.random.default_rng(seed))


class CharacterEmbedding(dl.Layer):
    """Tied input and output embeddings with a bias."""

    def __init__(self, words, features, rng):
        self.table = weight(rng, words, features)
        self.bias = dl.Parameter(dl.zeros(words))

    def forward(self, words):
        return dl.tanh(self.table[words]) @ self.table.T + self.bias


@right(numpy.random.default_rng(1).integers(0, 5, (6, 2)))
def tied_embedding(seed):
    return CharacterEmbedding(5, 3, numpy.random.default_rng(seed))
