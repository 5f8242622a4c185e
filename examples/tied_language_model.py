"""Train word language models whose output weights are their input embedding, and models where they are not.

Press & Wolf (2017), "Using the Output Embedding to Improve Language Models": a recurrent network reads words
through an embedding, and predicts the next word by an output matrix of the same shape. Tying makes the two
one Parameter, used twice. A projection, a square matrix before the output, is kept small by a penalty. The
settings are those of Zaremba et al. (2014). Run it with --help to see what can be changed.
"""

import argparse
import json
import math
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minidl as dl

VARIANTS = ("plain", "tied", "projection", "tied-projection")
PENALTY = 0.5 / 6.5  # of the projection's squared norm (Press & Wolf, 2017, section 3.2, say 0.15, halved)


@dataclass(frozen=True)
class Settings:
    """How a model is made and trained (Zaremba et al., 2014)."""

    units: int
    dropout: float  # between layers, and before and after them; not from step to step
    start: float  # weights begin uniform in -start .. start
    steps: int  # words that gradients flow back through
    epochs: int
    steady: int  # epochs before the learning rate begins to fall
    decay: float  # what it is multiplied by in each later epoch
    clip: float  # the largest norm of all gradients together
    streams: int = 20
    learning_rate: float = 1.0


SIZES = {
    "small": Settings(200, 0.0, 0.1, steps=20, epochs=13, steady=4, decay=0.5, clip=5.0),
    "medium": Settings(650, 0.5, 0.05, steps=35, epochs=39, steady=6, decay=0.8, clip=5.0),
    "large": Settings(1500, 0.65, 0.04, steps=35, epochs=55, steady=14, decay=1 / 1.15, clip=10.0),
}


class LanguageModel(dl.Layer):
    """Words (batch, time) to logits (batch, time, vocabulary) of the next ones.

    The output matrix has a row for each word, as the embedding has. To tie them is to use the embedding's.
    """

    def __init__(self, vocabulary, settings, variant, seed):
        generator = dl.Generator(seed)
        units, start = settings.units, settings.start

        def uniform(shape, rng):
            return rng.uniform(-start, start, shape)

        def lstm():
            return dl.LSTM(
                units,
                units,
                return_sequences=True,
                stateful=True,
                weight_initializer=uniform,
                recurrent_initializer=uniform,
                bias_initializer="zeros",
                seed=generator,
            )

        self.dropout = dl.Generator(seed)
        self.embedding = dl.Embedding(vocabulary, units, weight_initializer=uniform, seed=generator)
        self.recurrent = dl.Network(
            [
                dl.Dropout(settings.dropout, seed=self.dropout),
                lstm(),
                dl.Dropout(settings.dropout, seed=self.dropout),
                lstm(),
                dl.Dropout(settings.dropout, seed=self.dropout),
            ]
        )
        self.projection = None
        if variant.endswith("projection"):
            self.projection = dl.Dense(units, units, weight_initializer=uniform, seed=generator)
        if variant.startswith("tied"):
            self.output_weight = self.embedding.weight
        else:
            self.output_weight = dl.Parameter(
                uniform((vocabulary, units), np.random.default_rng(seed)).astype("float32")
            )
        self.output_bias = dl.Parameter(dl.zeros(vocabulary))

    def forward(self, words):
        h = self.recurrent(self.embedding(words))
        if self.projection is not None:
            h = self.projection(h)
        return h @ self.output_weight.T + self.output_bias

    def reset_state(self, streams):
        for layer in self.recurrent:
            if isinstance(layer, dl.LSTM):
                layer.reset_state(streams)


def mean_loss(model, words, following):
    """Return the mean cross-entropy of the next word, in nats."""
    logits = model(words)
    return dl.softmax_cross_entropy(logits.reshape(-1, logits.shape[-1]), following.reshape(-1))


def make_step(model, optimizer, settings):
    """Return the compiled training step; it gives the mean cross-entropy of a window."""

    @dl.compile
    def step(words, following):
        loss = mean_loss(model, words, following)
        total = loss * settings.steps  # the sum over the window: a mean would make the steps too small
        if model.projection is not None:
            total = total + PENALTY / settings.streams * (model.projection.weight**2).sum()
        total.backward()
        optimizer.step()
        return loss

    return step


