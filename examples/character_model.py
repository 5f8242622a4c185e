"""Train a small language model on text, a character at a time, and let it write.

The model is a GPT: attention over the last characters, in a few blocks, or with ``--model lstm`` a recurrent
network. It reads the documentation that ships with Python, or any text file. Run it with --help to see what
can be changed.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minidl as dl


class Block(dl.Layer):
    """A block of a GPT: attention, then a small network for each character, each added to its input."""

    def __init__(self, features, heads, dropout, seed):
        self.attention_norm, self.network_norm = dl.LayerNorm(features), dl.LayerNorm(features)
        self.attention = dl.MultiHeadAttention(features, heads, causal=True, seed=seed)
        self.network = dl.Network(
            [
                dl.Dense(features, 4 * features, seed=seed),
                dl.GELU(),
                dl.Dense(4 * features, features, seed=seed),
            ]
        )
        self.dropout = dl.Dropout(dropout, seed=seed)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.network(self.network_norm(x)))


class GPT(dl.Layer):
    """(batch, time) characters to (batch, time, vocabulary) logits of the next ones.

    The embedding's weights are the output's, too, transposed.
    """

    def __init__(self, vocabulary, context, features, depth, heads, dropout, seed):
        self.characters = dl.Embedding(vocabulary, features, seed=seed)
        self.positions = dl.Embedding(context, features, seed=seed)
        self.blocks = dl.Network([Block(features, heads, dropout, seed) for _ in range(depth)])
        self.norm = dl.LayerNorm(features)

    def forward(self, x):
        position = dl.arange(x.shape[1], device=x.device)
        h = self.blocks(self.characters(x) + self.positions(position))
        return self.norm(h) @ self.characters.weight.T


class RecurrentModel(dl.Layer):
    """The same with an LSTM, which has no longest context."""

    def __init__(self, vocabulary, features, depth, dropout, seed):
        self.characters = dl.Embedding(vocabulary, features, weight_initializer="glorot_uniform", seed=seed)
        self.lstm = dl.Network(
            [
                layer
                for _ in range(depth)
                for layer in (
                    dl.LSTM(features, features, return_sequences=True, seed=seed),
                    dl.Dropout(dropout, seed=seed),
                )
            ]
        )
        self.output = dl.Dense(features, vocabulary, seed=seed)

    def forward(self, x):
        return self.output(self.lstm(self.characters(x)))


def build_model(options, vocabulary):
    generator = dl.Generator(options.seed)
    if options.model == "lstm":
        return RecurrentModel(vocabulary, options.features, options.depth, options.dropout, generator)
    sizes = (options.context, options.features, options.depth, options.heads, options.dropout)
    return GPT(vocabulary, *sizes, generator)


def read_text(data):
    """Return the text: that of a file, or of Python's own documentation."""
    if data is None:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics))
    return Path(data).read_text(encoding="utf-8")


def windows(codes, starts, context):
    """Return the characters from each start on, and those that follow them, both (batch, context)."""
    places = np.asarray(starts)[:, None] + np.arange(context + 1)
    return codes[places[:, :-1]], codes[places[:, 1:]]


def loss_of(model, x, target):
    """Return the mean cross-entropy of the next character, in nats."""
    logits = model(x)
    return dl.softmax_cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))


