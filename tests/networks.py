"""Networks that several test modules use."""

import itertools

import minidl as dl


class TiedAutoencoder(dl.Layer):
    """The main job's network, as in design.md, for any sizes."""

    def __init__(self, *sizes, seed=0):
        generator = dl.Generator(seed)
        pairs = itertools.pairwise(sizes)
        layers = [part for a, b in pairs for part in (dl.Dense(a, b, seed=generator), dl.ReLU())]
        self.encoder = dl.Network(layers)
        self.dense = [layer for layer in self.encoder if isinstance(layer, dl.Dense)]
        self.biases = [dl.Parameter(dl.zeros(layer.in_features)) for layer in self.dense]

    def forward(self, x):
        z = self.encoder(x)
        for layer, bias in reversed(list(zip(self.dense[1:], self.biases[1:], strict=True))):
            z = dl.relu(z @ layer.weight.T + bias)
        return dl.sigmoid(z @ self.dense[0].weight.T + self.biases[0])
