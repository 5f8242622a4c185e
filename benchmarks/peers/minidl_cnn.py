"""minidl: the textbook convolutional network, compiled or eager."""

import itertools

import numpy as np

import minidl as dl
from benchmarks.jobs.cnn import CHANNELS, CLASSES, EPSILON, FLAT, LEARNING_RATE, MOMENTUM
from benchmarks.peers import Job
from benchmarks.peers.minidl_job import fill, make_job


def make_network() -> dl.Network:
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS)):
        layers += [dl.Conv2D(inputs, outputs, 3, padding="same", bias=False)]
        layers += [dl.BatchNorm(outputs, epsilon=EPSILON), dl.ReLU()]
        layers += [dl.MaxPool2D(2)] if i < 2 else []
    return dl.Network([*layers, dl.Flatten(), dl.Dense(FLAT, CLASSES)])


def loss_of(network, x, target):
    return dl.softmax_cross_entropy(network(x), target)


def build(
    weights: dict[str, np.ndarray], batch_size: int, kernels: str | None = "auto", dtype: str = "float32"
) -> Job:
    network = make_network()
    parameters = {}
    for i, place in enumerate((0, 4, 8), 1):
        convolution, norm = network[place], network[place + 1]
        parameters |= {convolution.weight: weights[f"kernel{i}"]}
        parameters |= {norm.gain: weights[f"gain{i}"], norm.bias: weights[f"shift{i}"]}
    parameters |= {network[-1].weight: weights["weight"], network[-1].bias: weights["bias"]}
    fill(network, parameters, dtype)
    optimizer = dl.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    return make_job(network, optimizer, loss_of, kernels, dtype)
