"""Indexing, its scatter-add gradient, and assignment.

Positions given by arrays are inputs of the primitives, not attributes, so that a recorded program
can be replayed with other positions. A key holds everything else; ``SLOT`` marks in it where the
arrays belong.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.primitives.primitive import Primitive
from minidl.tensor import Tensor


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
    kind="view",
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


def index(x: Any, key: Any) -> Tensor:
    """Return ``x[key]`` with NumPy's meaning: integers, slices, None, ..., and arrays of positions.

    A bool mask is turned into positions first, so the shape of the result depends on its values.
    """
    prepared: list[Any] = []
    positions: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis or isinstance(part, slice):
            prepared.append(part)
        elif isinstance(part, (int, numpy.integer)) and not isinstance(part, bool):
            prepared.append(int(part))
        else:
            array = part if hasattr(part, "dtype") else _literal(part, x.device)
            if array.dtype.kind not in "iub":
                raise TypeError(
                    f"an index is made of integers, slices, None, ... or bool masks, got {part!r}"
                )
            with devices.current(array):
                found = array.nonzero() if array.dtype.kind == "b" else (array,)
            prepared.extend([SLOT] * len(found))
            positions.extend(found)
    return index_by_key(x, tuple(prepared), tuple(positions))


def _assign(xp: Any, target: Any, value: Any, out: Any = None) -> Any:
    xp.copyto(target, value)
    return target


assign_: Primitive = Primitive("assign", _assign, gradients=(None, None), kind="assign")
