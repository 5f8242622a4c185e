"""Shared libraries of generated C: compiled once, kept in the user's cache folder, checked before use.

A library is native code: what is loaded runs with all rights of the user. So a file is used only if nobody
else could have written it, and if it ends with the checksums of itself and of the source that was asked
for. Whatever else is found under its name is built again and replaced.

Where something does not work, the next best is taken, with one warning that names the reason: without a
cache folder each process compiles for itself; where nothing can be compiled or mapped, the caller is told
so by `KernelsUnavailable`, and computes with NumPy.
"""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from minidl import files
from minidl.errors import KernelError

#: The cache is kept below these, by deleting what has not been used for longest.
MAX_BYTES, MAX_FILES = 256 << 20, 500
#: A compiler that takes longer than this hangs.
COMPILER_SECONDS = 600.0
#: Temporary files that are older belong to a process that was killed.
LEFTOVER_SECONDS = 3600.0

#: Whether this system runs other programs, such as a compiler; in a browser it does not.
RUNS_PROGRAMS = sys.platform not in ("emscripten", "wasi")

_SUFFIX = ".dll" if sys.platform == "win32" else ".so"


class KernelsUnavailable(KernelError):
    """This machine lets no generated kernel be compiled or loaded; the message says why."""


def load(source: str) -> ctypes.CDLL:
    """Return the library of C code, from this process, from the cache, or compiled now.

    Raises
    ------
    KernelError
        There is no compiler, or it refuses the code or does not come to an end.
    KernelsUnavailable
        The compiler cannot be run, there is no place to write, or the system maps no code.
    """
    program = compiler()
    if program is None:
        raise KernelError(
            "kernels='c' needs a C compiler (cc, gcc or clang on the PATH, or `pip install "
            "minidl[compiler]`); kernels='numpy' needs none"
        )
    key = hashlib.sha256("\0".join([source, *program.identity(), _processor()]).encode()).hexdigest()[:24]
    library = _loaded.pop(key, None) or _load(source, program, f"kernels-{key}{_SUFFIX}")
    _loaded[key] = library  # as the last
    for oldest in list(_loaded)[:-MAX_LOADED]:
        _loaded.pop(oldest, None)
    return library


#: This many libraries stay loaded without a program that uses them, since they may be asked for again.
MAX_LOADED = 32
#: The libraries that were asked for last, the newest at the end.
_loaded: dict[str, ctypes.CDLL] = {}


def _load(source: str, program: Compiler, name: str) -> ctypes.CDLL:
    folder = _folder()
    places = [folder, None] if folder is not None else [None]
    if folder is not None:
        library = _stored(folder / name, source, program)
        if library is not None:
            with suppress(KernelsUnavailable):  # made where the C library is a newer one: build it again
                return _mapped(library, places)
    library = _built(source, program, places)
    if folder is not None:
        _store(folder / name, library, source, program)
    return _mapped(library, places)


# --- compilers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiler:
    """A C compiler: how it is called, and with which options.

    Parameters
    ----------
    command : the program, and its first arguments
    version : what tells it from its next version
    flags : options that stand before the source
    libraries : options that stand behind it
    """

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]
    libraries: tuple[str, ...]

    def identity(self) -> list[str]:
        """Return everything that what it makes may depend on."""
        return [*self.command, self.version, *self.flags, *self.libraries]


@cache
def compiler() -> Compiler | None:
    """Return the first of cc, gcc, clang and the package ``ziglang`` that is installed, or None."""
    if not RUNS_PROGRAMS:
        return None
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            status = os.stat(path)
            return Compiler((path,), f"{status.st_size} {status.st_mtime_ns}", _flags(), _libraries())
    return zig()


def zig() -> Compiler | None:
    """Return the C compiler of the package ``ziglang``, which ``pip`` installs, or None."""
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        return None
    # Its own default is to stop the process at what C leaves undefined.
    flags = (*_flags(), "-fno-sanitize=undefined")
    libraries = () if _is_windows() else ("-lm",)
    return Compiler((sys.executable, "-m", "ziglang", "cc"), version, flags, libraries)


def _flags() -> tuple[str, ...]:
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    flags = ("-O3", "-mcpu=native" if is_arm else "-march=native", "-fno-math-errno", "-fno-trapping-math")
    return (*flags, "-fopenmp-simd", "-shared", *(() if _is_windows() else ("-fPIC",)))


