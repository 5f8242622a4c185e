"""IDX, the file format of MNIST (http://yann.lecun.com/exdb/mnist).

Two zero bytes, a byte for the type of the values, a byte for the number of axes, the length of each axis as
a 32-bit integer, then the values, the last axis running fastest; all of it big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_MAX_AXES = 64  # of a NumPy array


def read_idx(path: str | os.PathLike[str]) -> numpy.ndarray:
    """Return the array in an IDX file, of the file's shape and type; the file may be gzipped.

    Raises
    ------
    ValueError
        The file is not IDX, is truncated, or has trailing bytes after the last value.
    OSError
        The file does not exist or cannot be read.
    """
    path = Path(path)
    with _opened(path) as file, _named(path):
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES or head[3] > _MAX_AXES:
            raise ValueError(
                f"{path} is not an IDX file: it starts with the bytes [{head.hex(' ')}], an IDX file "
                "with 00 00, a type from 08 to 0e and a number of axes"
            )
        dtype, axes = numpy.dtype(_DTYPES[head[2]]), head[3]
        lengths = file.read(4 * axes)
        if len(lengths) < 4 * axes:
            raise ValueError(
                f"{path} is truncated: {4 + len(lengths)} bytes, and its header alone takes {4 + 4 * axes}"
            )
        shape = tuple(int(length) for length in numpy.frombuffer(lengths, ">u4", axes))
        expected = math.prod(shape) * dtype.itemsize
        if math.prod(length or 1 for length in shape) * dtype.itemsize > sys.maxsize:
            raise ValueError(f"{path} is truncated: no array can have the shape {shape}")
        most = _most(path, file) - 4 - 4 * axes
        values = _read(file, expected, most)
        if len(values) != expected or file.read(1):
            truncated = len(values) < expected
            problem = "is truncated" if truncated else "has trailing bytes after the last value"
            found: Any = most
            if isinstance(file, gzip.GzipFile):
                found = "fewer" if truncated else "more"
            raise ValueError(
                f"{path} {problem}: {shape} values of type {dtype.name} take {expected} bytes; found {found}"
            )
    array = numpy.frombuffer(values, dtype).reshape(shape)
    return array.byteswap(inplace=True).view(dtype.newbyteorder("=")) if not array.dtype.isnative else array


def _opened(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        zipped = file.read(2) == _GZIP
    return cast("BinaryIO", gzip.open(path)) if zipped else open(path, "rb")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in errors of the libraries."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    except (MemoryError, OverflowError) as error:
        raise ValueError(f"{path} holds more than memory can: {error!r}") from error


def _most(path: Path, file: BinaryIO) -> int:
    """Return how many bytes a file can hold at most: one gzipped byte stands for 1,032 or fewer."""
    return path.stat().st_size * (1032 if isinstance(file, gzip.GzipFile) else 1)


def _read(file: BinaryIO, expected: int, most: int) -> bytearray:
    """Return the expected number of bytes, or fewer if there are fewer; take memory for those alone."""
    values = bytearray()
    if expected > most:
        return values
    while len(values) < expected and (part := file.read(min(1 << 20, expected - len(values)))):
        values += part
    return values