def train(model, codes, options):
    """Train the model; return (step, loss) pairs for the training and the validation part."""
    split = int(0.9 * len(codes))
    training, validation = codes[:split], codes[split:]
    warmup = max(1, options.steps // 20)
    rest = max(1, options.steps - warmup)
    schedule = dl.schedules.Sequence(
        (dl.schedules.Warmup(options.learning_rate, warmup), warmup),
        (dl.schedules.Cosine(options.learning_rate, rest), rest),
    )
    optimizer = dl.AdamW(model.parameters(), schedule, weight_decay=0.01, clip_global_norm=1.0)

    @dl.compile
    def step(x, target):
        loss = loss_of(model, x, target)
        loss.backward()
        optimizer.step()
        return loss

    @dl.compile
    def evaluate(x, target):
        with dl.no_grad():
            return loss_of(model, x, target)

    rng = np.random.default_rng(options.seed)
    last_start = len(validation) - options.context - 1
    checked = np.linspace(0, last_start, 8 * options.batch_size, dtype=int).reshape(8, -1)
    losses, validation_losses = [], []
    progress = tqdm(range(1, options.steps + 1), unit="step", disable=None)
    for number in progress:
        starts = rng.integers(0, len(training) - options.context, options.batch_size)
        loss = step(*map(dl.tensor, windows(training, starts, options.context)))
        if number % 10 == 1 or number == options.steps:
            losses.append((number, loss.item()))
        if number % max(1, options.steps // 10) == 0 or number == options.steps:
            with model.evaluating():
                parts = [
                    evaluate(*map(dl.tensor, windows(validation, part, options.context))).item()
                    for part in checked
                ]
            validation_losses.append((number, float(np.mean(parts))))
        if validation_losses:
            progress.set_postfix_str(f"loss {losses[-1][1]:.3f}, validation {validation_losses[-1][1]:.3f}")
    return losses, validation_losses


def write(model, codes, length, context, rng, temperature=0.8):
    """Return ``codes`` with more characters, drawn one after another by their probabilities."""
    codes = list(codes)
    with dl.no_grad(), model.evaluating():
        for _ in range(length):
            logits = model(np.array([codes[-context:]]))[0, -1]
            probabilities = dl.softmax(logits / temperature).numpy().astype("float64")
            codes.append(int(rng.choice(len(probabilities), p=probabilities / probabilities.sum())))
    return codes


def plot_losses(losses, validation_losses, baseline, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*losses, strict=True), color="tab:blue", alpha=0.6, linewidth=1, label="training")
    axes.plot(*zip(*validation_losses, strict=True), "o--", color="black", markersize=4, label="validation")
    axes.axhline(baseline, color="tab:gray", linewidth=1, linestyle=":")
    last = losses[-1][0]
    label = "frequencies of single characters"
    axes.text(last, baseline, label, ha="right", va="bottom", fontsize="small", color="gray")
    axes.set(xlabel="step", ylabel="nats a character", ylim=(0, 1.25 * baseline))
    axes.legend(frameon=False, loc="lower left")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="FILE", help="a text in UTF-8; by default, Python's documentation")
    parser.add_argument("--model", choices=["gpt", "lstm"], default="gpt")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=64, help="characters that are read at a time")
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4, help="blocks, or recurrent layers")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="after a warm-up; it falls to 0")
    parser.add_argument("--length", type=int, default=500, help="characters to write at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/character_model"), metavar="DIR")
    options = parser.parse_args(arguments)
    if min(options.steps, options.batch_size, options.context) < 1:
        parser.error("--steps, --batch-size and --context must be at least 1")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=options.out):
        pass  # a folder that cannot be written is an error now, not after the training
    text = read_text(options.data)
    if len(text) < 20 * (options.context + 2):
        raise ValueError(f"the text has {len(text)} characters, too few for a context of {options.context}")
    alphabet, codes = np.unique(np.array(list(text)), return_inverse=True)
    model = build_model(options, len(alphabet))
    print(f"{len(text):,} characters, {len(alphabet)} different; {model.parameter_count():,} parameters")

    losses, validation_losses = train(model, codes, options)

    model.save(options.out / "weights.safetensors")
    shares = np.bincount(codes) / len(codes)
    plot_losses(losses, validation_losses, -float(shares @ np.log(shares)), options.out / "losses.png")
    sample = write(model, codes[:10], options.length, options.context, np.random.default_rng(options.seed))
    written = "".join(alphabet[sample])
    (options.out / "sample.txt").write_text(written, encoding="utf-8")
    best = validation_losses[-1][1]
    figures = {"validation_loss": best, "perplexity": math.exp(best)}
    (options.out / "metrics.json").write_text(json.dumps(figures, indent=1))
    print(f"{written}\n\nvalidation loss {best:.4f} nats a character (perplexity {math.exp(best):.2f})")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
