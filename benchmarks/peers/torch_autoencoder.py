"""What the three PyTorch peers share: the module, its loss, its optimizer, and their Job."""

import numpy as np
import torch
from torch.nn import functional

from benchmarks.jobs.autoencoder import BETA1, BETA2, EPSILON, L2, LAYERS, LEARNING_RATE, SIZES
from benchmarks.peers import Job


class TiedAutoencoder(torch.nn.Module):
    """Gives the logits: PyTorch's stable binary cross-entropy takes those."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        self.encoder = torch.nn.ModuleList([torch.nn.Linear(SIZES[i - 1], SIZES[i]) for i in LAYERS])
        self.decoder_biases = torch.nn.ParameterList([torch.zeros(SIZES[i - 1]) for i in LAYERS])
        with torch.no_grad():
            for i, layer in zip(LAYERS, self.encoder, strict=True):
                layer.weight.copy_(torch.from_numpy(weights[f"weight{i}"].T))
                layer.bias.copy_(torch.from_numpy(weights[f"encoder_bias{i}"]))
                self.decoder_biases[i - 1].copy_(torch.from_numpy(weights[f"decoder_bias{i}"]))

    def forward(self, x):
        z = x
        for layer in self.encoder:
            z = torch.relu(layer(z))
        for layer, bias in zip(self.encoder[:0:-1], self.decoder_biases[:0:-1], strict=True):
            z = torch.relu(functional.linear(z, layer.weight.t(), bias))
        return functional.linear(z, self.encoder[0].weight.t(), self.decoder_biases[0])


def loss_of(network, x):
    return functional.binary_cross_entropy_with_logits(network(x), x)


def make_adam(network, **options) -> torch.optim.Adam:
    """Adam with (coupled) weight decay on the weights and none on the biases."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": L2}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.Adam(groups, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON, **options)


def make_job(network, train_step, loss_function) -> Job:
    """`train_step(x)` gives the loss as a tensor; `loss_function(network, x)` is used to evaluate."""

    def evaluate(x):
        with torch.inference_mode():
            return loss_function(network, x).item()

    return Job(
        prepare=torch.from_numpy,
        step=lambda x: train_step(x).item(),
        evaluate=evaluate,
        save=lambda path: torch.save(network.state_dict(), path),
    )
