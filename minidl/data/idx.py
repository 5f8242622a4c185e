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
