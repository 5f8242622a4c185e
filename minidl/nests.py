"""Nests: values in lists, tuples, named tuples and dicts, to any depth, as functions take and return them.

What is not one of these containers ends a nest: a number, a Tensor, an object of any other class. Dataclasses
and other objects are not taken apart, because a function may change them, and would then change a copy.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy


def parts(nest: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the pairs (key or position, part) of a list, tuple or dict; None for everything else."""
    if isinstance(nest, (list, tuple)):
        return enumerate(nest)
    if isinstance(nest, dict):
        return nest.items()
    return None


def named_leaves(
    nest: Any, prefix: str = "", is_leaf: Callable[[Any], bool] | None = None
) -> Iterator[tuple[str, Any]]:
    """Yield all that a nest holds, in order, each with the keys and positions that lead to it.

    Parameters
    ----------
    prefix : what every name begins with
    is_leaf : returns True for what is not to be taken apart, although it may be a container

    Examples
    --------
    >>> list(named_leaves({"a": 1, "b": [2, (3,)]}))
    [('a', 1), ('b.0', 2), ('b.1.0', 3)]
    """
    pairs = None if is_leaf is not None and is_leaf(nest) else parts(nest)
    if pairs is None:
        yield prefix, nest
        return
    dot = f"{prefix}." if prefix else ""
    for key, part in pairs:
        yield from named_leaves(part, f"{dot}{key}", is_leaf)


def leaves(nest: Any) -> list[Any]:
    """Return all that a nest holds, in order.

    Examples
    --------
    >>> leaves({"a": 1, "b": [2, (3, None)]})
    [1, 2, 3, None]
    """
    return [leaf for _, leaf in named_leaves(nest)]


def flatten(nest: Any, is_leaf: Callable[[Any], bool]) -> tuple[list[Any], Structure]:
    """Split a nest into some of its values and all the rest.

    Parameters
    ----------
    is_leaf : returns True for the values to return; others are constants, a part of the structure

    Returns
    -------
    leaves : the values in order; one that is there twice is returned twice
    structure : what `rebuild` needs; structures of equal containers with equal constants are equal, and
        can be keys of a dict if all constants can

    Examples
    --------
    >>> values, structure = flatten({"x": 1.5, "options": ("fast", 2.5)}, lambda x: isinstance(x, float))
    >>> values
    [1.5, 2.5]
    >>> rebuild(structure, [10, 20])
    {'x': 10, 'options': ('fast', 20)}
    """
    found: list[Any] = []
    return found, _structure(nest, is_leaf, found)


def rebuild(structure: Structure, leaves: Iterable[Any]) -> Any:
    """Return the nest of a structure with other values; a subclass of dict becomes a dict.

    Raises
    ------
    ValueError
        There are more or fewer values than the structure has places.
    """
    remaining = iter(leaves)
    try:
        nest = _build(structure, remaining)
    except StopIteration:
        raise ValueError("there are fewer values than the nest has places") from None
    if next(remaining, _END) is not _END:
        raise ValueError("there are more values than the nest has places")
    return nest


def map_leaves(function: Callable[[Any], Any], nest: Any, is_leaf: Callable[[Any], bool]) -> Any:
    """Return the nest with ``function(value)`` in place of each value for which ``is_leaf(value)`` is True.

    Examples
    --------
    >>> map_leaves(lambda x: -x, [1.5, (2, "a")], lambda x: isinstance(x, float))
    [-1.5, (2, 'a')]
    """
    found, structure = flatten(nest, is_leaf)
    return rebuild(structure, [function(leaf) for leaf in found])


# --- structures ---------------------------------------------------------------------------------------


class FixedValue:
    """A value that belongs to a structure.

    Two are equal if they have one type and one value; floats are compared by their bits, because 0.0 equals
    -0.0, and NaN does not equal itself.
    """

    __slots__ = ("_key", "value")

    def __init__(self, value: Any):
        self.value = value
        self._key = (type(value), _bits(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedValue) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


class Container(NamedTuple):
    """A list, tuple or dict in a structure; ``keys`` is empty unless it is a dict."""

    kind: type
    keys: tuple[Any, ...]
    parts: tuple[Any, ...]


class Place(NamedTuple):
    """Where a leaf stood."""


Structure = Container | FixedValue | Place

_PLACE = Place()
_END = object()


def constants(structure: Structure) -> list[Any]:
    """Return the constants of a structure in order."""
    if isinstance(structure, FixedValue):
        return [structure.value]
    if isinstance(structure, Container):
        return [value for part in structure.parts for value in constants(part)]
    return []


def _structure(nest: Any, is_leaf: Callable[[Any], bool], found: list[Any]) -> Structure:
    if is_leaf(nest):
        found.append(nest)
        return _PLACE
    pairs = parts(nest)
    if pairs is None:
        return FixedValue(nest)
    inside = [(key, _structure(part, is_leaf, found)) for key, part in pairs]
    keys = tuple(key for key, _ in inside) if isinstance(nest, dict) else ()
    return Container(type(nest), keys, tuple(part for _, part in inside))


def _build(structure: Structure, remaining: Iterator[Any]) -> Any:
    if isinstance(structure, Place):
        return next(remaining)
    if isinstance(structure, FixedValue):
        return structure.value
    inside = [_build(part, remaining) for part in structure.parts]
    kind: Any = structure.kind
    if issubclass(kind, dict):
        pairs = zip(structure.keys, inside, strict=True)
        return OrderedDict(pairs) if kind is OrderedDict else dict(pairs)
    return kind(*inside) if hasattr(kind, "_fields") else kind(inside)


def _bits(value: Any) -> Any:
    if isinstance(value, (float, numpy.floating)):
        return float(value).hex()
    if isinstance(value, (complex, numpy.complexfloating)):
        return float(value.real).hex(), float(value.imag).hex()
    return value
