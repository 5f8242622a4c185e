"""IDX, the file format of MNIST (http://yann.lecun.com/exdb/mnist).

Two zero bytes, a byte for the type of the values, a byte for the number of axes, the length of each axis as
a 32-bit integer, then the values, the last axis running fastest; all of it big-endian.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

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
    content = _content(Path(path))
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _DTYPES or content[3] > _MAX_AXES:
        raise ValueError(
            f"{path} is not an IDX file: it starts with the bytes [{content[:4].hex(' ')}], an IDX file "
            "with 00 00, a type from 08 to 0e and a number of axes"
        )
    dtype, axes = numpy.dtype(_DTYPES[content[2]]), content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} is truncated: {len(content)} bytes, and its header alone takes {start}")
    shape = tuple(int(length) for length in numpy.frombuffer(content, ">u4", axes, offset=4))
    expected, found = math.prod(shape) * dtype.itemsize, len(content) - start
    if found != expected:
        problem = "is truncated" if found < expected else "has trailing bytes after the last value"
        raise ValueError(
            f"{path} {problem}: {shape} values of type {dtype.name} take {expected} bytes; found {found}"
        )
    return numpy.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file: {error}") from error
