"""Mini-batches: several arrays cut along their first axis, all in the same order."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from minidl import devices
from minidl.tensor import Tensor


class Batches:
    """An iterable over mini-batches; made by ``batches``, which describes it."""

    def __init__(
        self, arrays: tuple[Any, ...], batch_size: int, random: numpy.random.Generator | None, drop_last: bool
    ) -> None:
        self.arrays = arrays
        self.batch_size = batch_size
        self.random = random  # None: in the order of the arrays
        self.observations = len(arrays[0])
        whole, rest = divmod(self.observations, batch_size)
        self.count = whole if rest == 0 or (drop_last and whole > 0) else whole + 1
        self.rows: Callable[[int], slice] = slice  # which observations of a mini-batch, of its size, are cut

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        order = "in order" if self.random is None else "shuffled"
        return f"Batches({self.count} of {self.batch_size} from {self.observations:,} observations, {order})"

    def __iter__(self) -> Iterator[Any]:
        places = map(self._place, range(self.count))
        if self.random is None:
            for place in places:
                yield self._cut([place] * len(self.arrays))
        else:
            order = self.random.permutation(self.observations)
            orders = [_beside(array, order) for array in self.arrays]
            for place in places:
                yield self._cut([_at(order, place) for order in orders])

    def size(self, number: int) -> int:
        """Return how many observations a mini-batch has, by its number from 0."""
        return min(self.batch_size, self.observations - number * self.batch_size)

    def _place(self, number: int) -> slice:
        """Return where the observations of a mini-batch stand in the order."""
        start, rows = number * self.batch_size, self.rows(self.size(number))
        return slice(start + (rows.start or 0), start + rows.stop)

    def _cut(self, indices: list[Any]) -> Any:
        cut = tuple(_at(array, index) for array, index in zip(self.arrays, indices, strict=True))
        return cut if len(cut) > 1 else cut[0]


def batches(
    *arrays: Any,
    batch_size: int,
    shuffle: bool = False,
    seed: int | numpy.random.Generator | None = None,
    drop_last: bool = False,
) -> Batches:
    """Return an iterable over mini-batches of the arrays; ``len`` of it is their number.

    Iterating gives tuples with ``batch_size`` observations of each array, or the bare array if there is
    only one. Each iteration is one epoch and can be repeated.

    Parameters
    ----------
    arrays
        NumPy or CuPy arrays, memory maps, Tensors, with one observation per entry of the first axis.
    batch_size
        At least 1. The last batch may have fewer observations.
    shuffle
        Take the observations in random order, a new one in every iteration. Otherwise batches are views,
        not copies.
    seed
        Determines the order: the same seed gives the same sequence of epochs.
    drop_last
        Leave out a last batch that is not full, unless it is the only one (as MATLAB does).

    Raises
    ------
    ValueError
        There are no arrays, they are empty or differ in length, or ``batch_size`` is less than 1.
    TypeError
        An argument is not an array with at least one axis.
    """
    if not arrays:
        raise ValueError("batches takes at least one array")
    for i, array in enumerate(arrays):
        if not getattr(array, "shape", None):
            raise TypeError(
                f"batches takes arrays with observations along the first axis; argument {i} is a "
                f"{type(array).__name__}" + (" without axes" if hasattr(array, "shape") else "")
            )
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"batches takes arrays with equally many observations; got {lengths}")
    if lengths[0] == 0:
        raise ValueError("batches takes at least one observation; the arrays are empty")
    batch_size = operator.index(batch_size)
    if batch_size < 1:
        raise ValueError(f"batches takes a batch_size of at least 1; got {batch_size}")
    return Batches(arrays, batch_size, numpy.random.default_rng(seed) if shuffle else None, drop_last)


def _beside(array: Any, order: numpy.ndarray) -> Any:
    """Return the order as an array that can index this one: on its GPU for CuPy's, which take no other."""
    array = array.data if isinstance(array, Tensor) else array
    return devices.to_device(order, devices.device_of(array)) if devices.is_array(array) else order


def _at(array: Any, index: Any) -> Any:
    """Return what stands at an index, on the device of the array."""
    with devices.current(array):
        return array[index]
