"""minidl: the textbook GPT, compiled or eager."""

import numpy as np

import minidl as dl
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
from benchmarks.peers.minidl_job import fill, make_job


class Block(dl.Layer):
    def __init__(self):
        self.norm1, self.norm2 = (dl.LayerNorm(WIDTH, epsilon=NORM_EPSILON) for _ in range(2))
        self.attention = dl.MultiHeadAttention(WIDTH, HEADS, causal=True)
        self.wide, self.narrow = dl.Dense(WIDTH, 4 * WIDTH), dl.Dense(4 * WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(dl.gelu(self.wide(self.norm2(x))))


class GPT(dl.Layer):
    def __init__(self):
        self.characters = dl.Embedding(CHARACTERS, WIDTH)
        self.positions = dl.Parameter(dl.zeros((CONTEXT, WIDTH)))
        self.blocks = [Block() for _ in BLOCKS]
        self.norm = dl.LayerNorm(WIDTH, epsilon=NORM_EPSILON)

    def forward(self, x):
        h = self.characters(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.norm(h) @ self.characters.weight.T


def loss_of(network, x, target):
    return dl.softmax_cross_entropy(network(x), target)


def build(
    weights: dict[str, np.ndarray], batch_size: int, kernels: str | None = "auto", dtype: str = "float32"
) -> Job:
    network = GPT()
    parameters = {network.characters.weight: weights["characters"], network.positions: weights["positions"]}
    norms = {"norm": network.norm}
    for i, block in zip(BLOCKS, network.blocks, strict=True):
        norms |= {f"norm1_{i}": block.norm1, f"norm2_{i}": block.norm2}
        projections = {name: getattr(block.attention, name) for name in ("query", "key", "value", "output")}
        for name, dense in {**projections, "wide": block.wide, "narrow": block.narrow}.items():
            parameters |= {dense.weight: weights[f"{name}{i}"], dense.bias: weights[f"{name}{i}_bias"]}
    for name, norm in norms.items():
        parameters |= {norm.gain: weights[name], norm.bias: weights[f"{name}_shift"]}
    fill(network, parameters, dtype)
    optimizer = dl.Adam(
        network.parameters(), learning_rate=LEARNING_RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON
    )
    return make_job(network, optimizer, loss_of, kernels, dtype)