def make_perplexity(model):
    """Return a function that measures the perplexity of a text."""

    @dl.compile
    def loss_of(words, following):
        with dl.no_grad():
            return mean_loss(model, words, following)

    def perplexity(codes, streams):
        length = len(codes) // streams - 1
        steps = min(range(15, 41), key=lambda count: length % count)  # so that few words are left over
        model.reset_state(streams)
        with model.evaluating():
            losses = [
                loss_of(dl.tensor(words), dl.tensor(following)).item()
                for words, following in dl.data.windows(codes, streams, steps)
            ]
        return math.exp(np.mean(losses))

    return perplexity


def train(variant, text, settings, seed, folder):
    """Train a variant, or go on where it was left; return the model and a dict for each epoch."""
    model = LanguageModel(len(text.vocabulary), settings, variant, seed)
    optimizer = dl.SGD(
        model.parameters(), settings.learning_rate, momentum=0.0, clip_global_norm=settings.clip
    )
    step, perplexity = make_step(model, optimizer, settings), make_perplexity(model)
    history = load_progress(model, settings, seed, folder)
    batches = dl.data.windows(text.train, settings.streams, settings.steps)
    tokens = settings.streams * settings.steps

    progress = tqdm(
        total=settings.epochs * len(batches) * tokens,
        initial=len(history) * len(batches) * tokens,
        unit="word",
        unit_scale=True,
        desc=variant,
        disable=None,
    )
    for epoch in range(len(history), settings.epochs):
        optimizer.learning_rate = settings.learning_rate * settings.decay ** max(
            0, epoch + 1 - settings.steady
        )
        model.dropout.load_state_dict(dl.Generator(1000 * seed + epoch).state_dict())
        model.reset_state(settings.streams)
        losses, began = [], time.perf_counter()
        for words, following in batches:
            losses.append(step(dl.tensor(words), dl.tensor(following)))
            progress.update(tokens)
            if len(losses) % 50 == 1:
                progress.set_postfix_str(f"epoch {epoch + 1}, perplexity {math.exp(losses[-1].item()):.1f}")
        seconds = time.perf_counter() - began
        mean = float(np.mean([loss.item() for loss in losses]))
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss of epoch {epoch + 1} is {mean}: lower the learning rate")
        history.append(
            {
                "epoch": epoch + 1,
                "train": math.exp(mean),
                "valid": perplexity(text.valid, settings.streams),
                "words_per_second": len(losses) * tokens / seconds,
            }
        )
        if epoch + 1 == settings.epochs:
            history[-1]["test"] = perplexity(text.test, settings.streams)
        save_progress(model, settings, seed, history, folder)
        progress.write(
            "{epoch:4} epochs: perplexity {train:7.2f} train, {valid:7.2f} valid, "
            "{words_per_second:,.0f} words a second".format(**history[-1])
        )
    progress.close()
    return model, history


def save_progress(model, settings, seed, history, folder):
    folder.mkdir(parents=True, exist_ok=True)
    model.reset_state(settings.streams)  # the states of the last window are of no use to anybody
    model.save(folder / "weights.safetensors")
    content = {"settings": asdict(settings), "seed": seed, "history": history}
    temporary = folder / "history.json.part"
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(folder / "history.json")


def load_progress(model, settings, seed, folder):
    """Load what an earlier run has reached; return its history, empty if there is none."""
    model.reset_state(settings.streams)
    if not (folder / "history.json").exists():
        return []
    content = json.loads((folder / "history.json").read_text())
    then = {**content["settings"], "epochs": settings.epochs, "seed": content["seed"]}
    if then != {**asdict(settings), "seed": seed}:
        raise ValueError(f"{folder} holds a run with other settings: choose another --out")
    model.load(folder / "weights.safetensors")
    return content["history"][: settings.epochs]


# --- text -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """Three parts of a text as numbers of words, and the vocabulary."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: dl.data.Vocabulary


