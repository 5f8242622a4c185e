"""Text as numbers: characters or words, a vocabulary of them, and windows of parallel streams."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy


class Vocabulary:
    """The kinds of tokens, and a number for each: the most frequent ones first, equal ones in their order.

    Parameters
    ----------
    tokens : a text, of which every character is a token; or an iterable of words, such as ``text.split()``
    size : keep only the most frequent kinds, ``unknown`` among them
    unknown : the token that stands for those without a number; without it they are refused

    Examples
    --------
    >>> vocabulary = Vocabulary("the cat and the hat".split(), unknown="<unk>")
    >>> vocabulary.encode("the dog and the cat".split()).tolist()
    [1, 0, 2, 1, 3]
    >>> vocabulary.decode([1, 3])
    ['the', 'cat']
    """

    def __init__(self, tokens: Iterable[str], size: int | None = None, unknown: str | None = None):
        counts = Counter(tokens)
        if unknown is not None and unknown not in counts:
            kinds = [unknown, *sorted(counts, key=lambda token: (-counts[token], token))]
        else:
            kinds = sorted(counts, key=lambda token: (-counts[token], token))
        if size is not None and size < len(kinds):
            if unknown is None:
                raise ValueError("Vocabulary: a size needs unknown=, the token that stands for all others")
            if size < 1:
                raise ValueError(f"Vocabulary: size must be at least 1, got {size}")
            kept = kinds[: operator.index(size)]
            kinds = kept if unknown in kept else [*kept[:-1], unknown]
        if not kinds:
            raise ValueError("Vocabulary: there are no tokens")
        self.tokens, self.unknown = tuple(kinds), unknown
        self.numbers = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        first = ", ".join(repr(token) for token in self.tokens[:5])
        return f"Vocabulary({len(self)} tokens: {first}{', ...' if len(self) > 5 else ''})"

    def encode(self, tokens: Iterable[str]) -> numpy.ndarray:
        """Return the numbers of tokens, int32.

        Raises
        ------
        ValueError
            A token has no number, and the vocabulary has no ``unknown``.
        """
        tokens, numbers = list(tokens), self.numbers
        other = None if self.unknown is None else numbers[self.unknown]
        codes = [numbers.get(token, other) for token in tokens]
        if None in codes:
            raise ValueError(
                f"the token {tokens[codes.index(None)]!r} is not in the vocabulary, which has no unknown="
            )
        return numpy.array(codes, numpy.int32)

    def decode(self, numbers: Any) -> list[str]:
        """Return the tokens of numbers: ``"".join(...)`` of characters is the text."""
        numbers = numpy.asarray(numbers).ravel()
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise ValueError(
                f"numbers of tokens must be from 0 to {len(self) - 1}, got {numbers.min()} to {numbers.max()}"
            )
        return [self.tokens[number] for number in numbers]


class Windows:
    """Mini-batches of a long text for networks that carry their state on; made by ``windows``."""

    def __init__(self, streams: numpy.ndarray, steps: int):
        self.streams, self.steps = streams, steps

    def __len__(self) -> int:
        length: int = self.streams.shape[1]
        return (length - 1) // self.steps

    def __iter__(self) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        for start in range(0, len(self) * self.steps, self.steps):
            yield (
                self.streams[:, start : start + self.steps],
                self.streams[:, start + 1 : start + self.steps + 1],
            )


def windows(codes: Any, streams: int, steps: int) -> Windows:
    """Return the mini-batches of a text that is read in parallel streams (Zaremba et al., 2014).

    The text is cut into equally long streams, one below the other. Each mini-batch has the next ``steps``
    tokens of every stream, and as targets the tokens that follow each, both (streams, steps). Row i of a
    mini-batch goes on where row i of the one before ended: a ``stateful`` layer reads on, and mini-batches
    must not be shuffled. What is left over at the end is dropped. It can be iterated again and again.

    Parameters
    ----------
    codes : the numbers of the tokens, one after another
    streams : how many rows a mini-batch has
    steps : how many tokens of each

    Examples
    --------
    >>> for inputs, targets in windows(range(11), streams=2, steps=2):
    ...     print(inputs.tolist(), targets.tolist())
    [[0, 1], [5, 6]] [[1, 2], [6, 7]]
    [[2, 3], [7, 8]] [[3, 4], [8, 9]]
    """
    codes = numpy.asarray(codes)
    if codes.ndim != 1 or codes.dtype.kind not in "iu":
        raise TypeError(f"windows takes the numbers of tokens in a row, got {codes.dtype} {codes.shape}")
    streams, steps = operator.index(streams), operator.index(steps)
    if streams < 1 or steps < 1:
        raise ValueError(f"windows takes at least 1 stream and 1 step, got {streams} and {steps}")
    length = len(codes) // streams
    if length < steps + 1:
        raise ValueError(
            f"{len(codes)} tokens are too few for {streams} streams of {steps} steps: at least "
            f"{streams * (steps + 1)}"
        )
    return Windows(codes[: streams * length].reshape(streams, length), steps)
