"""A character-level language model: a small GPT.

A vocabulary of 65 characters, a context of 64; embeddings of characters and positions; four blocks of width
128 (LayerNorm, causal attention of 4 heads, LayerNorm, a network of 512 units with GELU, both added to their
inputs); a last LayerNorm; the logits are the product with the characters' embedding, transposed; softmax
cross-entropy averaged over all characters. Adam. Everything is float32.
"""

import numpy as np

from benchmarks.jobs import BATCHES, float64_losses

TITLE = "small GPT"
WHAT = "4 blocks of width 128, 4 heads, context 64, 65 characters, tied output, Adam"
BATCH_SIZES = (16,)
TOLERANCE = 5e-4
CHARACTERS = 65
CONTEXT = 64
WIDTH = 128
HEADS = 4
BLOCKS = (1, 2, 3, 4)
LEARNING_RATE = 1e-3
BETA1 = 0.9
BETA2 = 0.999
EPSILON = 1e-8
NORM_EPSILON = 1e-5


def initial_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Normal weights of deviation 0.02, (in, out), zero biases, gains of one.

    `characters` (65, 128), `positions` (64, 128); of block i `query<i>`, `key<i>`, `value<i>`, `output<i>`,
    `wide<i>` and `narrow<i>`, each with a `_bias`, and `norm1_<i>`, `norm2_<i>`, with a `_shift`; `norm`.
    """
    generator = np.random.default_rng(seed)
    weights = {
        "characters": generator.normal(0, 0.02, (CHARACTERS, WIDTH)),
        "positions": generator.normal(0, 0.02, (CONTEXT, WIDTH)),
    }
    sizes = dict.fromkeys(("query", "key", "value", "output"), (WIDTH, WIDTH))
    sizes |= {"wide": (WIDTH, 4 * WIDTH), "narrow": (4 * WIDTH, WIDTH)}
    for i in BLOCKS:
        for name, shape in sizes.items():
            weights[f"{name}{i}"] = generator.normal(0, 0.02, shape)
            weights[f"{name}{i}_bias"] = np.zeros(shape[1])
    for name in [*(f"norm{n}_{i}" for i in BLOCKS for n in (1, 2)), "norm"]:
        weights[name], weights[f"{name}_shift"] = np.ones(WIDTH), np.zeros(WIDTH)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def step_batches(images: None, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Characters (batch, context) and those that follow them, int64: a random walk through the alphabet."""
    generator = np.random.default_rng(batch_size)
    moves = generator.geometric(0.2, (BATCHES, batch_size, CONTEXT + 1))
    texts = np.cumsum(moves, axis=2) % CHARACTERS
    return [(np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])) for text in texts]


def reference_losses(batches, count: int) -> list[float]:
    from benchmarks.peers.minidl_gpt import build

    return float64_losses(build, initial_weights(), batches, count)
