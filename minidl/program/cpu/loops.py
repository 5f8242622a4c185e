"""C loops over the elements of arrays that are walked together, each in its own strides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from minidl.program.expressions import Unsupported
from minidl.program.plan.strides import Axis, broadcast_strides, walk

C_TYPES = {
    numpy.dtype(bool): "_Bool",
    numpy.dtype(numpy.float32): "float",
    numpy.dtype(numpy.float64): "double",
    **{
        numpy.dtype(f"{kind}{bits}"): f"{kind}{bits}_t"
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}

#: How many elements of an axis are taken at a time where some arrays are contiguous along another one: as
#: many cache lines of those are used up before the next ones are read.
TILE = 16


#: Loops as short as this gcc unrolls before it would make vectors of them, and forgets that their rounds are
#: independent.
MAX_UNROLLED = 16


def c_type(dtype: numpy.dtype) -> str:
    """Return the C type of an element."""
    kind = C_TYPES.get(dtype)
    if kind is None:
        raise Unsupported(dtype.name)
    return kind


def stored_type(dtype: numpy.dtype) -> str:
    """Return the C type of an element in memory: compilers vectorise few choices by a ``_Bool`` in memory."""
    return "uint8_t" if dtype.kind == "b" else c_type(dtype)


class Loops:
    """The loops over arrays, broadcast to a shape; variables are named by ``name`` and their depth.

    Attributes
    ----------
    axes : one for each loop, outermost first
    """

    def __init__(self, shape: Sequence[int], arrays: Sequence[numpy.ndarray], name: str = "i"):
        self.is_empty = math.prod(shape) == 0
        self.axes = walk(shape, [broadcast_strides(array, shape) for array in arrays])
        self.name = name
        self.is_tiled = len(self.axes) > 1 and self._tile()

    def _tile(self) -> bool:
        """Put an axis along which others are contiguous next to the innermost; return if there is one."""
        inner = self.axes[-1]
        for axis in self.axes[:-1]:
            crossing = any(
                a == 1 and abs(b) >= TILE for a, b in zip(axis.strides, inner.strides, strict=True)
            )
            if crossing and axis.length >= TILE and inner.length > TILE:
                self.axes.remove(axis)
                self.axes.insert(-1, axis)
                return True
        return False

    def index(self, array: int) -> str:
        """Return where the current element of an array lies."""
        return index([f"{self.name}{i}" for i in range(len(self.axes))], self.axes, array)

    def is_fixed(self, array: int) -> bool:
        """Return whether the innermost loop stays at one element of an array."""
        return bool(self.axes) and self.axes[-1].strides[array] == 0

    def code(self, body: Sequence[str], before: Sequence[str] = (), independent: bool = True) -> str:
        """Return the loops around statements; ``before`` are those that come before each innermost loop.

        ``independent`` says that no element is written that another round of the innermost loop reads.
        """
        if self.is_empty:
            return ";"
        if not self.axes:
            return "{ " + "\n    ".join([*before, *body]) + " }"
        last, lines = len(self.axes) - 1, []
        name, length = f"{self.name}{last}", self.axes[-1].length
        begin, end = "0", str(length)
        for i, axis in enumerate(self.axes[:-1]):
            if self.is_tiled and i == last - 1:
                lines.append(loop(f"{name}_", str(length), step=TILE))
                begin, end = f"{name}_", smaller(f"{name}_ + {TILE}", length)
            lines.append(loop(f"{self.name}{i}", str(axis.length)))
        lines += [
            "{",
            *before,
            *(["INDEPENDENT"] if independent else []),
            *(["#pragma GCC unroll 1"] if independent and length <= MAX_UNROLLED else []),
            f"{loop(name, end, begin)} {{",
            *(f"    {line}" for line in body),
            "} }",
        ]
        return "\n    ".join(lines)


def loop(name: str, end: str, begin: str = "0", step: int = 1) -> str:
    """Return the head of a loop."""
    return f"for (int64_t {name} = {begin}; {name} < {end}; {name} += {step})"


def smaller(a: str, b: object) -> str:
    """Return the smaller of two whole numbers."""
    return f"({a} < {b} ? {a} : {b})"


def index(names: Sequence[str], axes: Sequence[Axis], array: int) -> str:
    """Return where an element of an array lies, from the names of the variables of its loops."""
    steps = [(name, axis.strides[array]) for name, axis in zip(names, axes, strict=True)]
    terms = [name if stride == 1 else f"{name} * {stride}" for name, stride in steps if stride]
    return " + ".join(terms) or "0"
