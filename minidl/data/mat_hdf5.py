"""The format of MAT 7.3 files: HDF5, in which attributes tell what of MATLAB's a dataset or group is.

h5py reads HDF5. What a file holds is checked before an array is made of it, so that a damaged file takes no
more memory than it has. Arrays lie with their axes reversed; a cell is a dataset of references to its items;
a struct is a group of fields, and an array of structs a group of datasets of references.

Source: https://www.mathworks.com/help/matlab/import_export/mat-file-versions.html, and files.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import numpy

from minidl import files
from minidl.data.mat_format import MAX_DEPTH, MAX_RATIO, Opaque

SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: MATLAB's classes of numbers, and their dtypes; logical values are uint8, as in MAT 5.0.
_NUMBERS = {
    f"{sign}int{bits}": f"{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_NUMBERS |= {"double": "f8", "single": "f4", "logical": "u1"}
#: Where the objects of a file are, and what every other variable refers to.
_OBJECTS, _REFERRED = "#subsystem#", "#refs#"


def variables(
    path: str | os.PathLike[str], wanted: Collection[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield the variables of a file, each with its name; None for those that are not wanted.

    They are what `mat_format.variables` makes of MAT 5.0. The variable without a name is the list of the
    properties of all objects.

    Raises
    ------
    ImportError
        h5py is not installed.
    Exception
        The content is damaged: which, depends on h5py.
    """
    h5py = files.import_h5py(path, ", or save the file again in MATLAB with save(name, '-v7')")
    with h5py.File(path, "r") as file:
        reader = _Reader(h5py, file, os.path.getsize(path))
        for name in file:
            if name == _REFERRED:
                continue
            if name == _OBJECTS:
                if wanted is None or "" in wanted:
                    yield "", reader.objects(file)
                continue
            keeps = wanted is None or name in wanted
            yield name, reader.value(reader.member(file, name), 0) if keeps else None


class _Reader:
    """What of a file has been read already, by its address: many cells may refer to one array."""

    def __init__(self, h5py: Any, file: Any, size: int) -> None:
        self.h5py, self.file, self.size = h5py, file, size
        self.found: dict[int, Any] = {}

    def member(self, group: Any, name: str) -> Any:
        """Return what a name stands for in a group of this file."""
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere")
        return group[name]

    def value(self, item: Any, depth: int) -> Any:
        """Return a variable, or what lies in one."""
        if depth > MAX_DEPTH:
            raise ValueError(f"variables are nested deeper than {MAX_DEPTH} times")
        address = self.h5py.h5o.get_info(item.id).addr
        if address not in self.found:
            self.found[address] = self._read(item, depth)
        return self.found[address]

    def objects(self, file: Any) -> Any:
        """Return the properties of all objects, or None if there are none."""
        properties = file[_OBJECTS].get("MCOS")
        return None if properties is None else self._referred(properties, 0)

    def _read(self, item: Any, depth: int) -> Any:
        kind = _text_of(item.attrs.get("MATLAB_class", b""))
        if "MATLAB_sparse" in item.attrs:
            return Opaque("sparse")
        if "MATLAB_object_decode" in item.attrs:
            return Opaque(kind)
        if kind == "struct":
            return self._struct(item, depth)
        if isinstance(item, self.h5py.Group):
            return Opaque(kind or "group without a class of MATLAB's")
        if kind == "cell":
            return self._referred(item, depth)
        if kind == "char":
            return "" if _is_empty(item) else self._array(item).astype("u2").tobytes().decode("utf-16")
        if kind not in _NUMBERS:
            return Opaque(kind or "dataset without a class of MATLAB's")
        if _is_empty(item):
            return numpy.zeros(self._empty_shape(item), _NUMBERS[kind])
        if item.dtype.names:
            return Opaque("complex")
        return self._array(item).astype(_NUMBERS[kind], copy=False).T

    def _struct(self, item: Any, depth: int) -> dict[str, list[Any]]:
        if not isinstance(item, self.h5py.Group):
            self._empty_shape(item)
            return {name: [] for name in self._fields(item)}
        found = {}
        for name in self._fields(item) or item:
            field = self.member(item, name)
            several = isinstance(field, self.h5py.Dataset) and "MATLAB_class" not in field.attrs
            found[name] = self._referred(field, depth) if several else [self.value(field, depth + 1)]
        return found

    def _fields(self, item: Any) -> list[str]:
        """Return the names of a struct's fields in their order, if they are stored: as single characters."""
        return [b"".join(name.tolist()).decode() for name in item.attrs.get("MATLAB_fields", ())]

    def _referred(self, item: Any, depth: int) -> list[Any]:
        """Return what a dataset of references refers to, in MATLAB's order."""
        if _is_empty(item):
            self._empty_shape(item)
            return []
        if self.h5py.check_ref_dtype(item.dtype) is not self.h5py.Reference:
            raise ValueError(f"{item.name!r} holds {item.dtype}, where references should be")
        references = self._array(item).reshape(-1)
        if not all(references):
            raise ValueError(f"{item.name!r} holds a reference to nothing")
        return [self.value(self.file[reference], depth + 1) for reference in references]

    def _empty_shape(self, item: Any) -> tuple[int, ...]:
        """Return the shape of an array without elements, which the dataset holds in their place."""
        shape = tuple(int(length) for length in self._array(item).reshape(-1))
        if not shape or min(shape) or len(shape) > 32:
            raise ValueError(f"{item.name!r} of shape {shape} holds no elements")
        return shape

    def _array(self, item: Any) -> numpy.ndarray:
        """Return the content of a dataset, if the file is large enough to hold it."""
        if item.is_virtual or item.external:
            raise ValueError(f"{item.name!r} lies in other files")
        whole = item.size * item.dtype.itemsize
        chunk = int(numpy.prod(item.chunks or (0,), dtype=object)) * item.dtype.itemsize
        stored = min(item.id.get_storage_size(), self.size)
        if max(whole, chunk) > stored * (MAX_RATIO if item.chunks else 1):
            raise ValueError(f"{item.name!r} of {whole} bytes cannot be in {stored}")
        array: numpy.ndarray = item[()]
        return array


def _is_empty(item: Any) -> bool:
    return bool(item.attrs.get("MATLAB_empty", 0))


def _text_of(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
