"""Files that are either complete or not there: written beside their place, then moved into it."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where it is used, which saves `import minidl` milliseconds
    from pathlib import Path

#: A temporary file that was not written to for this number of seconds was left by a killed process.
STALE_SECONDS = 3600


def cache_folder() -> Path:
    """Return the folder for files that can be made again: ``$MINIDL_CACHE``, or the user's cache folder.

    The path is absolute; an empty ``$MINIDL_CACHE`` counts as unset, and ``~`` in it is the home folder.

    Raises
    ------
    RuntimeError
        The user has no home folder.
    """
    from pathlib import Path

    given = os.environ.get("MINIDL_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    from platformdirs import user_cache_path  # takes milliseconds to import

    return user_cache_path("minidl", appauthor=False).expanduser().absolute()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it to ``path`` if the block ends without error.

    A reader sees the old file or the new one, never a part of one, even if the process is killed. Of a
    symbolic link, the file that it points to is replaced, and the link stays.

    Raises
    ------
    OSError
        The file cannot be written, or ``path`` is not a file but a folder, for example.
    """
    from pathlib import Path

    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(f"{str(path)!r} is not a file: it cannot be replaced by one")
    temporary = _create_temporary(path)
    try:
        _remove_stale(path, temporary)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _prefix(path: Path) -> str:
    """Return what the names of the temporary files of a path begin with, short enough for any file system."""
    encoded = os.fsencode(path.name)
    return f".{path.name}." if len(encoded) <= 100 else f".{zlib.crc32(encoded):08x}."


def _create_temporary(path: Path) -> Path:
    while True:
        temporary = path.with_name(f"{_prefix(path)}{os.urandom(4).hex()}.tmp")
        with contextlib.suppress(FileExistsError):
            # The system applies the umask; reading it here would change it for other threads meanwhile.
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
            return temporary


def _remove_stale(path: Path, newest: Path) -> None:
    """Remove the temporary files of this path that killed processes left."""
    now = newest.stat().st_mtime  # by the clock of the file system, which may be on another machine
    prefix = _prefix(path)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".tmp"):
                with contextlib.suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)


def import_h5py(path: str | os.PathLike[str], otherwise: str = "") -> Any:
    """Return the module h5py, which reads a file that is HDF5.

    Raises
    ------
    ImportError
        It is not installed: the message names the file, the command to install it, and another way if there
        is one.
    """
    try:
        import h5py
    except ImportError as error:
        message = f"{os.fspath(path)} is an HDF5 file, which needs the package h5py: install it with"
        raise ImportError(f"{message} `pip install h5py`{otherwise}", name="h5py") from error
    return h5py
