"""Loaders: mini-batches cut from arrays, or taken from an iterable of them.

A mini-batch is a pair (inputs, targets), each a tuple of arrays, as networks take several inputs and
give several outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import numpy

from minidl import devices
from minidl.data import batches, check_finite, prefetch
from minidl.distributed.share import Share
from minidl.tensor import Tensor

Arrays = tuple[Any, ...]
Batch = tuple[Arrays, Arrays]

SHUFFLES = ("every-epoch", "once", "never")


class Part(tuple[Any, ...]):
    """The inputs or the targets of the part of a mini-batch that this process computes."""

    share: Share


def part(arrays: Arrays, share: Share | None) -> Arrays:
    """Return arrays as the part of a mini-batch, if they are one."""
    if share is None:
        return arrays
    result = Part(arrays)
    result.share = share
    return result


def share_of(arrays: Arrays) -> Share | None:
    """Return which part of a mini-batch arrays are; None if they are the whole of it."""
    return arrays.share if isinstance(arrays, Part) else None


def observation_count(arrays: Arrays) -> int:
    """Return how many observations a mini-batch has, on all processes together."""
    share = share_of(arrays)
    return len(arrays[0]) if share is None else share.total


#: Which part of a mini-batch of so many observations this process computes.
Shares = Callable[[int], Share | None]


class ArrayLoader:
    """Mini-batches cut from arrays that have one observation per entry of their first axis.

    The order of an epoch depends on the seed and the number of the epoch alone, so any epoch can be
    repeated.
    """

    def __init__(
        self, inputs: Arrays, targets: Arrays, batch_size: int, shuffle: str, drop_last: bool, seed: int
    ):
        if shuffle not in SHUFFLES:
            raise ValueError(f"shuffle must be one of {', '.join(SHUFFLES)}; got {shuffle!r}")
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.observations = len(inputs[0]) if getattr(inputs[0], "shape", None) else 0
        self.steps: int | None = len(self._batches(1))
        self.shares: Shares = lambda observations: None  # all of them
        self._reads_ahead = any(isinstance(array, numpy.memmap) for array in (*inputs, *targets))

    @property
    def _arrays(self) -> list[Any]:
        """The arrays, each once: an autoencoder's targets are its inputs, and are cut with them."""
        return list({id(array): array for array in (*self.inputs, *self.targets)}.values())

    def _batches(self, epoch: int) -> Any:
        shuffled = self.shuffle != "never"
        order = numpy.random.default_rng([self.seed, epoch if self.shuffle == "every-epoch" else 0])
        return batches(
            *self._arrays,
            batch_size=self.batch_size,
            shuffle=shuffled,
            seed=order if shuffled else None,
            drop_last=self.drop_last,
        )

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of an epoch (from 1) from position ``start`` on."""
        yield from self._epoch(number, start, self.shares)

    def _epoch(self, number: int, start: int, shares: Shares) -> Iterator[Batch]:
        every = self._batches(number)
        every.rows = lambda size: slice(0, size) if (share := shares(size)) is None else share.rows
        cut = itertools.islice(every, start, None)
        whole = self._arrays
        for i, parts in enumerate(prefetch(cut) if self._reads_ahead else cut, start):
            parts = parts if isinstance(parts, tuple) else (parts,)
            part_of = {id(array): part for array, part in zip(whole, parts, strict=True)}
            share = shares(every.size(i))
            yield (
                part(tuple(part_of[id(array)] for array in self.inputs), share),
                part(tuple(part_of[id(array)] for array in self.targets), share),
            )

    def extra_pass(self) -> Iterator[Batch]:
        """Yield the whole mini-batches of the first epoch, for a pass through them before training."""
        return self._epoch(1, 0, lambda observations: None)

    def everything(self) -> Batch:
        """Return all observations as one mini-batch."""
        share = self.shares(self.observations)
        inputs, targets = (
            tuple(array if share is None else array[share.rows] for array in arrays)
            for arrays in (self.inputs, self.targets)
        )
        return part(inputs, share), part(targets, share)

    def keep_on(self, device: str, dtype: numpy.dtype) -> None:
        """Move arrays that are in memory to a GPU once, if there is room, and not in every mini-batch."""
        if device == "cpu" or any(type(array) is not numpy.ndarray for array in self._arrays):
            return
        if devices.has_room(device, sum(array.nbytes for array in self._arrays)):
            self.inputs, self.targets = prepared((self.inputs, self.targets), dtype, device)

    def check(self, what: str) -> None:
        """Refuse NaN and infinity in arrays that are in memory."""
        for kind, arrays in (("inputs", self.inputs), ("targets", self.targets)):
            for i, array in enumerate(arrays):
                if type(array) is numpy.ndarray:
                    check_finite(array, f"{what} {kind}" + (f" {i}" if len(arrays) > 1 else ""))


class IterableLoader:
    """Mini-batches from an iterable of them, or from a function that returns an iterator over an epoch.

    They are read ahead in a thread.
    """

    steps: int | None = None
    observations: int | None = None

    def __init__(self, iterable: Iterable[Any] | Callable[[], Iterable[Any]], with_targets: bool = True):
        self.iterable = iterable
        self.with_targets = with_targets
        self.shares: Shares = lambda observations: None  # all of them
        if isinstance(iterable, Sized):
            self.steps = len(iterable)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of an epoch (from 1) from position ``start`` on."""
        items = self.iterable() if callable(self.iterable) else self.iterable
        count = 0
        for item in prefetch(itertools.islice(items, start, None)):
            count += 1
            yield self._own(*self._pair(item))
        if count == 0 and start == 0:
            again = (
                ""
                if number == 1
                else (
                    f" in epoch {number}: an iterator can be used only once; pass a list, an object "
                    "with __iter__, or a function that returns a new iterator for each epoch"
                )
            )
            raise ValueError(f"the data gave no mini-batches{again}")

    def extra_pass(self) -> Iterator[Batch]:
        """Yield the mini-batches of the first epoch, for a pass through the data before the training.

        Raises
        ------
        ValueError
            They come from an iterator, which would have none left.
        """
        if isinstance(self.iterable, Iterator):
            raise ValueError(
                "the Normalize layers must be fitted first, with layer.fit(x): these mini-batches come "
                "from an iterator, which can be used only once"
            )
        return map(self._pair, prefetch(self.iterable() if callable(self.iterable) else self.iterable))

    def _own(self, inputs: Arrays, targets: Arrays) -> Batch:
        """Return the part of a mini-batch that this process computes."""
        share = self.shares(len(inputs[0]))
        if share is None:
            return inputs, targets
        own = {id(x): x[share.rows] for x in (*inputs, *targets)}
        return (
            part(tuple(own[id(x)] for x in inputs), share),
            part(tuple(own[id(x)] for x in targets), share),
        )

    def _pair(self, item: Any) -> Batch:
        if not self.with_targets:
            return as_arrays(item), ()
        if not (isinstance(item, (tuple, list)) and len(item) == 2):
            raise ValueError(
                f"a mini-batch must be a pair (inputs, targets), got {type(item).__name__}"
                + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
            )
        return as_arrays(item[0]), as_arrays(item[1])

    def check(self, what: str) -> None:
        """Do nothing: the data cannot be checked beforehand."""


