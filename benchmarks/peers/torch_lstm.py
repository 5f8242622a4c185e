"""PyTorch: the language model with its LSTM of two layers, eager or compiled."""

import torch
from torch import nn
from torch.nn import functional

from benchmarks.jobs.lstm import CLIP, LEARNING_RATE, UNITS, WORDS
from benchmarks.peers import Job
from benchmarks.peers.torch_job import assign, make_job


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, UNITS)
        self.lstm = nn.LSTM(UNITS, UNITS, num_layers=2, batch_first=True)
        self.output_bias = nn.Parameter(torch.zeros(WORDS))

    def forward(self, x):
        h, _ = self.lstm(self.embedding(x))
        return functional.linear(h, self.embedding.weight, self.output_bias)


def loss_of(network, x, target):
    return functional.cross_entropy(network(x).flatten(0, 1), target.flatten())


def build(weights, batch_size: int, compiled: bool = False) -> Job:
    network = LanguageModel()
    pairs = [(network.embedding.weight, weights["embedding"]), (network.output_bias, weights["output_bias"])]
    for layer in (0, 1):
        of = {
            name: getattr(network.lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih")
        }
        pairs += [(of["weight_ih"], weights[f"input{layer + 1}"].T.copy())]
        pairs += [(of["weight_hh"], weights[f"recurrent{layer + 1}"].T.copy())]
        pairs += [(of["bias_ih"], weights[f"bias{layer + 1}"])]
        second_bias = getattr(network.lstm, f"bias_hh_l{layer}")  # cuDNN's, and one too many
        nn.init.zeros_(second_bias)
        second_bias.requires_grad_(False)
    assign(pairs)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, LEARNING_RATE, fused=True)

    def clip():
        nn.utils.clip_grad_norm_(parameters, CLIP)

    return make_job(network, optimizer, loss_of, compiled, before_step=clip)
