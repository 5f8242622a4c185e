"""Files that are either whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for files that can be made again: ``$MINIDL_CACHE``, or the user's cache folder.

    Raises
    ------
    RuntimeError
        The user has no home folder.
    """
    if "MINIDL_CACHE" in os.environ:
        return Path(os.environ["MINIDL_CACHE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local", "minidl", "cache")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "minidl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "minidl")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it to ``path`` if the block ends without error.

    A reader sees the old file or the new one, never a part of one, even if the process is killed.
    """
    import tempfile  # takes milliseconds to import, which who writes nothing need not wait for

    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)  # mkstemp makes files private; a saved file gets the usual permissions
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
