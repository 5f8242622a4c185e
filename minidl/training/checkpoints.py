"""Checkpoints: everything that decides the rest of a training, in one file.

A checkpoint is a safetensors file: arrays by name, and one JSON text in its metadata. It is written
beside its place and moved there, so it is complete or not there at all. A checksum finds files whose
contents have changed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy

from minidl import weights
from minidl.errors import CheckpointError

_FORMAT = "minidl checkpoint"
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")


@dataclass
class Checkpoint:
    """What a checkpoint holds: arrays by name, and values that JSON can hold."""

    arrays: dict[str, numpy.ndarray]
    values: dict[str, Any]

    def part(self, prefix: str) -> dict[str, numpy.ndarray]:
        """Return the arrays whose names begin with ``prefix/``, without it."""
        start = f"{prefix}/"
        return {name[len(start) :]: array for name, array in self.arrays.items() if name.startswith(start)}


def write(path: str | PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint file, whole or not at all."""
    # A safetensors file sorts its arrays: their order is kept here.
    values = json.dumps({"order": list(checkpoint.arrays), **checkpoint.values})
    weights.save(checkpoint.arrays, path, {"format": _FORMAT, "values": values})


def read(path: str | PathLike[str]) -> Checkpoint:
    """Read a checkpoint file.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or not a checkpoint.
    """
    try:
        arrays, texts = weights.read_with_texts(path)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {Path(path)}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{Path(path)} is damaged or not a safetensors file: {error}") from error
    if texts.get("format") != _FORMAT:
        raise CheckpointError(
            f"{Path(path)} is a safetensors file, but not a checkpoint of a training; "
            "weights alone are read with network.load()"
        )
    try:
        _ = texts[weights.CHECKSUM]
        content = json.loads(texts["values"])
        return Checkpoint({name: arrays[name] for name in content.pop("order")}, content)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{Path(path)} holds no whole checkpoint: {error!r}") from error


class CheckpointFolder:
    """The checkpoints of one training: ``checkpoint-000039.safetensors`` by step, and the best weights.

    Parameters
    ----------
    path : created if it is not there
    keep_last : how many checkpoints to keep, at least 1; older ones are deleted after a new one is
        written
    """

    def __init__(self, path: str | PathLike[str], keep_last: int):
        import tempfile

        self.path = Path(path)
        self.keep_last = keep_last
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.path):
            pass  # a folder that cannot be written is an error now, not after an hour
        for left_over in self.path.glob(".*.safetensors.*.tmp"):  # of a process that was killed
            left_over.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuse the folder to other trainings for a ``with`` block; the system ends that with the process.

        Raises
        ------
        CheckpointError
            Another training writes its checkpoints into the folder at this moment.
        """
        try:
            import fcntl  # not on Windows, which has no such lock for folders
        except ImportError:
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(
                    f"another training is writing checkpoints into {self.path}: choose another folder, or "
                    "wait for its end"
                ) from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(handle)

    def steps(self) -> dict[int, Path]:
        """Return the checkpoint files by step, oldest first."""
        found = {}
        for path in self.path.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                found[int(match.group(1))] = path
        return dict(sorted(found.items()))

    def newest(self) -> Path | None:
        """Return the newest checkpoint file, or None."""
        return next(reversed(self.steps().values()), None)

    def write(self, step: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then delete the oldest ones beyond keep_last."""
        write(self.path / f"checkpoint-{step:06d}.safetensors", checkpoint)
        for path in list(self.steps().values())[: -self.keep_last]:
            path.unlink(missing_ok=True)

    def write_best(self, state: dict[str, numpy.ndarray]) -> None:
        """Write the weights of the best validation, for network.load()."""
        weights.save(state, self.path / "best.safetensors")
