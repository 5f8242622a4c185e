"""Folders with the IDX files of MNIST and of the data sets that are published like it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy

from minidl.data.idx import read_idx
from minidl.data.labelled_images import LabelledImages

#: What the files of one part are called: a prefix, the part, what is in them, and how.
_NAME = re.compile(
    r"(?P<set>[\w-]+-)?(?P<part>train|t10k|test|test10k|test50k)[-.](?P<kind>images|labels)"
    r"[-.]idx(?P<axes>\d)-(?:ubyte|int)(?:\.gz)?"
)


def read_idx_folder(
    folder: str | os.PathLike[str], name: str | None = None, dtype: str = "float32"
) -> tuple[LabelledImages, LabelledImages]:
    """Return the training and test images of a folder with MNIST's files, or files named like them.

    Images are (N, 28, 28, 1) float32 with values k/255 (or whatever height and width the files have);
    labels are None where there is no file of labels; there are no angles. The files may be gzipped.

    =====================================  ====================================================
    MNIST, Fashion-MNIST, KMNIST           ``train-images-idx3-ubyte``, ``t10k-images.idx3-ubyte``
    EMNIST                                 ``emnist-letters-train-images-idx3-ubyte.gz``, whose images are
                                           stored by columns: they are turned upright; letters are 1 to 26
    QMNIST                                 ``qmnist-test-labels-idx2-int``, whose first column is the class
    =====================================  ====================================================

    A folder that has only the test set is split in two halves, in order: of MNIST's 10,000 images, 5,000
    to train and 5,000 to test.

    Parameters
    ----------
    name : which data set, if the folder has several, for example ``"emnist-letters"``
    dtype : ``"float32"``, or ``"uint8"`` for the bytes as they are, a quarter of the memory

    Raises
    ------
    FileNotFoundError
        There is no such folder, or there are no test images in it.
    ValueError
        A file is damaged, images are not three-dimensional bytes, or labels do not match them; or the
        folder has several data sets and no name was given.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if numpy.dtype(dtype) not in (numpy.float32, numpy.uint8):
        raise ValueError(f"read_idx_folder gives images of float32 or uint8, got dtype {dtype!r}")
    name, files = _files(folder, name)
    train, test = (
        _read_part(files, parts, name, dtype) for parts in (("train",), ("t10k", "test", "test10k"))
    )
    if test is None:
        raise FileNotFoundError(
            f"{folder} has no test images: no file t10k-images-idx3-ubyte or t10k-images.idx3-ubyte, "
            "with or without .gz"
        )
    return (train, test) if train is not None else _halves(test, folder)


def _files(folder: Path, name: str | None) -> tuple[str, dict[tuple[str, str], Path]]:
    """Return the name of the data set in a folder, and its files by part and kind."""
    sets: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            found = sets.setdefault((match["set"] or "").rstrip("-"), {})
            found.setdefault((match["part"], match["kind"]), path)
    if name is None and len(sets) > 1:
        names = ", ".join(repr(found) for found in sets)
        raise ValueError(f"{folder} has several data sets: pass name=, one of {names}")
    if name is None:
        name = next(iter(sets), "")
    if name and name not in sets:
        known = ", ".join(repr(found) for found in sets) or "none"
        raise FileNotFoundError(f"{folder} has no files of {name!r}; it has those of {known}")
    return name, sets.get(name, {})


def _read_part(
    files: dict[tuple[str, str], Path], parts: tuple[str, ...], name: str, dtype: str
) -> LabelledImages | None:
    part = next((part for part in parts if (part, "images") in files), None)
    if part is None:
        return None
    image_file, label_file = files[part, "images"], files.get((part, "labels"))
    images = read_idx(image_file)
    if images.ndim != 3 or images.dtype != numpy.uint8:
        raise ValueError(
            f"{image_file} holds {images.dtype} values of shape {images.shape}; expected images: "
            "uint8 of shape (N, height, width)"
        )
    if name.startswith("emnist"):
        images = numpy.ascontiguousarray(images.swapaxes(1, 2))
    images = (
        images[..., None] if numpy.dtype(dtype) == numpy.uint8 else images[..., None] / numpy.float32(255)
    )
    if label_file is None:
        return LabelledImages(images)
    labels = read_idx(label_file)
    if labels.ndim == 2 and labels.shape[1] == 8:  # QMNIST: class, then who wrote it, where, ...
        labels = labels[:, 0]
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{label_file} holds {labels.dtype} values of shape {labels.shape}; expected one whole number "
            f"for each of the {len(images)} images of {image_file.name}"
        )
    return LabelledImages(images, labels.astype(numpy.int64))


def _halves(whole: LabelledImages, folder: Path) -> tuple[LabelledImages, LabelledImages]:
    middle = len(whole.images) // 2
    if middle == 0:
        raise ValueError(f"{folder} has {len(whole.images)} images: too few to split into two halves")
    labels = (None, None) if whole.labels is None else (whole.labels[:middle], whole.labels[middle:])
    first = LabelledImages(whole.images[:middle], labels[0])
    return first, LabelledImages(whole.images[middle:], labels[1])
