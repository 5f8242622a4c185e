"""The Penn Treebank words of Mikolov's experiments, on which language models are compared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy

from minidl.data.text import Vocabulary

#: The tokens of each part, the end of a sentence counted for each line, and the kinds of tokens.
TOKENS = {"train": 929_589, "valid": 73_760, "test": 82_430}
KINDS = 10_000
END = "<eos>"

#: A part takes less; a member of an archive that says it is larger is not read.
_MOST_BYTES = 20_000_000


class PennTreebank(NamedTuple):
    """The three parts as numbers of words, int32, and the vocabulary that they are numbers of."""

    train: numpy.ndarray
    valid: numpy.ndarray
    test: numpy.ndarray
    vocabulary: Vocabulary


def penn_treebank(path: str | os.PathLike[str]) -> PennTreebank:
    """Return the Penn Treebank, as Mikolov et al. (2010) prepared it: 10,000 words, rare ones "<unk>".

    Each line is a sentence, and ends with the token "<eos>". The counts are those that papers report:
    929,589 tokens to train, 73,760 to validate, 82,430 to test.

    Parameters
    ----------
    path : a folder with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or with a ``data`` folder that has
        them; or a zip archive

    Raises
    ------
    FileNotFoundError
        The path or a file in it does not exist.
    ValueError
        The counts are not those: it is another text, or another preparation of it. The message says which.
    """
    texts = {part: _read(Path(path), f"ptb.{part}.txt") for part in TOKENS}
    words = {part: text.replace("\n", f" {END} ").split() for part, text in texts.items()}
    problems = [
        f"{part} has {len(words[part]):,} tokens, not {expected:,}{_why(texts[part], words[part])}"
        for part, expected in TOKENS.items()
        if len(words[part]) != expected
    ]
    vocabulary = Vocabulary(words["train"])
    if len(vocabulary) != KINDS:
        problems.append(f"train has {len(vocabulary):,} kinds of tokens, not {KINDS:,}")
    others = {part: set(words[part]) - set(vocabulary.numbers) for part in ("valid", "test")}
    problems += [
        f"{part} has {len(unseen)} words that train has not, such as {min(unseen)!r}"
        for part, unseen in others.items()
        if unseen
    ]
    if problems:
        raise ValueError(f"{path} is not Mikolov's Penn Treebank: " + "; ".join(problems))
    train, valid, test = (vocabulary.encode(words[part]) for part in TOKENS)
    return PennTreebank(train, valid, test, vocabulary)


def _why(text: str, words: list[str]) -> str:
    """Return what a known mistake would explain."""
    if "_" in words:
        return " (it is the version for characters)"
    if text and not text.endswith("\n"):
        return " (the last line has no end: it may be cut off)"
    if END in text:
        return f" (the ends of sentences are marked with {END} already)"
    return ""


def _read(path: Path, name: str) -> str:
    if path.is_dir():
        for folder in (path, path / "data"):
            if (folder / name).is_file():
                return _decoded((folder / name).read_bytes(), folder / name)
        raise FileNotFoundError(f"there is no {name} in {path}")
    import zipfile  # not needed by those who only import minidl

    if not path.is_file():
        raise FileNotFoundError(f"there is no folder or archive {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [x for x in archive.infolist() if Path(x.filename).name == name]
            if not members:
                raise FileNotFoundError(f"there is no {name} in {path}")
            if members[0].file_size > _MOST_BYTES:
                raise ValueError(f"{name} in {path} takes {members[0].file_size:,} bytes: it is another file")
            with archive.open(members[0]) as file:
                content = file.read(_MOST_BYTES + 1)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is no zip archive, or a damaged one: {error}") from error
    return _decoded(content, path)


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} holds no text in UTF-8: {error}") from error