def _libraries() -> tuple[str, ...]:
    return () if _is_windows() else ("-lm",)


def _is_windows() -> bool:
    return sys.platform == "win32"


@cache
def _processor() -> str:
    """Return what tells processors apart, because the code is made for the one it is built on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join(platform.uname())
    telling = ("model name", "flags", "CPU implementer", "CPU part", "Features", "isa")
    return platform.machine() + "".join(line for line in lines[:30] if line.startswith(telling))


# --- compiling ------------------------------------------------------------------------------------


def _built(source: str, program: Compiler, places: Sequence[Path | None]) -> bytes:
    """Return the bytes of a new library, compiled in the first place where that works."""
    reasons: list[str] = []
    refusal: KernelError | None = None
    for place in places:
        try:
            with _private_folder(place) as folder:
                return _compiled(source, program, folder)
        except OSError as error:
            reasons.append(str(error))
        except KernelError as error:  # perhaps since this place is full
            refusal = error
    raise refusal or KernelsUnavailable("; ".join(reasons))


#: Where a part of the source begins that only one of several runs of the compiler, side by side, compiles.
UNIT = "#if UNIT == {}"


def _compiled(source: str, program: Compiler, folder: Path) -> bytes:
    """Compile in a folder of one's own; return the bytes of the library."""
    written, library = folder / "kernels.c", folder / f"kernels{_SUFFIX}"
    written.write_text(source)
    units = 1
    while UNIT.format(units) + "\n" in source:
        units += 1
    parts = [written]
    if units > 1:
        flags = [flag for flag in program.flags if flag != "-shared"]
        parts = [folder / f"{unit}.o" for unit in range(units)]
        _run_all(
            [
                [*program.command, *flags, "-c", f"-DUNIT={unit}", str(written), "-o", str(part)]
                for unit, part in enumerate(parts)
            ],
            folder,
        )
    link = [*program.command, *program.flags, *map(str, parts), "-o", str(library), *program.libraries]
    _run_all([link], folder)
    return library.read_bytes()


