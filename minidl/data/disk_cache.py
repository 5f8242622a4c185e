"""Arrays kept on disk between runs. Failures are ignored: the arrays are then made again."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy

from minidl import files


def load(name: str) -> dict[str, numpy.ndarray] | None:
    """Return the arrays stored under the name, or None if there are none or they cannot be read."""
    try:
        with (
            open(files.cache_folder() / f"{name}.npz", "rb") as file,
            numpy.load(file, allow_pickle=False) as stored,
        ):
            return {key: stored[key] for key in stored.files}
    except Exception:  # damaged bytes can raise nearly anything, and a cache that cannot be read is no cache
        return None


def store(name: str, arrays: dict[str, Any]) -> None:
    """Write the arrays under the name, whole or not at all; do nothing where that is not possible."""
    with suppress(OSError, RuntimeError):  # no folder, no permission, a full disk
        folder = files.cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
            numpy.savez_compressed(file, **arrays)
