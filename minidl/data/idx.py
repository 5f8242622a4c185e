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

from minidl.data.labelled_images import LabelledImages

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


def read_idx_folder(folder: str | os.PathLike[str]) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and test images of a folder with MNIST's files, or files named like them.

    Images are (N, 28, 28, 1) float32 with values k/255 (or whatever height and width the files have);
    labels are None where there is no file of labels; there are no angles. The files may be gzipped, and
    named ``train-images-idx3-ubyte`` or ``train-images.idx3-ubyte``. A folder that has only the test set
    (``t10k``) is split in two halves, in order: of MNIST's 10,000 images, 5,000 to train and 5,000 to test.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or there are no test images in it.
    ValueError
        A file is damaged, images are not three-dimensional bytes, or labels do not match them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    test = _read_part(folder, "t10k")
    if test is None:
        raise FileNotFoundError(
            f"{folder} has no test images: no file t10k-images-idx3-ubyte or t10k-images.idx3-ubyte, "
            "with or without .gz"
        )
    train = _read_part(folder, "train")
    return (train, test) if train is not None else _halves(test, folder)


def _read_part(folder: Path, part: str) -> LabelledImages | None:
    image_file, label_file = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    if image_file is None:
        return None
    images = read_idx(image_file)
    if images.ndim != 3 or images.dtype != numpy.uint8:
        raise ValueError(
            f"{image_file} holds {images.dtype} values of shape {images.shape}; expected images: "
            "uint8 of shape (N, height, width)"
        )
    images = images[..., None] / numpy.float32(255)
    if label_file is None:
        return LabelledImages(images)
    labels = read_idx(label_file)
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{label_file} holds {labels.dtype} values of shape {labels.shape}; expected one whole number "
            f"for each of the {len(images)} images of {image_file.name}"
        )
    return LabelledImages(images, labels.astype(numpy.int64))


def _find(folder: Path, stem: str, axes: int) -> Path | None:
    names = [f"{stem}{dot}idx{axes}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _halves(whole: LabelledImages, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    middle = len(whole.images) // 2
    if middle == 0:
        raise ValueError(f"{folder} has {len(whole.images)} images: too few to split into two halves")
    labels = (None, None) if whole.labels is None else (whole.labels[:middle], whole.labels[middle:])
    first = LabelledImages(whole.images[:middle], labels[0])
    return first, LabelledImages(whole.images[middle:], labels[1])
