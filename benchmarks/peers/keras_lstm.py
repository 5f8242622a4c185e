"""Keras on JAX: the language model with LSTMs."""

from benchmarks.peers.keras_job import make_job  # isort: skip -- sets the backend

import keras
from keras import ops

from benchmarks.jobs.lstm import CLIP, LEARNING_RATE, STEPS, UNITS, WORDS
from benchmarks.peers import Job


class LanguageModel(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(WORDS, UNITS)
        self.lstms = [keras.layers.LSTM(UNITS, return_sequences=True) for _ in range(2)]

    def build(self, input_shape):
        self.embedding.build(input_shape)
        for lstm in self.lstms:
            lstm.build((*input_shape, UNITS))
        self.output_bias = self.add_weight(shape=(WORDS,), initializer="zeros", name="output_bias")
        self.built = True

    def call(self, x, training=None):
        h = self.embedding(x)
        for lstm in self.lstms:
            h = lstm(h)
        return ops.matmul(h, ops.transpose(self.embedding.embeddings)) + self.output_bias


def build(weights, batch_size: int) -> Job:
    network = LanguageModel()
    network.build((batch_size, STEPS))
    network.embedding.embeddings.assign(weights["embedding"])
    for i, lstm in enumerate(network.lstms, 1):
        lstm.cell.kernel.assign(weights[f"input{i}"])
        lstm.cell.recurrent_kernel.assign(weights[f"recurrent{i}"])
        lstm.cell.bias.assign(weights[f"bias{i}"])
    return make_job(network, keras.optimizers.SGD(LEARNING_RATE, global_clipnorm=CLIP))