Loader = ArrayLoader | IterableLoader


def is_array(x: Any) -> bool:
    """Return whether something is an array, and not an iterable of mini-batches."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def as_arrays(x: Any) -> Arrays:
    """Return one array, or a tuple or list of them, as a tuple; Tensors give theirs."""
    items = x if isinstance(x, (tuple, list)) else (x,)
    arrays = tuple(item.data if isinstance(item, Tensor) else item for item in items)
    for array in arrays:
        if not is_array(array):
            raise TypeError(f"expected an array or a tuple of arrays, got {type(array).__name__}")
    return arrays


def converted(batch: Batch, dtype: numpy.dtype) -> Batch:
    """Return a mini-batch with floating-point arrays in the dtype that the network computes in."""
    return _each(batch, lambda x: _as(dtype, x))


def prepared(batch: Batch, dtype: numpy.dtype, device: str) -> Batch:
    """Return a mini-batch converted() and on a device."""
    return _each(batch, lambda x: devices.to_device(_as(dtype, x), device))


def _as(dtype: numpy.dtype, array: Any) -> Any:
    fits = array.dtype.kind != "f" or array.dtype == dtype
    return array if fits else devices.cast(array, dtype)


def _each(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """Return a mini-batch with each array changed; one that occurs twice stays one array."""
    changed: dict[int, Any] = {}
    for array in itertools.chain(*batch):
        if id(array) not in changed:
            changed[id(array)] = change(array)
    inputs, targets = (
        part(tuple(changed[id(array)] for array in arrays), share_of(arrays)) for arrays in batch
    )
    return inputs, targets
