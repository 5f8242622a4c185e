"""A word-level language model, such as is trained on the Penn Treebank.

A vocabulary of 10,000 words; an embedding and two LSTMs of 200 units; the logits are the product with the
embedding's weights, transposed, plus a bias; 20 steps, softmax cross-entropy averaged over all words. SGD,
with the gradients' global norm clipped at 5. Everything is float32.
"""

import numpy as np

from benchmarks.jobs import BATCHES, float64_losses

TITLE = "language model with LSTMs"
WHAT = "10,000 words, two LSTMs of 200 units, 20 steps, tied output, SGD, clipped global norm"
BATCH_SIZES = (20,)
TOLERANCE = 2e-4
WORDS = 10_000
UNITS = 200
STEPS = 20
LEARNING_RATE = 1.0
CLIP = 5.0


def initial_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Uniform `embedding` (words, units); `input1`, `recurrent1`, .. (units, 4 units), gates i, f, g, o.

    `bias1`, .. and `output_bias` are 0.
    """
    generator = np.random.default_rng(seed)
    weights = {"embedding": generator.uniform(-0.1, 0.1, (WORDS, UNITS)), "output_bias": np.zeros(WORDS)}
    for i in (1, 2):
        for name in ("input", "recurrent"):
            weights[f"{name}{i}"] = generator.uniform(-0.1, 0.1, (UNITS, 4 * UNITS))
        weights[f"bias{i}"] = np.zeros(4 * UNITS)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def step_batches(images: None, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Words (batch, steps) and the words that follow them, int64. Some are frequent: as Zipf's law has it."""
    generator = np.random.default_rng(batch_size)
    shares = 1 / np.arange(1, WORDS + 1)
    texts = generator.choice(WORDS, (BATCHES, batch_size, STEPS + 1), p=shares / shares.sum())
    return [(np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])) for text in texts]


def reference_losses(batches, count: int) -> list[float]:
    from benchmarks.peers.minidl_lstm import build

    return float64_losses(build, initial_weights(), batches, count)
