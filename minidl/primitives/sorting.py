"""Sorting: the order is a primitive without gradient, and sorted values are picked by it."""

from __future__ import annotations

from typing import Any

from minidl.primitives.axes import normalize_axis
from minidl.primitives.indexing import take_along_axis
from minidl.primitives.primitive import Primitive
from minidl.primitives.shape import flip, ravel
from minidl.tensor import Tensor, TensorLike, as_tensor


def _argsort(xp: Any, x: Any, axis: int, out: Any = None) -> Any:
    order = xp.argsort(x, axis=axis, kind="stable")
    if out is None:
        return order
    xp.copyto(out, order)
    return out


argsort_: Primitive = Primitive("argsort", _argsort, gradients=(None,))


def argsort(x: Any, axis: int | None = -1) -> Tensor:
    """Return the positions along an axis (or of all elements in one) in ascending order, as int64.

    Equal elements stay in their order; NaN comes last.
    """
    x = ravel(x) if axis is None or as_tensor(x).ndim == 0 else as_tensor(x)
    return argsort_(x, axis=normalize_axis(-1 if axis is None else axis, x.ndim, "argsort"))


def sort(x: Any, axis: int | None = -1) -> Tensor:
    """Return the elements along an axis (or all in one) in ascending order; NaN comes last."""
    x = ravel(x) if axis is None or as_tensor(x).ndim == 0 else as_tensor(x)
    position = normalize_axis(-1 if axis is None else axis, x.ndim, "sort")
    return take_along_axis(x, argsort_(x, axis=position), position)


def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """Return the k largest (or smallest) elements along an axis, in order, and their positions.

    Of equal elements the first come first; NaN counts as the largest.
    """
    x = as_tensor(x)
    position = normalize_axis(axis, x.ndim, "topk")
    if not 0 <= k <= x.shape[position]:
        raise ValueError(f"topk: an axis of length {x.shape[position]} has no {k} elements")
    if largest:  # from the last to the first, so that equal elements are in their order when that is turned
        order = x.shape[position] - 1 - flip(argsort_(flip(x, position), axis=position), position)
    else:
        order = argsort_(x, axis=position)
    chosen = order[(slice(None),) * position + (slice(0, k),)]
    return take_along_axis(x, chosen, position), chosen
