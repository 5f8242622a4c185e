"""Windows that are not copied: what reads them finds them in the images."""

from __future__ import annotations

from typing import Any

from minidl.primitives.primitive import Kind, Primitive
from minidl.primitives.windows import Lengths, window_count, window_view


def _window_view(
    xp: Any, x: Any, window: Lengths, stride: Lengths, dilation: Lengths, out: Any = None
) -> Any:
    counts = tuple(map(window_count, x.shape[1:-1], window, stride, dilation))
    view = window_view(xp, x, window, counts, stride, dilation)
    if out is None:
        return view
    xp.copyto(out, view)
    return out


window_view_: Primitive = Primitive(
    "window_view",
    _window_view,
    gradients=(None,),
    kind=Kind.VIEW,
    doc="Return what windows() does as a view, in which an element may lie several times.",
)
