"""The arguments of a compiled function: what is copied in at each call, what decides which program runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy

from minidl import devices
from minidl.errors import RecordingError
from minidl.tensor import Parameter, Tensor

_PLAIN = (bool, int, complex, str, bytes, type(None))


def is_leaf(x: Any) -> bool:
    """Return whether a part of a nest is a Tensor or an array."""
    return isinstance(x, Tensor) or devices.is_array(x)


def is_container(x: Any) -> bool:
    """Return whether a part of a nest is taken apart: a list, tuple, named tuple or dict.

    Other subclasses may hold more than their items, and are objects.
    """
    return type(x) in (list, tuple, dict) or (isinstance(x, tuple) and hasattr(x, "_fields"))


def contents_of(nest: Any) -> Any:
    """Return what tells whether a list or dict in a nest was changed: the objects in it."""
    if not is_container(nest):
        return id(nest)
    if type(nest) is dict:
        return (id(nest), *((key, contents_of(item)) for key, item in nest.items()))
    return (id(nest), *map(contents_of, nest))


class Arguments:
    """The arguments of one call, taken apart.

    Attributes
    ----------
    key : a hashable description; calls with equal ones can share a program
    leaves : the Tensors and arrays, one that is passed twice once, so that it is computed with once
    objects : Parameters and objects that are no plain values; the key has their ids
    numbers : the floats, whose values the key has
    """

    __slots__ = ("key", "leaves", "numbers", "objects")

    def __init__(self, nest: Any):
        self.leaves: list[Any] = []
        self.objects: list[Any] = []
        self.numbers: list[float] = []
        self.key = self._described(nest)

    def _described(self, nest: Any) -> Any:
        kind = type(nest)
        if kind is tuple or kind is list:  # the usual kinds first, as every call waits for this
            return (kind, *map(self._described, nest))
        if kind is dict and not nest:
            return ("dict",)
        if is_leaf(nest):
            return self._leaf(nest)
        if is_container(nest):
            if kind is dict:
                return ("dict", *((key, self._described(item)) for key, item in nest.items()))
            return (kind, *map(self._described, nest))
        if kind is float:  # by its bits: 0.0 and -0.0 are equal, and NaN is not equal to itself
            self.numbers.append(nest)
            return ("float", kind, nest.hex())
        if isinstance(nest, numpy.generic):
            return ("value", kind, nest.tobytes())
        if kind in _PLAIN or isinstance(nest, (type, numpy.dtype)):
            return ("value", kind, nest)
        if isinstance(nest, slice):
            return (slice, *map(self._described, (nest.start, nest.stop, nest.step)))
        self.objects.append(nest)
        return ("object", type(nest), id(nest))

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Parameter):
            self.objects.append(leaf)
            return ("Parameter", id(leaf))
        for i, other in enumerate(self.leaves):
            if other is leaf:
                return ("the same as", i)
        self.leaves.append(leaf)
        array, requires_grad = leaf, False
        if isinstance(leaf, Tensor):
            array, requires_grad = leaf._array, leaf._requires_grad
        dtype = array.dtype
        if not dtype.isnative:
            dtype = dtype.newbyteorder("=")
        return ("array", array.shape, dtype, devices.device_of(array), requires_grad)


def without_numbers(key: Any) -> Any:
    """Return the key for all values of the floats in it."""
    if not isinstance(key, tuple):
        return key
    if key[:2] == ("float", float):
        return key[:2]
    return tuple(map(without_numbers, key))


def rebuilt(nest: Any, replace: Callable[[Any], Any], number: Callable[[float], Any] | None = None) -> Any:
    """Return the nest with each Tensor or array replaced, and each float if ``number`` is given."""
    if is_leaf(nest):
        return replace(nest)
    if is_container(nest):
        if type(nest) is dict:
            return {key: rebuilt(item, replace, number) for key, item in nest.items()}
        items = [rebuilt(item, replace, number) for item in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
    if number is not None and type(nest) is float:
        return number(nest)
    return nest


def results_of(nest: Any) -> list[Tensor]:
    """Return the Tensors in what a compiled function returned.

    Raises
    ------
    RecordingError
        There is something else than Tensors and None in it.
    """
    return list(_results(nest))


def _results(nest: Any) -> Iterator[Tensor]:
    if is_leaf(nest):
        yield nest if isinstance(nest, Tensor) else Tensor(nest)
    elif is_container(nest):
        for item in nest.values() if type(nest) is dict else nest:
            yield from _results(item)
    elif nest is not None:
        raise RecordingError(
            f"a compiled function returns Tensors, or nests of them, not {type(nest).__name__}"
        )


def tensors_in(nest: Any) -> Iterator[Tensor]:
    """Yield the Tensors in a nest of any values."""
    if isinstance(nest, Tensor):
        yield nest
    elif is_container(nest):
        for item in nest.values() if type(nest) is dict else nest:
            yield from tensors_in(item)


def shape_of(nest: Any) -> Any:
    """Return what two results of one function must have in common."""
    if is_leaf(nest):
        return (nest.shape, nest.dtype)
    if is_container(nest):
        if type(nest) is dict:
            return (dict, *((key, shape_of(item)) for key, item in nest.items()))
        return (type(nest), *map(shape_of, nest))
    return nest


# --- in words -------------------------------------------------------------------------------------


def difference_of_keys(old: Any, new: Any) -> str:
    """Return in words how the arguments of two calls differ."""
    (old_structure, old_mode, old_share), (new_structure, new_mode, new_share) = old, new
    if old_share != new_share:
        return f"the share of the mini-batch was {old_share} and is {new_share}"
    if old_mode != new_mode:
        return f"gradients were {'on' if old_mode else 'off'} before and are {'on' if new_mode else 'off'}"
    pairs = [(old_structure, new_structure)]
    while pairs:
        a, b = pairs.pop(0)
        if a == b:
            continue
        is_nest = [
            isinstance(x, tuple) and isinstance(x[0], type | str) and x[0] not in _ENDS for x in (a, b)
        ]
        if all(is_nest) and len(a) == len(b) and a[0] == b[0]:
            pairs += zip(a[1:], b[1:], strict=True)
            continue
        return f"an argument was {_shown(a)} and is now {_shown(b)}"
    return "the arguments were others"


_ENDS = ("array", "float", "value", "object", "Parameter", "the same as")


def _shown(description: Any) -> str:
    if isinstance(description, tuple):
        if description[0] == "array":
            return f"of shape {description[1]} and dtype {description[2]}"
        if description[0] == "float" and len(description) == 3:
            return repr(float.fromhex(description[2]))
        if description[0] == "value":
            return repr(description[2])
        if description[0] in ("object", "Parameter"):
            return f"another {description[0]}"
    return repr(description)[:60]
