"""Keras on JAX: the GPT, with its MultiHeadAttention."""

from benchmarks.peers.keras_job import make_job  # isort: skip -- sets the backend

import keras
from keras import ops

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
from benchmarks.peers.keras_jax import Adam


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = (keras.layers.LayerNormalization(epsilon=NORM_EPSILON) for _ in range(2))
        self.attention = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
        self.wide, self.narrow = keras.layers.Dense(4 * WIDTH), keras.layers.Dense(WIDTH)

    def build(self, shape):
        for layer in (self.norm1, self.norm2, self.wide):
            layer.build(shape)
        self.narrow.build((*shape[:-1], 4 * WIDTH))
        self.attention.build(shape, shape)
        self.built = True

    def call(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, use_causal_mask=True)
        return x + self.narrow(ops.gelu(self.wide(self.norm2(x)), approximate=False))


class GPT(keras.Model):
    def __init__(self):
        super().__init__()
        self.characters = keras.layers.Embedding(CHARACTERS, WIDTH)
        self.blocks = [Block() for _ in BLOCKS]
        self.norm = keras.layers.LayerNormalization(epsilon=NORM_EPSILON)

    def build(self, shape):
        self.characters.build(shape)
        self.positions = self.add_weight(shape=(CONTEXT, WIDTH), initializer="zeros", name="positions")
        for layer in (*self.blocks, self.norm):
            layer.build((*shape, WIDTH))
        self.built = True

    def call(self, x, training=None):
        h = self.characters(x) + self.positions
        for block in self.blocks:
            h = block(h)
        return ops.matmul(self.norm(h), ops.transpose(self.characters.embeddings))


def build(weights, batch_size: int) -> Job:
    network = GPT()
    network.build((batch_size, CONTEXT))
    network.characters.embeddings.assign(weights["characters"])
    network.positions.assign(weights["positions"])
    norms = {"norm": network.norm}
    for i, block in zip(BLOCKS, network.blocks, strict=True):
        norms |= {f"norm1_{i}": block.norm1, f"norm2_{i}": block.norm2}
        of = block.attention
        parts = {"query": of.query_dense, "key": of.key_dense, "value": of.value_dense}
        parts |= {"output": of.output_dense, "wide": block.wide, "narrow": block.narrow}
        for name, part in parts.items():
            part.kernel.assign(weights[f"{name}{i}"].reshape(part.kernel.shape))
            part.bias.assign(weights[f"{name}{i}_bias"].reshape(part.bias.shape))
    for name, norm in norms.items():
        norm.gamma.assign(weights[name])
        norm.beta.assign(weights[f"{name}_shift"])
    return make_job(network, Adam(LEARNING_RATE, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON))
