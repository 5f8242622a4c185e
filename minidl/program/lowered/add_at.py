"""The step that adds to picked elements: a lookup's gradient to that of a product with the same table."""

from __future__ import annotations

from typing import Any

from minidl.primitives.indexing import filled_key
from minidl.primitives.primitive import Primitive


def _add_at(
    xp: Any, x: Any, g: Any, *positions: Any, key: tuple[Any, ...], shape: tuple[int, ...], out: Any = None
) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)
    if out is not x:
        xp.copyto(out, x)  # nothing, if both are in one place
    xp.add.at(out, filled_key(key, positions), g)
    return out


add_at_: Primitive = Primitive(
    "add_at",
    _add_at,
    gradients=(),
    doc="Return x with g added to the elements that key picks, as scatter_add does.",
)
