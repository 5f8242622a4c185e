"""Checks of what goes into a layer: a mistake is refused by name, with the next step in the message."""

from __future__ import annotations

import math
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from minidl.errors import DeviceError
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.layers.layer import Layer

#: In a shape pattern: a length, the name of an axis of any length, or ``...`` for any number of axes.
Axis = int | str | EllipsisType

_KINDS = {"f": "floating-point", "i": "signed integer", "u": "unsigned integer", "b": "boolean"}


def check_input(
    layer: Layer,
    x: Tensor,
    pattern: tuple[Axis, ...],
    *,
    like: Tensor | None = None,
    kinds: str | None = None,
) -> None:
    """Refuse an input that does not fit a layer.

    Parameters
    ----------
    layer : the layer, which the message names with its settings
    pattern : what shape is accepted: lengths, names of axes of any length, and at most one ``...`` for any
        number of axes, as in ``("batch", ..., 784)`` or ``("batch", "height", "width", 3)``
    like : a Parameter or state of the layer; the input must be on its device, and have its dtype unless
        ``kinds`` says otherwise
    kinds : NumPy's letters of the accepted dtypes: ``"f"`` floating-point, ``"iu"`` integers; where it is
        not given, the dtype of ``like``, or any

    Raises
    ------
    ValueError
        The shape does not fit.
    TypeError
        It is no Tensor, or has another dtype.
    DeviceError
        It is on another device than the layer.

    Examples
    --------
    >>> import minidl as dl
    >>> check_input(dl.Dense(3, 2), dl.ones((4, 5)), ("batch", ..., 3))
    Traceback (most recent call last):
        ...
    ValueError: Dense(3, 2) takes inputs (batch, ..., 3); got (4, 5)
    """
    if not isinstance(x, Tensor):
        name = type(x).__name__
        raise TypeError(
            f"{_title(layer)} takes Tensors or arrays; got {name}: convert it with minidl.tensor()"
        )
    check_shape(layer, x.shape, pattern)
    if kinds is not None and x.dtype.kind not in kinds:
        raise TypeError(f"{_title(layer)} takes {_kind_names(kinds)} inputs; got {x.dtype}")
    if like is None:
        return
    if kinds is None and x.dtype != like.dtype:
        raise TypeError(
            f"{_title(layer)} computes in {like.dtype}; got {x.dtype}: "
            f"convert the input with .astype({like.dtype.name!r})"
        )
    if x.device != like.device:
        raise DeviceError(
            f"{_title(layer)} is on {like.device}; got an input on {x.device}: "
            f"move one of them with .to({like.device!r}) or .to({x.device!r})"
        )


def check_shape(layer: Layer, shape: tuple[int, ...], pattern: tuple[Axis, ...]) -> None:
    """Refuse a shape that does not fit a pattern, with a ValueError that says what to do where that is clear.

    Parameters
    ----------
    layer, pattern : as for `check_input`
    """
    if fits(shape, pattern):
        return
    accepted = "(" + ", ".join("..." if axis is ... else str(axis) for axis in pattern)
    accepted += ",)" if len(pattern) == 1 else ")"
    advice = _advice(shape, pattern)
    raise ValueError(f"{_title(layer)} takes inputs {accepted}; got {shape}{f': {advice}' if advice else ''}")


def fits(shape: tuple[int, ...], pattern: tuple[Axis, ...]) -> bool:
    """Return whether a shape matches a pattern of lengths, names and ``...``.

    Examples
    --------
    >>> fits((8, 28, 28, 3), ("batch", ..., 3)), fits((8, 28), ("batch", "height", "width", 3))
    (True, False)
    """
    if ... in pattern:
        first = pattern.index(...)
        last = len(pattern) - first - 1
        if len(shape) < first + last:
            return False
        shape = shape[:first] + shape[len(shape) - last :]
        pattern = pattern[:first] + pattern[first + 1 :]
    return len(shape) == len(pattern) and all(
        isinstance(axis, str) or axis == length for axis, length in zip(pattern, shape, strict=True)
    )


def _title(layer: Layer) -> str:
    return f"{type(layer).__name__}({layer.extra_repr()})"  # without the layers inside


def _advice(shape: tuple[int, ...], pattern: tuple[Axis, ...]) -> str:
    """Return what to do with an input of the wrong shape, or "" where nothing is obvious."""
    features: Any = pattern[-1]
    if pattern[0] == "batch" and shape and fits((1, *shape), pattern):
        return f"add a batch axis with .reshape({', '.join(map(str, (1, *shape)))})"
    lengths = pattern[1:]
    if all(isinstance(axis, int) for axis in lengths) and len(lengths) > 1:
        if len(shape) == 2 and shape[1] == math.prod(lengths):  # type: ignore[arg-type]
            return f"add Reshape({', '.join(map(str, lengths))}) before it"
    elif not isinstance(features, int):
        return ""
    elif fits((1, features), pattern) and len(shape) > 2 and math.prod(shape[1:]) == features:
        return "add Flatten() before it"
    elif len(shape) == len(pattern) > 2 and fits((shape[0], *shape[2:], shape[1]), pattern):
        order = (0, *range(2, len(shape)), 1)
        return f"channels are the last axis here: reorder the axes with .transpose{order}"
    if features == 1 and fits((*shape, 1), pattern):
        return f"add a last axis of length 1 with .reshape({', '.join(map(str, (*shape, 1)))})"
    return ""


def _kind_names(kinds: str) -> str:
    if kinds == "iu":
        return "integer"
    return " or ".join(_KINDS[kind] for kind in kinds)
