"""Indexing, its scatter-add gradient, and assignment.

Positions given by arrays are inputs of the primitives, not attributes, so that a recorded program
can be replayed with other positions. A key holds everything else; ``SLOT`` marks in it where the
arrays belong.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.primitives.axes import normalize_axis
from minidl.primitives.elementwise import where
from minidl.primitives.primitive import Kind, Primitive
from minidl.primitives.shape import moveaxis
from minidl.tensor import Tensor, TensorLike, as_tensor, as_tensors


class _Slot:
    def __repr__(self) -> str:
        return "SLOT"


SLOT = _Slot()


def _fill(key: tuple[Any, ...], positions: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the key with its slots filled by the arrays."""
    remaining = iter(positions)
    return tuple(next(remaining) if part is SLOT else part for part in key)


def _index(xp: Any, x: Any, *positions: Any, key: tuple[Any, ...], out: Any = None) -> Any:
    result = x[_fill(key, positions)]
    if out is None:
        return result
    xp.copyto(out, result)
    return out


def _scatter_add(
    xp: Any, g: Any, *positions: Any, key: tuple[Any, ...], shape: tuple[Any, ...], out: Any = None
) -> Any:
    if out is None:
        out = xp.empty(shape, g.dtype)
    out.fill(0)
    if positions:
        xp.add.at(out, _fill(key, positions), g)  # the same position may stand there several times
    else:
        out[key] = g
    return out


slice_: Primitive = Primitive(
    "slice",
    _index,
    gradients=(lambda g, out, x, key: scatter_add_(g, key=key, shape=x.shape),),
    kind=Kind.VIEW,
    keeps_inputs=True,
)
gather_: Primitive = Primitive(
    "gather",
    _index,
    gradients=lambda index, g, out, x, *positions, key: scatter_add_(g, *positions, key=key, shape=x.shape),
)
scatter_add_: Primitive = Primitive(
    "scatter_add",
    _scatter_add,
    gradients=lambda index, gg, out, g, *positions, key, shape: index_by_key(gg, key, positions),
)


def index_by_key(x: Any, key: tuple[Any, ...], positions: tuple[Any, ...]) -> Tensor:
    """Apply a prepared key: a view if it holds no arrays, else a gather."""
    return gather_(x, *positions, key=key) if positions else slice_(x, key=key)


def _literal(positions: Any, device: str) -> devices.Array:
    """Return positions written as a list: like numbers, they have no device of their own."""
    array = numpy.asarray(positions)
    return devices.to_device(array if array.size else array.astype(numpy.int64), device)


