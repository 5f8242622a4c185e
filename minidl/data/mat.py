"""The files of MATLAB's digits: MAT 5.0 (what ``save`` writes with ``-v6`` or ``-v7``), compressed or not.

MATLAB's arrays are column-major with the observations last; here they are row-major with the observations
first. scipy.io has already seen to the order in memory when an array arrives: ``X[row, column, 0, n]``.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy

from minidl.data.labelled_images import LabelledImages
from minidl.data.validation import check_finite

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WORKSPACE = "__function_workspace__"  # scipy's name for the variable without one that holds the objects


def read_mat(path: str | os.PathLike[str]) -> LabelledImages:
    """Return the images, and the labels and angles if there are any, of a file of MATLAB's digits.

    The file has ``XTrain`` (height, width, 1, N), float, and perhaps ``anglesTrain`` and ``labelsTrain``
    (N, 1); or the same with ``Test``. In some copies the labels are a ``categorical``, an object in a
    format that MathWorks has not published: they are decoded where that is possible. Where it is not,
    labels are None, and the logger ``minidl.data.mat`` says why at level INFO.

    Returns
    -------
    LabelledImages
        Images (N, height, width, 1) float32 in C order, labels (N,) int64, angles (N,) int16.

    Raises
    ------
    ValueError
        The file is not a MAT file, is one of version 7.3, is damaged, has no images or those of both sets,
        or its images or angles have a wrong shape or type, or are not finite.
    OSError
        The file does not exist or cannot be read.
    """
    content = Path(path).read_bytes()
    _check_version(content, path)
    found = _load(content, path, ("XTrain", "XTest", "anglesTrain", "anglesTest"))
    parts = [part for part in ("Train", "Test") if f"X{part}" in found]
    if len(parts) != 1:
        has = (
            "both XTrain and XTest; expected one of them"
            if parts
            else f"no XTrain and no XTest{_rest(content)}"
        )
        raise ValueError(f"{path} has {has}")
    part = parts[0]
    images = _images(found[f"X{part}"], f"X{part} of {path}")
    angles = found.get(f"angles{part}")
    if angles is not None:
        angles = _whole_numbers(angles, len(images), f"angles{part} of {path}").astype(numpy.int16)
    return LabelledImages(images, _labels(content, part, len(images), path), angles)


def _check_version(content: bytes, path: Any) -> None:
    if content.startswith((b"MATLAB 7.3", _HDF5)):
        raise ValueError(
            f"{path} is a MAT file of version 7.3 (HDF5), which cannot be read here; "
            "in MATLAB, load it and save it again with save(name, '-v7')"
        )
    if content[126:128] not in (b"IM", b"MI"):  # the mark of the byte order
        raise ValueError(f"{path} is not a MAT file of version 5 to 7")


def _load(content: bytes, path: Any, names: Iterable[str] | None) -> dict[str, Any]:
    """Return the variables of these names, or all; raise ValueError with the path if that fails."""
    from scipy.io import loadmat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns if there are two objects: it gives both one name
            return dict(loadmat(io.BytesIO(content), variable_names=names))
    except Exception as error:  # damaged bytes can make scipy raise nearly anything
        raise ValueError(f"{path} is a damaged MAT file: {error}") from error


def _rest(content: bytes) -> str:
    """Return what the file has instead of images, for an error message."""
    try:
        found = _load(content, "", None)
    except ValueError:
        return ""
    # "None" is what scipy calls an object.
    names = [name for name in found if not name.startswith("__") and name != "None"]
    return f"; it has {', '.join(names) or 'no variables'}"


def _images(stored: Any, name: str) -> numpy.ndarray:
    if not isinstance(stored, numpy.ndarray) or stored.dtype.kind != "f":
        raise ValueError(f"{name} holds {_type_name(stored)} values; expected double")
    if stored.ndim == 2:  # MATLAB drops trailing axes of length 1: this is a single image
        stored = stored[:, :, None, None]
    if stored.ndim != 4 or stored.shape[2] != 1 or stored.size == 0:
        raise ValueError(f"{name} has shape {stored.shape}; expected (height, width, 1, N)")
    images = numpy.ascontiguousarray(stored.transpose(3, 0, 1, 2), numpy.float32)
    check_finite(images, name)
    return images


def _whole_numbers(stored: Any, count: int, name: str) -> numpy.ndarray:
    """Return ``count`` whole numbers as an int64 array (count,)."""
    if not isinstance(stored, numpy.ndarray) or stored.dtype.kind not in "iuf" or stored.size != count:
        raise ValueError(
            f"{name} holds {_type_name(stored)} values of shape {getattr(stored, 'shape', ())}; "
            f"expected {count} whole numbers"
        )
    check_finite(stored, name)
    numbers = stored.reshape(count).astype(numpy.int64)
    if not (numbers == stored.reshape(count)).all():
        raise ValueError(f"{name} holds fractions; expected {count} whole numbers")
    return numbers


def _type_name(stored: Any) -> str:
    return stored.dtype.name if isinstance(stored, numpy.ndarray) else type(stored).__name__


def _note(text: str, *details: Any) -> None:
    """Log what was left out."""
    import logging  # takes milliseconds to import

    logging.getLogger(__name__).info(text, *details)


def _labels(content: bytes, part: str, count: int, path: Any) -> numpy.ndarray | None:
    """Return the labels (count,) int64, or None with a note in the log: labels are never a reason to fail."""
    name = f"labels{part}"
    try:
        found = _load(content, path, (name, _WORKSPACE))
        if name in found:
            return _whole_numbers(found[name], count, f"{name} of {path}")
        if _WORKSPACE in found:
            return _categorical(found[_WORKSPACE].tobytes(), count)
        _note("%s has no %s", path, name)
    except Exception as error:  # the format of objects is a guess, so is what can go wrong with it
        _note("%s of %s cannot be decoded: %s", name, path, error)
    return None


def _categorical(workspace: bytes, count: int) -> numpy.ndarray:
    """Return the labels of a ``categorical`` with ``count`` elements among the objects of a file.

    All objects of a MAT file are in one byte array, itself the inside of a MAT file: version and order of
    bytes as at the end of a file's header, 4 bytes of nothing, a struct with the properties of all objects,
    and a second, empty byte array. A categorical has the properties ``codes``, which count from 1, and
    ``categoryNames``, here '0' to '9'. Which property is whose is encoded in a table; it is simpler to look
    for arrays that can be nothing else.

    Source: https://github.com/foreverallama/matio, docs on the subsystem.
    """
    # The tag of the struct is workspace[8:16]; the second half of it is the number of bytes that follow.
    length = int.from_bytes(workspace[12:16], "little" if workspace[2:4] == b"IM" else "big")
    # Without what follows the struct: that has no name either, and scipy would return it instead.
    file = b"MATLAB 5.0 MAT-file".ljust(124) + workspace[:4] + workspace[8 : 16 + length]
    arrays = list(_arrays_within(_load(file, "the workspace", None)[_WORKSPACE]))
    codes = [array for array in arrays if _are_codes(array, count)]
    if len(codes) != 1:
        raise ValueError(f"{len(codes)} arrays could be the codes of a categorical")
    index = codes[0].ravel().astype(numpy.int64) - 1
    names = [array for array in map(_as_digits, arrays) if array is not None and len(array) > index.max()]
    return names[0][index] if len(names) == 1 else index


def _arrays_within(value: Any) -> Iterator[numpy.ndarray]:
    """Yield the array and, if it is a struct or a cell array, all arrays inside."""
    if not isinstance(value, numpy.ndarray):
        return
    yield value
    for field in value.dtype.names or ():
        yield from _arrays_within(value[field])
    if value.dtype == object:
        for item in value.ravel():
            yield from _arrays_within(item)


def _are_codes(array: numpy.ndarray, count: int) -> bool:
    return array.dtype.kind in "ui" and array.size == count and array.min() >= 1 and array.max() <= 10


def _as_digits(cells: numpy.ndarray) -> numpy.ndarray | None:
    """Return the digits that a cell array of strings such as '7' stands for, or None if it is not one."""
    if cells.dtype != object or cells.size == 0:
        return None
    texts = [cell for cell in cells.ravel() if isinstance(cell, numpy.ndarray) and cell.dtype.kind == "U"]
    names = ["".join(text.ravel()) for text in texts]
    if len(names) < cells.size or not all(len(name) == 1 and name in "0123456789" for name in names):
        return None
    return numpy.array([int(name) for name in names], numpy.int64)
