"""The format of MAT 5.0 files, as far as it is published: variables by name, and how they nest.

Every length in a file is checked against what is there before anything is made from it, so a damaged file is
an error, and takes no more memory than it holds. (SciPy's reader, in C, can end the process.)

Source: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
#: What the elements of data hold, by their type.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
#: How characters are stored, by the type of the element.
_ENCODINGS = {1: "latin-1", 2: "latin-1", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
#: The dtypes of numeric arrays, by their class.
_CLASSES = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_COMPLEX = 0x800
#: How deep cells and structs may lie in each other: MATLAB's own files stay far below.
MAX_DEPTH = 64
#: How many bytes one byte of deflated data can stand for, at most.
MAX_RATIO = 1032


@dataclass(frozen=True)
class Opaque:
    """A variable of a kind that is not read: its name, and for an object of a class, what it holds."""

    kind: str
    value: Any = None


def byte_order(mark: bytes) -> str:
    """Return ``"<"`` or ``">"`` from the mark of two bytes at the end of the header.

    Raises
    ------
    ValueError
        It is no such mark.
    """
    if mark not in (b"IM", b"MI"):
        raise ValueError("it is not a MAT file of version 5 to 7")
    return "<" if mark == b"IM" else ">"


def variables(content: bytes, order: str, wanted: Collection[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield the variables after a header, each with its name; None for those that are not wanted.

    Numeric arrays are NumPy's, text is str, cells are lists, structs are dicts of lists, anything else is
    `Opaque`. What is not wanted is checked as well.

    Raises
    ------
    ValueError
        The content is damaged or truncated, or nested too deep.
    """
    for kind, data in _elements(memoryview(content), order):
        if kind == _COMPRESSED:
            [(kind, data)] = _elements(_inflated(data, order), order)
        if kind != _MATRIX:
            raise ValueError(f"a variable has type {kind}")
        name, value = matrix(data, order)
        keeps = wanted is None or name in wanted
        yield name, _native(value) if keeps else None


