"""minidl, eager: the textbook step."""

import numpy as np

import minidl as dl
from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LAYERS, LEARNING_RATE, SIZES
from benchmarks.peers import Job


class TiedAutoencoder(dl.Layer):
    def __init__(self):
        self.dense = [dl.Dense(SIZES[i - 1], SIZES[i]) for i in LAYERS]
        self.biases = [dl.Parameter(dl.zeros(SIZES[i - 1])) for i in LAYERS]

    def forward(self, x):
        z = x
        for layer in self.dense:
            z = dl.relu(layer(z))
        for layer, bias in zip(self.dense[:0:-1], self.biases[:0:-1], strict=True):
            z = dl.relu(z @ layer.weight.T + bias)
        return dl.sigmoid(z @ self.dense[0].weight.T + self.biases[0])


def make_network(weights) -> TiedAutoencoder:
    network = TiedAutoencoder()
    for i, layer, bias in zip(LAYERS, network.dense, network.biases, strict=True):
        layer.weight.assign(weights[f"weight{i}"])
        layer.bias.assign(weights[f"encoder_bias{i}"])
        bias.assign(weights[f"decoder_bias{i}"])
    return network


def build(weights: dict[str, np.ndarray], batch_size: int, kernels: str | None = None) -> Job:
    network = make_network(weights)
    optimizer = dl.Adam(
        network.parameters(), learning_rate=LEARNING_RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, l2=L2
    )

    def train_step(x):
        loss = dl.binary_cross_entropy(network(x), x)
        loss.backward()
        optimizer.step()
        return loss

    def loss_of(x):
        with dl.no_grad():
            return dl.binary_cross_entropy(network(x), x)

    if kernels is not None:
        train_step, loss_of = dl.compile(train_step, kernels=kernels), dl.compile(loss_of, kernels=kernels)
    return Job(
        prepare=dl.tensor,
        step=lambda x: train_step(x).item(),
        evaluate=lambda x: loss_of(x).item(),
        save=network.save,
    )
