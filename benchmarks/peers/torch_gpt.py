"""PyTorch: the GPT with its fused attention, eager or compiled; queries, keys and values are one product."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.jobs.gpt import (
    BETA1,
    BETA2,
    BLOCKS,
    CHARACTERS,
    CONTEXT,
    EPSILON,
    HEADS,
    LEARNING_RATE,
    NORM_EPSILON,
    WIDTH,
)
from benchmarks.peers import Job
from benchmarks.peers.torch_job import assign, make_job


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, NORM_EPSILON), nn.LayerNorm(WIDTH, NORM_EPSILON)
        self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attention(self, x):
        heads = (x.shape[0], x.shape[1], HEADS, WIDTH // HEADS)
        q, k, v = (part.view(heads).transpose(1, 2) for part in self.inputs(x).split(WIDTH, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(x.shape))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, WIDTH)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, WIDTH))
        self.blocks = nn.ModuleList([Block() for _ in BLOCKS])
        self.norm = nn.LayerNorm(WIDTH, NORM_EPSILON)

    def forward(self, x):
        h = self.characters(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return functional.linear(self.norm(h), self.characters.weight)


def loss_of(network, x, target):
    return functional.cross_entropy(network(x).flatten(0, 1), target.flatten())


def build(weights, batch_size: int, compiled: bool = False) -> Job:
    network = GPT()
    pairs = [
        (network.characters.weight, weights["characters"]),
        (network.positions, weights["positions"]),
        (network.norm.weight, weights["norm"]),
        (network.norm.bias, weights["norm_shift"]),
    ]
    for i, block in zip(BLOCKS, network.blocks, strict=True):
        names = [f"query{i}", f"key{i}", f"value{i}"]
        pairs += [(block.inputs.weight, np.concatenate([weights[name].T for name in names]))]
        pairs += [(block.inputs.bias, np.concatenate([weights[f"{name}_bias"] for name in names]))]
        for name in ("output", "wide", "narrow"):
            linear = getattr(block, name)
            pairs += [(linear.weight, weights[f"{name}{i}"].T.copy())]
            pairs += [(linear.bias, weights[f"{name}{i}_bias"])]
        for name in ("norm1", "norm2"):
            norm = getattr(block, name)
            pairs += [(norm.weight, weights[f"{name}_{i}"]), (norm.bias, weights[f"{name}_{i}_shift"])]
    assign(pairs)
    optimizer = torch.optim.Adam(
        network.parameters(), LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON, fused=True
    )
    return make_job(network, optimizer, loss_of, compiled)