def read_text(path):
    """Return the Penn Treebank of a folder or zip, the words of a file, or of Python's documentation."""
    if path is not None and (Path(path).is_dir() or Path(path).suffix == ".zip"):
        return dl.data.penn_treebank(path)
    if path is None:
        from pydoc_data.topics import topics

        content = "\n".join(topics[name] for name in sorted(topics))
    else:
        content = Path(path).read_text(encoding="utf-8")
    words = re.findall(r"\w+|[^\w\s]|\n", content.lower().replace("\n\n", "\n"))
    vocabulary = dl.data.Vocabulary(words, size=10_000, unknown="<unk>")
    codes = vocabulary.encode(words)
    return Text(*np.split(codes, [int(0.9 * len(codes)), int(0.95 * len(codes))]), vocabulary)


# --- what is shown ----------------------------------------------------------------------------------


def neighbours(table, vocabulary, word, count=5):
    """Return the words whose rows of a table point most nearly in the direction of a word's row."""
    rows = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    closeness = rows @ rows[vocabulary.numbers[word]]
    return vocabulary.decode(np.argsort(-closeness)[1 : count + 1])


def print_neighbours(models, vocabulary, words):
    """Print the neighbours of words in the embeddings and output matrices of the models."""
    frequent = set(vocabulary.tokens[:2000])
    words = [word for word in words if word in frequent] or list(vocabulary.tokens[60:200:30])
    for variant in ("plain", "tied"):
        if variant not in models:
            continue
        model = models[variant]
        tables = {"input": model.embedding.weight, "output": model.output_weight}
        if variant == "tied":
            tables = {"tied": model.embedding.weight}
        for name, table in tables.items():
            print(f"\nnearest neighbours in the {name} embedding of the model '{variant}':")
            for word in words:
                print(f"  {word:>12}: {', '.join(neighbours(table.numpy(), vocabulary, word))}")


def plot_perplexities(histories, path):
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for variant, history in histories.items():
        epochs = [entry["epoch"] for entry in history]
        (line,) = axes.plot(epochs, [entry["valid"] for entry in history], "o-", markersize=3, label=variant)
        axes.plot(epochs, [entry["train"] for entry in history], ":", color=line.get_color(), linewidth=1)
    lowest = min(min(entry["train"], entry["valid"]) for history in histories.values() for entry in history)
    first = max(history[0]["valid"] for history in histories.values())
    axes.set(xlabel="epoch", ylabel="perplexity (dotted: training)", yscale="log")
    axes.set_ylim(0.9 * lowest, 1.2 * first)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=[*VARIANTS, "all"], default="all")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--units", type=int, help="units of each layer, instead of the size's")
    parser.add_argument("--epochs", type=int, help="instead of the size's; the decay follows them")
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a folder or zip with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or any text file; by "
        "default, Python's documentation",
    )
    parser.add_argument("--words", type=int, help="train on this many words only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/tied_language_model"), metavar="DIR")
    options = parser.parse_args(arguments)
    for name in ("units", "epochs", "words"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(arguments=None):
    options = parse_arguments(arguments)
    settings = SIZES[options.size]
    given = {name: getattr(options, name) for name in ("units", "epochs")}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    options.out.mkdir(parents=True, exist_ok=True)
    text = read_text(options.data)
    text = Text(text.train[: options.words], text.valid, text.test, text.vocabulary)
    print(
        f"{len(text.train):,} words to train, {len(text.valid):,} to validate, {len(text.test):,} to test; "
        f"a vocabulary of {len(text.vocabulary):,}"
    )
    models, histories = {}, {}
    for variant in VARIANTS if options.variant == "all" else [options.variant]:
        folder = options.out / variant
        models[variant], histories[variant] = train(variant, text, settings, options.seed, folder)
        plot_perplexities(histories, options.out / "perplexity.png")

    print_neighbours(models, text.vocabulary, ["company", "year", "could", "million", "if", "monday", "he"])
    print(f"\n{'variant':>16} {'parameters':>11} {'train':>8} {'valid':>8} {'test':>8}   words a second")
    for variant, history in histories.items():
        last, speeds = history[-1], [entry["words_per_second"] for entry in history]
        print(
            f"{variant:>16} {models[variant].parameter_count():>11,} {last['train']:8.2f} "
            f"{last['valid']:8.2f} {last.get('test', math.nan):8.2f}   {np.median(speeds):,.0f}"
        )
    (options.out / "metrics.json").write_text(json.dumps(histories, indent=1))


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
