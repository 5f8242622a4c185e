"""minidl: the textbook language model with LSTMs, compiled or eager."""

import numpy as np

import minidl as dl
from benchmarks.jobs.lstm import CLIP, LEARNING_RATE, UNITS, WORDS
from benchmarks.peers import Job
from benchmarks.peers.minidl_job import fill, make_job


class LanguageModel(dl.Layer):
    def __init__(self):
        self.embedding = dl.Embedding(WORDS, UNITS)
        self.lstm1 = dl.LSTM(UNITS, UNITS, return_sequences=True)
        self.lstm2 = dl.LSTM(UNITS, UNITS, return_sequences=True)
        self.output_bias = dl.Parameter(dl.zeros(WORDS))

    def forward(self, x):
        h = self.lstm2(self.lstm1(self.embedding(x)))
        return h @ self.embedding.weight.T + self.output_bias


def loss_of(network, x, target):
    return dl.softmax_cross_entropy(network(x), target)


def build(
    weights: dict[str, np.ndarray], batch_size: int, kernels: str | None = "auto", dtype: str = "float32"
) -> Job:
    network = LanguageModel()
    parameters = {network.embedding.weight: weights["embedding"], network.output_bias: weights["output_bias"]}
    for i, lstm in enumerate((network.lstm1, network.lstm2), 1):
        parameters |= {lstm.input_weight: weights[f"input{i}"], lstm.bias: weights[f"bias{i}"]}
        parameters |= {lstm.recurrent_weight: weights[f"recurrent{i}"]}
    fill(network, parameters, dtype)
    optimizer = dl.SGD(network.parameters(), LEARNING_RATE, momentum=0.0, clip_global_norm=CLIP)
    return make_job(network, optimizer, loss_of, kernels, dtype)