def _native(value: Any) -> Any:
    """Return a numeric array in the dtype of its class, and a copy, so that the file's content can go."""
    if isinstance(value, _Stored):
        return value.data.astype(value.dtype).reshape(value.shape, order="F")
    if isinstance(value, Opaque):
        return Opaque(value.kind, _native(value.value))
    if isinstance(value, dict):
        return {name: _native(items) for name, items in value.items()}
    return [_native(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class _Stored:
    """A numeric array as it lies in the file: small whole numbers stand for doubles, for example."""

    data: numpy.ndarray
    dtype: str
    shape: tuple[int, ...]


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the elements that fill the data, one after another."""
    start = 0
    while start < len(data):
        if len(data) - start < 8:
            raise ValueError(f"{len(data) - start} bytes are left, too few for an element")
        first, length = (int(x) for x in numpy.frombuffer(data, f"{order}u4", 2, start))
        if first >> 16:  # a small element: its content takes the place of the length
            kind, length, begin, end = first & 0xFFFF, first >> 16, start + 4, start + 8
            if length > 4:
                raise ValueError(f"a small element has {length} bytes")
        else:
            kind, begin = first, start + 8
            end = begin + length + (0 if kind == _COMPRESSED else -length % 8)
        if begin + length > len(data):
            raise ValueError(f"an element of {length} bytes has {len(data) - begin}: the file is truncated")
        yield kind, data[begin : begin + length]
        start = end


def _inflated(data: memoryview, order: str) -> memoryview:
    """Return the element inside a compressed one."""
    try:
        inflate = zlib.decompressobj()
        head = inflate.decompress(data, 8)
        if len(head) < 8:
            raise ValueError("a compressed element is empty or truncated")
        length = int(numpy.frombuffer(head, f"{order}u4", 2)[1])
        if length > MAX_RATIO * len(data):
            raise ValueError(f"{len(data)} compressed bytes cannot stand for {length}")
        content = head + inflate.decompress(inflate.unconsumed_tail, length + 8)
    except zlib.error as error:
        raise ValueError(f"a compressed element is damaged: {error}") from error
    if not inflate.eof or inflate.unused_data or len(content) < 8 + length:
        raise ValueError("a compressed element is truncated, or longer than it says")
    return memoryview(content)


def matrix(data: memoryview, order: str, depth: int = 0) -> tuple[str, Any]:
    """Return name and value of what MATLAB calls a matrix: any variable, or what lies in one."""
    if depth > MAX_DEPTH:
        raise ValueError(f"variables are nested deeper than {MAX_DEPTH} times")
    if not len(data):
        return "", _Stored(numpy.zeros(0), "f8", (0, 0))
    parts = _elements(data, order)
    flags = _integers(_next(parts), order)
    if len(flags) != 2:
        raise ValueError("a variable has no flags")
    kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
    if kind == _OPAQUE:
        name, _, class_name = (_text(_next(parts), order) for _ in range(3))
        return name, Opaque(class_name, _inner(parts, order, depth))
    shape = tuple(int(length) for length in _integers(_next(parts), order))
    name = _text(_next(parts), order)
    if min(shape, default=-1) < 0 or len(shape) > 32:
        raise ValueError(f"the variable {name!r} has shape {shape}")
    if kind in _CLASSES and is_complex:
        return name, Opaque("complex")
    if kind in _CLASSES:
        return name, _numbers(_next(parts), order, _CLASSES[kind], shape, name)
    if kind == _CHAR:
        return name, _text(_next(parts), order)
    if kind == _CELL:
        return name, _several(parts, math.prod(shape), len(data), order, depth)
    if kind == _STRUCT:
        return name, _struct(parts, math.prod(shape), len(data), order, depth)
    if kind in (_OBJECT, _SPARSE, _FUNCTION):
        return name, Opaque({_OBJECT: "object", _SPARSE: "sparse", _FUNCTION: "function"}[kind])
    raise ValueError(f"the variable {name!r} has class {kind}")


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    for part in parts:
        return part
    raise ValueError("a variable ends too early")


def _inner(parts: Iterator[tuple[int, memoryview]], order: str, depth: int) -> Any:
    kind, data = _next(parts)
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} is where a variable should be")
    return matrix(data, order, depth + 1)[1]


def _several(
    parts: Iterator[tuple[int, memoryview]], count: int, length: int, order: str, depth: int
) -> list[Any]:
    if 8 * count > length:
        raise ValueError(f"{count} cells or fields cannot be in {length} bytes")
    return [_inner(parts, order, depth) for _ in range(count)]


def _struct(
    parts: Iterator[tuple[int, memoryview]], count: int, length: int, order: str, depth: int
) -> dict[str, list[Any]]:
    lengths = _integers(_next(parts), order)
    _, names = _next(parts)
    if len(lengths) != 1 or lengths[0] < 1 or len(names) % lengths[0]:
        raise ValueError("a struct has no names of fields")
    step = int(lengths[0])
    fields = [
        bytes(names[i : i + step]).partition(b"\0")[0].decode("latin-1") for i in range(0, len(names), step)
    ]
    values = _several(parts, count * len(fields), length, order, depth)
    return {name: values[i :: len(fields)] for i, name in enumerate(fields)}


def _numbers(
    part: tuple[int, memoryview], order: str, dtype: str, shape: tuple[int, ...], name: str
) -> _Stored:
    data = _integers(part, order)
    if len(data) != math.prod(shape):
        raise ValueError(f"the variable {name!r} of shape {shape} holds {len(data)} values")
    return _Stored(data, dtype, shape)


def _integers(part: tuple[int, memoryview], order: str) -> numpy.ndarray:
    """Return the numbers in an element of data."""
    kind, data = part
    if kind not in _DTYPES:
        raise ValueError(f"an element of type {kind} is where numbers should be")
    dtype = numpy.dtype(f"{order}{_DTYPES[kind]}")
    if len(data) % dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no whole number of {dtype.name} values")
    return numpy.frombuffer(data, dtype)


def _text(part: tuple[int, memoryview], order: str) -> str:
    kind, data = part
    if kind not in _ENCODINGS:
        raise ValueError(f"an element of type {kind} is where text should be")
    encoding = _ENCODINGS[kind]
    if encoding.startswith(("utf-16", "utf-32")):
        encoding += "-le" if order == "<" else "-be"
    return bytes(data).decode(encoding)