def _run_all(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run the compiler several times at once, and wait for the end."""
    # Whatever the compiler writes on its way goes with the folder.
    settings = {"TMPDIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder), "LC_ALL": "C"}
    limit = time.monotonic() + COMPILER_SECONDS
    with ExitStack() as stack:
        running = []
        for command in commands:
            messages = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=subprocess.STDOUT,
                env=os.environ | settings,
                start_new_session=True,  # a group of processes, which can be ended together
            )
            stack.callback(_end, process)
            running.append((process, messages))
        for process, messages in running:
            _check_end(process, messages, commands[0][0], limit)


def _check_end(process: subprocess.Popen[bytes], messages: IO[bytes], name: str, limit: float) -> None:
    """Wait for the end of a run of the compiler; raise KernelError if it is not a good one."""
    try:
        code = process.wait(max(limit - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        raise KernelError(
            f"the C compiler {name} was stopped after {COMPILER_SECONDS:g} seconds: use "
            "kernels='numpy', which needs none, or compile smaller functions"
        ) from None
    if code:
        messages.seek(0)
        raise KernelError(
            f"the C compiler {name} refused a generated kernel, which is an error of minidl or "
            "of the compiler's installation; kernels='numpy' needs no compiler:\n"
            + messages.read().decode(errors="replace")
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, if it has not ended by itself."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


@contextmanager
def _private_folder(place: Path | None) -> Iterator[Path]:
    """Give a new folder that only this user may enter, in a place or among the temporary files; remove it."""
    folder = tempfile.mkdtemp(prefix=".build-", dir=place)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps a library that is in use


# --- loading --------------------------------------------------------------------------------------


def _mapped(library: bytes, places: Sequence[Path | None]) -> ctypes.CDLL:
    """Load a library from its bytes.

    What is loaded are the bytes that were checked, in a file that no other process sees, and not the file
    in the cache: that one may be replaced, deleted or damaged at any time, before it is loaded or after.
    """
    reasons: list[str] = []
    if hasattr(os, "memfd_create"):
        try:
            return _mapped_from_memory(library)
        except OSError as error:
            reasons.append(str(error))
    for place in places:
        try:
            with _private_folder(place) as folder:
                path = folder / f"kernels{_SUFFIX}"
                path.write_bytes(library)
                return _opened(str(path))
        except OSError as error:
            reasons.append(str(error))
    raise KernelsUnavailable("; ".join(reasons))


_numbers = itertools.count()


def _mapped_from_memory(library: bytes) -> ctypes.CDLL:
    """Load a library from memory that looks like a file: no folder need be writable, and no file is left."""
    handle = os.memfd_create("minidl-kernels")
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(library)
        # Numbers of files are used again, and the loader takes one path for one library. So each path is
        # spelled in its own way: the bits of a number as "/." and "/", which lead nowhere else.
        detour = format(next(_numbers), "b").replace("0", "/").replace("1", "/.")
        return _opened(f"/proc/self{detour}/fd/{handle}")
    finally:
        os.close(handle)


def _opened(path: str) -> ctypes.CDLL:
    """Load a library that is unloaded once nothing holds it or one of its functions; ctypes would keep it."""
    library = ctypes.CDLL(path)
    close = getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")
    weakref.finalize(library, close, library._handle).atexit = False
    return library


# --- the folder -----------------------------------------------------------------------------------


def location() -> Path:
    """Return where the folder of the cache is, or would be."""
    return files.cache_folder() / "kernels"


def _folder() -> Path | None:
    """Return the folder of the cache, which only this user may write to, or None."""
    try:
        folder = location()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except (OSError, RuntimeError) as error:
        _without_cache(str(error))
        return None
    if not stat.S_ISDIR(status.st_mode) or not _is_private(status):
        _without_cache(f"others may write to {folder}, or it belongs to another user")
        return None
    return folder


def _is_private(status: os.stat_result) -> bool:
    """Return whether a file or folder is this user's, and nobody else may write to it."""
    if not hasattr(os, "geteuid"):
        return True  # Windows: the user's folders are the user's
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _without_cache(reason: str) -> None:
    _warn_once(
        f"generated kernels cannot be kept, so each process compiles them: {reason}. "
        "MINIDL_CACHE names another folder"
    )


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def _trailer(library: bytes, source: str, program: Compiler) -> bytes:
    """Return what stands behind a library in its file, where loaders do not look: one line of JSON."""
    contents = {
        "library": hashlib.sha256(library).hexdigest(),
        "source": hashlib.sha256(source.encode()).hexdigest(),
        "compiler": program.identity(),
    }
    return json.dumps(contents).encode()


def _stored(path: Path, source: str, program: Compiler) -> bytes | None:
    """Return the bytes of a library from the cache, or None if there is none that may be loaded."""
    # Neither follow a link nor wait for the writer of a pipe.
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")]
    try:
        with open(os.open(path, os.O_RDONLY | sum(flags)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not _is_private(status) or status.st_size > MAX_BYTES:
                return None
            library, _, trailer = file.read().rpartition(b"\n")
        if trailer != _trailer(library, source, program):
            return None
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # used lately
    return library


def _store(path: Path, library: bytes, source: str, program: Compiler) -> None:
    """Keep a library; where that fails, say so and go on without."""
    try:
        if not stat.S_ISREG(_mode(path)):  # a link, or a pipe: nothing to be written through
            path.unlink(missing_ok=True)
        with files.replacing(path) as temporary:
            temporary.write_bytes(library + b"\n" + _trailer(library, source, program))
        path.chmod(0o600)
        _tidy(path.parent)
    except OSError as error:
        _without_cache(str(error))


def _mode(path: Path) -> int:
    """Return what kind of file lies at a path; 0 for none."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _tidy(folder: Path) -> None:
    """Delete what killed processes left, and the libraries that are too many, oldest use first."""
    now, kept = time.time(), []
    for path in folder.iterdir():
        with suppress(OSError):  # another process tidies too
            status = path.lstat()
            if path.name.startswith("kernels-"):
                kept.append((status.st_mtime, status.st_size, path))
            elif path.name.startswith((".build-", ".kernels-")) and now - status.st_mtime > LEFTOVER_SECONDS:
                if stat.S_ISDIR(status.st_mode):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
    kept.sort(reverse=True)
    total = 0
    for count, (_, size, path) in enumerate(kept, start=1):
        total += size
        if count > MAX_FILES or total > MAX_BYTES:
            with suppress(OSError):
                path.unlink()
