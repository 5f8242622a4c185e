"""The files of MATLAB's digits: MAT 5.0 (what ``save`` writes with ``-v6`` or ``-v7``) and 7.3 (``-v7.3``).

MATLAB's arrays are column-major with the observations last; here they are row-major with the observations
first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import numpy

from minidl.data import mat_hdf5
from minidl.data.labelled_images import LabelledImages
from minidl.data.mat_format import HEADER, Opaque, byte_order, variables
from minidl.data.validation import check_finite

_WORKSPACE = ""  # the variable without a name holds the objects


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
        The file is not a MAT file, is damaged, has no images or those of both sets, or its images or angles
        have a wrong shape or type, or are not finite.
    OSError
        The file does not exist or cannot be read.
    ImportError
        The file is of version 7.3, which h5py reads, and h5py is not installed.
    """
    names = [f"{kind}{part}" for kind in ("X", "angles", "labels") for part in ("Train", "Test")]
    found = read_variables(path, (*names, _WORKSPACE))
    parts = [part for part in ("Train", "Test") if f"X{part}" in found]
    if len(parts) != 1:
        has = "both XTrain and XTest; expected one of them" if parts else "no XTrain and no XTest"
        others = [name for name in found if name != _WORKSPACE]
        raise ValueError(
            f"{path} has {has}" + ("" if parts else f"; it has {', '.join(others) or 'no variables'}")
        )
    part = parts[0]
    images = _images(found[f"X{part}"], f"X{part} of {path}")
    angles = found.get(f"angles{part}")
    if angles is not None:
        angles = _whole_numbers(angles, len(images), f"angles{part} of {path}", numpy.int16)
    return LabelledImages(images, _labels(found, part, len(images), path), angles)


def read_variables(path: str | os.PathLike[str], wanted: Collection[str]) -> dict[str, Any]:
    """Return the variables of a MAT file by their names, with None for those that are not wanted.

    What they are, `mat_format.variables` says. The objects of a file are a variable without a name.
    """
    with open(path, "rb") as file:
        head = file.read(HEADER)
        is_hdf5 = head.startswith((b"MATLAB 7.3", mat_hdf5.SIGNATURE))
        content = b"" if is_hdf5 else file.read()
    if not is_hdf5 and head[126:128] not in (b"IM", b"MI"):  # the mark of the byte order
        raise ValueError(f"{os.fspath(path)} is not a MAT file of version 5 to 7.3")
    found: dict[str, Any] = {}
    try:
        if is_hdf5:
            read = mat_hdf5.variables(path, wanted)
        else:
            read = variables(content, byte_order(head[126:128]), wanted)
        for name, value in read:
            if name in found and name != _WORKSPACE:
                raise ValueError(f"it has two variables {name!r}")
            found.setdefault(name, value)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # h5py raises nearly anything for damaged bytes
        raise ValueError(f"{os.fspath(path)} is a damaged MAT file: {error}") from error
    return found


def _images(stored: Any, name: str) -> numpy.ndarray:
    if not isinstance(stored, numpy.ndarray) or stored.dtype.kind != "f":
        raise ValueError(f"{name} holds {_type_name(stored)} values; expected double")
    if stored.ndim == 2:  # MATLAB drops trailing axes of length 1: this is a single image
        stored = stored[:, :, None, None]
    if stored.ndim != 4 or stored.shape[2] != 1 or stored.size == 0:
        raise ValueError(f"{name} has shape {stored.shape}; expected (height, width, 1, N)")
    with numpy.errstate(over="ignore"):  # what becomes infinite is refused
        images = numpy.ascontiguousarray(stored.transpose(3, 0, 1, 2), numpy.float32)
    check_finite(images, name)
    return images


