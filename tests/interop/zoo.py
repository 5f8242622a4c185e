"""Networks of every kind, and what PyTorch's users would write for each."""

import itertools

import minidl as dl


class TiedAutoencoder(dl.Layer):
    def __init__(self, sizes=(12, 8, 5)):
        layers = [dl.Dense(a, b) for a, b in itertools.pairwise(sizes)]
        self.encoder = dl.Network([part for layer in layers for part in (layer, dl.ReLU())])
        self.dense = layers
        self.biases = [dl.Parameter(dl.zeros(layer.in_features)) for layer in layers]

    def forward(self, x):
        z = self.encoder(x)
        for layer, bias in reversed(list(zip(self.dense[1:], self.biases[1:], strict=True))):
            z = dl.relu(z @ layer.weight.T + bias)
        return dl.sigmoid(z @ self.dense[0].weight.T + self.biases[0])


class Residual(dl.Layer):
    def __init__(self, channels):
        self.conv1 = dl.Conv2D(channels, channels, 3, padding=1, bias=False)
        self.norm1 = dl.BatchNorm(channels)
        self.conv2 = dl.Conv2D(channels, channels, 3, padding=1, bias=False)
        self.norm2 = dl.BatchNorm(channels)

    def forward(self, x):
        return dl.relu(x + self.norm2(self.conv2(dl.relu(self.norm1(self.conv1(x))))))


class Block(dl.Layer):
    def __init__(self, features, heads, causal):
        self.norm1 = dl.LayerNorm(features)
        self.attention = dl.MultiHeadAttention(features, heads, causal=causal)
        self.norm2 = dl.LayerNorm(features)
        self.up = dl.Dense(features, 2 * features)
        self.down = dl.Dense(2 * features, features)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(dl.gelu(self.up(self.norm2(x))))


class GPT(dl.Layer):
    """Its output layer is the table of its embedding, transposed."""

    def __init__(self, words=11, features=8, heads=2, time=6):
        self.words = dl.Embedding(words, features, weight_initializer="glorot_uniform")
        self.places = dl.Parameter(dl.zeros((time, features)))
        self.blocks = dl.Network([Block(features, heads, causal=True) for _ in range(2)])
        self.norm = dl.LayerNorm(features, bias=False)

    def forward(self, x):
        z = self.blocks(self.words(x) + self.places[: x.shape[1]])
        return self.norm(z) @ self.words.weight.T


#: Functions that make a network, and the shape of its input; an input of whole numbers is below 11.
NETWORKS = {
    "mlp": (lambda: dl.Network([dl.Dense(6, 9), dl.Tanh(), dl.Dense(9, 4, bias=False)]), (5, 6)),
    "tied autoencoder": (TiedAutoencoder, (5, 12)),
    "cnn": (
        lambda: dl.Network(
            [
                dl.Conv2D(2, 4, (3, 2), (1, 2), padding=1),
                dl.BatchNorm(4),
                dl.ReLU(),
                dl.MaxPool2D(2),
                dl.Flatten(),
                dl.Dense(32, 3),
            ]
        ),
        (3, 8, 7, 2),
    ),
    "residual": (
        lambda: dl.Network([dl.Conv2D(3, 4, 3), Residual(4), Residual(4), dl.GlobalAveragePool2D()]),
        (2, 8, 8, 3),
    ),
    "separable": (
        lambda: dl.Network(
            [
                dl.DepthwiseConv2D(4, 3, multiplier=2),
                dl.SiLU(),
                dl.Conv2D(8, 6, 1, groups=2),
                dl.GroupNorm(3, 6),
            ]
        ),
        (2, 6, 6, 4),
    ),
    "decoder": (
        lambda: dl.Network(
            [
                dl.Dense(5, 2 * 3 * 4),
                dl.Reshape(2, 3, 4),
                dl.ConvTranspose2D(4, 6, 3, 2, padding=1),
                dl.ELU(),
                dl.ConvTranspose2D(6, 2, 3, groups=2),
                dl.Sigmoid(),
            ]
        ),
        (2, 5),
    ),
    "audio": (
        lambda: dl.Network(
            [dl.Conv1D(3, 6, 5, 2, padding=2, dilation=1), dl.PReLU(6), dl.Conv1D(6, 4, 3, dilation=2)]
        ),
        (2, 15, 3),
    ),
    "lstm": (lambda: dl.Network([dl.LSTM(4, 6), dl.Dense(6, 3)]), (3, 5, 4)),
    "rnn": (lambda: dl.Network([dl.RNN(4, 6, return_sequences=True), dl.Dense(6, 3)]), (3, 5, 4)),
    "stacked gru": (
        lambda: dl.Network([dl.GRU(4, 5, return_sequences=True), dl.GRU(5, 5, return_sequences=True)]),
        (3, 6, 4),
    ),
    "transformer": (lambda: dl.Network([Block(8, 2, causal=False), dl.RMSNorm(8)]), (3, 5, 8)),
    "gpt": (GPT, (3, 6)),
}


def make(name):
    """Return a network in evaluation mode whose every Parameter and statistic is random, and an input."""
    function, shape = NETWORKS[name]
    network = function().eval()
    generator = dl.Generator(1)
    for name_, x in network.named_tensors():
        noise = dl.random.normal(x.shape, generator=generator) * 0.4
        x.assign(abs(noise) + 0.5 if "variance" in name_ else noise)
    if isinstance(network, GPT):
        return network, dl.tensor([[3, 1, 10, 4, 0, 7], [1, 1, 2, 3, 5, 8], [9, 10, 0, 6, 6, 2]])
    return network, dl.random.normal(shape, generator=generator)
