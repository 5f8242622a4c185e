"""PyTorch: the convolutional network, eager, with channels last in memory, or compiled."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from benchmarks.jobs.cnn import CHANNELS, CLASSES, EPSILON, FLAT, LEARNING_RATE, MOMENTUM, SIDE
from benchmarks.peers import Job
from benchmarks.peers.torch_job import assign, make_job


def make_network() -> nn.Sequential:
    layers = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(outputs, eps=EPSILON), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if i < 2 else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(FLAT, CLASSES))


def loss_of(network, x, target):
    return functional.cross_entropy(network(x), target)


def build(weights, batch_size: int, channels_last: bool = False, compiled: bool = False) -> Job:
    network = make_network()
    pairs = []
    for i, place in enumerate((0, 4, 8), 1):
        convolution, norm = network[place], network[place + 1]
        pairs += [(convolution.weight, weights[f"kernel{i}"].transpose(3, 2, 0, 1).copy())]
        pairs += [(norm.weight, weights[f"gain{i}"]), (norm.bias, weights[f"shift{i}"])]
    by_place = weights["weight"].reshape(7, 7, 32, CLASSES)  # the channel is this network's first axis
    pairs += [(network[-1].weight, by_place.transpose(3, 2, 0, 1).reshape(CLASSES, FLAT).copy())]
    pairs += [(network[-1].bias, weights["bias"])]
    assign(pairs)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=memory)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def prepare(batch):
        x, target = batch
        images = torch.from_numpy(x).reshape(len(x), 1, SIDE, SIDE).contiguous(memory_format=memory)
        return images, torch.from_numpy(target)

    return make_job(network, optimizer, loss_of, compiled, prepare)