def prepared_key(x: Any, key: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return a key with slots for its arrays, and the arrays: positions, for a bool mask those it chooses."""
    prepared: list[Any] = []
    positions: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            prepared.append(part)
        elif isinstance(part, (bool, numpy.bool_)):
            if not part:
                raise TypeError("False is an index by itself alone")
            prepared.append(None)  # a new axis, in which the one element is chosen
        elif isinstance(part, (int, numpy.integer)):
            prepared.append(int(part))
        else:
            array = part if hasattr(part, "dtype") else _literal(part, x.device)
            if not isinstance(array.dtype, numpy.dtype):
                array = devices.from_any(array)  # of another library
            if array.dtype.kind not in "iub":
                raise TypeError(
                    f"an index is made of integers, slices, None, ... or bool masks, got {part!r}"
                )
            with devices.current(array):
                found = array.nonzero() if array.dtype.kind == "b" else (array,)
            prepared.extend([SLOT] * len(found))
            positions.extend(found)
    return tuple(prepared), tuple(positions)


def index(x: Any, key: Any) -> Tensor:
    """Return ``x[key]`` with NumPy's meaning: integers, slices, None, ..., and arrays of positions.

    A bool mask is turned into positions first, so the shape of the result depends on its values.
    """
    if key is False or (isinstance(key, numpy.bool_) and not key):
        return index_by_key(x, (None,), ())[:0]
    return index_by_key(x, *prepared_key(x, key))


def _set_items(xp: Any, x: Any, value: Any, *positions: Any, key: tuple[Any, ...], out: Any = None) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)
    xp.copyto(out, x)
    out[_fill(key, positions)] = value
    return out


set_items_: Primitive = Primitive("set_items", _set_items, gradients=())


def with_items(x: Any, key: Any, value: Any) -> Tensor:
    """Return x with ``x[key]`` replaced by a value, which is what ``x[key] = value`` assigns.

    No gradient flows through it. A bool mask of the shape of x may be computed in a compiled function.
    """
    value = as_tensors((x, value))[1].detach().astype(x.dtype)
    mask = key if isinstance(key, Tensor) else None
    if mask is not None and mask.dtype.kind == "b" and mask.shape == x.shape and value.size == 1:
        return where(mask, value.reshape(()), x.detach())
    prepared, positions = prepared_key(x, key)
    return set_items_(x.detach(), value, *positions, key=prepared)


def take(x: TensorLike, indices: Any, axis: int | None = None) -> Tensor:
    """Return the elements at positions along an axis, or of all elements in one."""
    x = as_tensor(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    return index(x, (slice(None),) * normalize_axis(axis, x.ndim, "take") + (indices,))


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Tensor:
    """Return ``x[..., indices[..., i, ...], ...]``: for each place along an axis, an element of its line.

    The other axes of ``indices`` are those of x, or broadcast with them.
    """
    x, indices = as_tensor(x), as_tensor(indices)
    if axis is None:
        x, axis = x.reshape(-1), 0
    position = normalize_axis(axis, x.ndim, "take_along_axis")
    if indices.ndim != x.ndim or indices.dtype.kind not in "iu":
        raise ValueError(
            f"take_along_axis: x of shape {x.shape} takes integers of {x.ndim} axes, "
            f"got {indices.dtype} of shape {indices.shape}"
        )
    key: list[Any] = []
    for i, length in enumerate(x.shape):
        places = numpy.arange(length).reshape([-1 if j == i else 1 for j in range(x.ndim)])
        key.append(indices if i == position else devices.to_device(places, x.device))
    return index(x, tuple(key))


def _triangle(x: TensorLike, k: int, lower: bool) -> Tensor:
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"tril and triu need at least two axes, got shape {x.shape}")
    rows, columns = x.shape[-2:]
    inside = numpy.tri(rows, columns, k if lower else k - 1, dtype=bool)
    mask = Tensor(devices.to_device(inside if lower else ~inside, x.device))
    return where(mask, x, False)  # which has every dtype


def tril(x: Any, k: int = 0) -> Tensor:
    """Return matrices with 0 above diagonal number k."""
    return _triangle(x, k, lower=True)


def triu(x: Any, k: int = 0) -> Tensor:
    """Return matrices with 0 below diagonal number k."""
    return _triangle(x, k, lower=False)


def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return a diagonal of matrices as the last axis; ``offset`` counts from the main one to the right."""
    x = as_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"diagonal needs at least two axes, got shape {x.shape}")
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    places = _diagonal_places(rows, columns, offset)
    return index(x, (Ellipsis, *(devices.to_device(array, x.device) for array in places)))


def _diagonal_places(rows: int, columns: int, offset: int) -> tuple[Any, Any]:
    first, second = max(-offset, 0), max(offset, 0)
    places = numpy.arange(max(min(rows - first, columns - second), 0))
    return places + first, places + second


def diag(x: TensorLike, k: int = 0) -> Tensor:
    """Return diagonal number k of a matrix, or the matrix that has a vector as diagonal number k."""
    x = as_tensor(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise ValueError(f"diag takes a vector or a matrix, got shape {x.shape}")
    size = len(x) + abs(k)
    places = [devices.to_device(array, x.device) for array in _diagonal_places(size, size, k)]
    return scatter_add_(x, *places, key=(SLOT, SLOT), shape=(size, size))


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """Return the sum of a diagonal of matrices."""
    return diagonal(x, offset, axis1, axis2).sum(axis=-1)


def _assign(xp: Any, target: Any, value: Any, out: Any = None) -> Any:
    xp.copyto(target, value)
    return target


assign_: Primitive = Primitive("assign", _assign, gradients=(None, None), kind=Kind.ASSIGN)