def _whole_numbers(stored: Any, count: int, name: str, dtype: Any = numpy.int64) -> numpy.ndarray:
    """Return ``count`` whole numbers as an array (count,)."""
    if not isinstance(stored, numpy.ndarray) or stored.dtype.kind not in "iuf" or stored.size != count:
        raise ValueError(
            f"{name} holds {_type_name(stored)} values of shape {getattr(stored, 'shape', ())}; "
            f"expected {count} whole numbers"
        )
    check_finite(stored, name)
    with numpy.errstate(invalid="ignore"):  # what is too large for the dtype is another number afterwards
        numbers = stored.reshape(count).astype(dtype)
    if not (numbers == stored.reshape(count)).all():
        raise ValueError(f"{name} holds fractions or numbers too large for {numpy.dtype(dtype)}")
    return numbers


def _type_name(stored: Any) -> str:
    if isinstance(stored, numpy.ndarray):
        name: str = stored.dtype.name
        return name
    if isinstance(stored, Opaque):
        return stored.kind
    kinds: dict[type, str] = {list: "cell", dict: "struct", str: "char"}
    return kinds.get(type(stored), type(stored).__name__)


def _note(text: str, *details: Any) -> None:
    """Log what was left out."""
    import logging  # takes milliseconds to import

    logging.getLogger(__name__).info(text, *details)


def _labels(found: dict[str, Any], part: str, count: int, path: Any) -> numpy.ndarray | None:
    """Return the labels (count,) int64, or None with a note in the log if they cannot be decoded."""
    name = f"labels{part}"
    try:
        if isinstance(found.get(name), numpy.ndarray):
            return _whole_numbers(found[name], count, f"{name} of {path}")
        if found.get(_WORKSPACE) is not None:
            return _categorical(_properties(found[_WORKSPACE]), count)
        problem = f"it is a {_type_name(found[name])}" if name in found else "there is none"
        _note("%s of %s cannot be decoded: %s", name, path, problem)
    except Exception as error:  # the format of objects is a guess, so is what can go wrong with it
        _note("%s of %s cannot be decoded: %s", name, path, error)
    return None


def _properties(workspace: Any) -> Any:
    """Return the properties of all objects in a file.

    In MAT 5.0 they are in one byte array, itself the inside of a MAT file: version and order of bytes as at
    the end of a file's header, 4 bytes of nothing, a struct with the properties, and a second, empty byte
    array.

    Source: https://github.com/foreverallama/matio, docs on the subsystem.
    """
    if not isinstance(workspace, numpy.ndarray):
        return workspace
    content = workspace.tobytes()
    _, properties = next(variables(content[8:], byte_order(content[2:4])))
    return properties


def _categorical(properties: Any, count: int) -> numpy.ndarray:
    """Return the labels of a ``categorical`` with ``count`` elements among the objects of a file.

    A categorical has the properties ``codes``, which count from 1, and ``categoryNames``, here '0' to '9'.
    Which property is whose is encoded in a table; it is simpler to look for arrays that can be nothing else.
    """
    arrays = list(_leaves(properties))
    codes = [array for array in arrays if _are_codes(array, count)]
    if len(codes) != 1:
        raise ValueError(f"{len(codes)} arrays could be the codes of a categorical")
    index: numpy.ndarray = codes[0].ravel().astype(numpy.int64) - 1
    names = [digits for digits in map(_as_digits, arrays) if digits is not None and len(digits) > index.max()]
    return names[0][index] if len(names) == 1 else index


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the value and all that lies in it."""
    yield value
    if isinstance(value, Opaque):
        yield from _leaves(value.value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _leaves(inner)


def _are_codes(x: Any, count: int) -> bool:
    return bool(
        isinstance(x, numpy.ndarray)
        and x.dtype.kind in "ui"
        and x.size == count
        and x.min() >= 1
        and x.max() <= 10
    )


def _as_digits(cells: Any) -> numpy.ndarray | None:
    """Return the digits that a cell array of strings such as '7' stands for, or None if it is not one."""
    if not isinstance(cells, list) or not cells:
        return None
    if not all(isinstance(cell, str) and len(cell) == 1 and cell in "0123456789" for cell in cells):
        return None
    return numpy.array([int(cell) for cell in cells], numpy.int64)
