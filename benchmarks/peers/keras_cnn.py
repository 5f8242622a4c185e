"""Keras on JAX: the convolutional network."""

from benchmarks.peers.keras_job import make_job  # isort: skip -- sets the backend

import keras

from benchmarks.jobs.cnn import CHANNELS, CLASSES, EPSILON, LEARNING_RATE, MOMENTUM, SIDE
from benchmarks.peers import Job


def build(weights, batch_size: int) -> Job:
    layers = [keras.Input((SIDE, SIDE, 1), batch_size)]
    for i, channels in enumerate(CHANNELS[1:]):
        layers += [keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)]
        layers += [keras.layers.BatchNormalization(momentum=0.9, epsilon=EPSILON), keras.layers.ReLU()]
        layers += [keras.layers.MaxPooling2D()] if i < 2 else []
    network = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(CLASSES)])
    names = [f"{name}{i}" for i in (1, 2, 3) for name in ("kernel", "gain", "shift")]
    for variable, name in zip(network.trainable_variables, [*names, "weight", "bias"], strict=True):
        variable.assign(weights[name])
    # Its momentum is a velocity that contains the learning rate, which is the same while that is constant.
    return make_job(network, keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM))
