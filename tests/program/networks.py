"""Small networks, their training steps, and what the tests of compiled programs share."""

import numpy
import pytest

import minidl as dl
from minidl.mode import mode
from minidl.program.cpu.kernel_cache import compiler
from minidl.program.recorder import Recorder

needs_c = pytest.mark.skipif(compiler() is None, reason="there is no C compiler on this machine")


def autoencoder(seed=0, rate=0.0):
    generator = dl.Generator(seed)
    encoder = dl.Network(
        [
            dl.Dense(12, 9, seed=generator),
            dl.ReLU(),
            dl.Dropout(rate, seed=generator),
            dl.Dense(9, 5, seed=generator),
        ]
    )

    class Tied(dl.Layer):
        def __init__(self):
            self.encoder = encoder
            self.dense = [layer for layer in encoder if isinstance(layer, dl.Dense)]
            self.biases = [dl.Parameter(dl.zeros(layer.in_features)) for layer in self.dense]

        def forward(self, x):
            z = self.encoder(x)
            for layer, bias in reversed(list(zip(self.dense[1:], self.biases[1:], strict=True))):
                z = dl.relu(z @ layer.weight.T + bias)
            return dl.sigmoid(z @ self.dense[0].weight.T + self.biases[0])

    return Tied()


def make_step(network, optimizer):
    def step(x):
        loss = dl.binary_cross_entropy(network(x), x)
        loss.backward()
        optimizer.step()
        return loss

    return step


def trained_step(batch=256, threads=2, kernels="numpy", steps=2):
    """A compiled training step of a small tied network, replayed at least once."""
    first, second = dl.Dense(96, 128, seed=0), dl.Dense(128, 64, seed=1)

    class Tied(dl.Layer):
        def __init__(self):
            self.layers = [first, second]

        def forward(self, x):
            z = dl.relu(second(dl.relu(first(x))))
            return dl.sigmoid(dl.relu(z @ second.weight.T) @ first.weight.T)

    network = Tied()
    step = dl.compile(make_step(network, dl.Adam(network.parameters())), threads=threads, kernels=kernels)
    x = numpy.random.default_rng(0).random((batch, 96)).astype("float32")
    for _ in range(steps):
        step(x)
    return step


def recorded(function, *inputs):
    """Return the unimproved program of a function of Tensors."""
    tensors = [dl.tensor(x) for x in inputs]
    recorder = Recorder(tensors)
    mode.recorder = recorder
    try:
        results = function(*tensors)
    finally:
        mode.recorder = None
    return recorder.finish(list(results) if isinstance(results, tuple) else [results])


def executor_of(step):
    """Return the executor of the only program of a compiled function."""
    (program,) = step.programs
    return program.executor
