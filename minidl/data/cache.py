"""Arrays kept on disk between runs. Everything here may fail, and nothing here may be the reason to stop."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy


def load(name: str) -> dict[str, numpy.ndarray] | None:
    """Return the arrays stored under the name, or None if there are none or they cannot be read."""
    try:
        with open(folder() / f"{name}.npz", "rb") as file, numpy.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except Exception:  # damaged bytes can raise nearly anything, and a cache that cannot be read is no cache
        return None


def store(name: str, arrays: dict[str, Any]) -> None:
    """Write the arrays under the name, whole or not at all; do nothing where that is not possible."""
    with suppress(OSError, RuntimeError):  # no folder, no permission, a full disk
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=place)
        try:
            with os.fdopen(handle, "wb") as file:
                numpy.savez_compressed(file, **arrays)
            os.replace(temporary, place / f"{name}.npz")
        finally:
            Path(temporary).unlink(missing_ok=True)  # gone already if it was moved


def folder() -> Path:
    """Return the folder of the cache: ``$MINIDL_CACHE``, or minidl's part of the user's cache folder.

    Raises
    ------
    RuntimeError
        The user has no home folder.
    """
    if os.environ.get("MINIDL_CACHE"):
        return Path(os.environ["MINIDL_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "minidl", "cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minidl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "minidl")
