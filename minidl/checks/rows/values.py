"""Comparisons of values that several rows make."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy

from minidl.layers.layer import Layer
from minidl.tensor import Tensor


def near(a: numpy.ndarray, b: Any, tolerance: float, rounding: float = 0.0) -> bool:
    """Compare relative to the size of the values, or to the rounding in them; infinities must be the same."""
    if a.shape != numpy.shape(b):
        return False
    scale = float(numpy.abs(b).max(initial=0.0, where=numpy.isfinite(b)))
    return bool(
        numpy.allclose(
            a, b, rtol=tolerance, atol=tolerance * scale + max(rounding, 1e-12), equal_nan=a.dtype.kind == "f"
        )
    )


def difference(a: numpy.ndarray, b: numpy.ndarray) -> float:
    """Return the largest difference."""
    if a.shape != b.shape:
        return float("inf")
    gaps = numpy.abs(a.astype(float) - b)
    return float(numpy.nan_to_num(gaps, nan=0.0).max(initial=0.0))


def all_equal(first: Sequence[numpy.ndarray], second: Sequence[numpy.ndarray]) -> bool:
    """Return whether arrays are the same, bit for bit."""
    return len(first) == len(second) and all(
        numpy.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True)
    )


def copied(layer: Layer) -> Layer | None:
    """Return a copy of a layer, or None: some attributes (locks, files) cannot be copied."""
    try:
        return copy.deepcopy(layer)
    except Exception:
        return None


def listed(shapes: Sequence[Any]) -> str:
    """Return shapes in words."""
    return " and ".join(map(str, shapes))


def plain_state(layer: Layer) -> dict[str, Any]:
    """Return copies of what is no Tensor among the attributes of a layer and of those inside, by name.

    These are numbers, text, NumPy arrays, and lists, tuples, sets and dicts of them.
    """
    found: dict[str, Any] = {}
    for prefix, part in [("", layer), *layer.named_layers()]:
        for name, value in vars(part).items():
            if name != "training" and not name.startswith("__"):
                kept = _plain(value)
                if kept is not None:
                    found[f"{prefix}.{name}".lstrip(".")] = kept
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str, numpy.generic)):
        return value
    if isinstance(value, numpy.ndarray):
        return value.copy()
    if isinstance(value, Tensor) or value is None:
        return None
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) or hasattr(value, "maxlen"):
        return [_plain(part) for part in value]
    return None


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names in which two results of plain_state() differ."""
    names = [*before, *(name for name in after if name not in before)]
    return [name for name in names if not same(before.get(name), after.get(name))]


def same(a: Any, b: Any) -> bool:
    """Return whether two plain values are the same."""
    if isinstance(a, numpy.ndarray) or isinstance(b, numpy.ndarray):
        if not (isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray)):
            return False
        return all_equal([a], [b])
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))
