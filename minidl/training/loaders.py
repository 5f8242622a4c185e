"""Loaders: mini-batches cut from arrays, or taken from an iterable of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import cached_property
from typing import Any

import numpy

from minidl import devices
from minidl.data import batches, check_finite, prefetch
from minidl.distributed.share import Share
from minidl.training.arrays import Arrays, Batch, OnDisk, as_arrays, fingerprint, part, prepared

#: Which part of a mini-batch of so many observations this process computes; None for all of it.
Shares = Callable[[int], Share | None]

SHUFFLES = ("every-epoch", "once", "never")


class ArrayLoader:
    """Mini-batches cut from arrays that have one observation per entry of their first axis.

    The order of an epoch depends on the seed and the number of the epoch alone, so any epoch can be
    repeated.
    """

    is_used_up_by_reading = False

    def __init__(
        self,
        inputs: Arrays,
        targets: Arrays,
        batch_size: int,
        shuffle: str,
        drop_last: bool,
        seed: int,
        steps_per_epoch: int | None = None,
        weights: Arrays = (),
    ):
        if shuffle not in SHUFFLES:
            raise ValueError(f"shuffle must be one of {', '.join(SHUFFLES)}; got {shuffle!r}")
        self.inputs, self.targets, self.weights = inputs, targets, weights
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.observations = len(inputs[0]) if getattr(inputs[0], "shape", None) else 0
        self.steps: int | None = len(self._batches(1))
        if steps_per_epoch is not None:
            self.steps = min(self.steps, steps_per_epoch)
        self.shares: Shares = _all_of_them
        self._reads_ahead = any(
            isinstance(array, (numpy.memmap, OnDisk)) for array in (*inputs, *targets, *weights)
        )

    @property
    def _arrays(self) -> list[Any]:
        """The arrays, each once: an autoencoder's targets are its inputs, and are cut with them."""
        return list({id(array): array for group in self.whole() for array in group}.values())

    def whole(self) -> Batch:
        """Return all data as one mini-batch."""
        groups = (self.inputs, self.targets)
        return (*groups, self.weights) if self.weights else groups

    @cached_property
    def fingerprint(self) -> str:
        """A text that tells these data from others."""
        return fingerprint(self._arrays)

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
        every, shares = self._batches(number), self.shares
        every.rows = lambda size: slice(0, size) if (share := shares(size)) is None else share.rows
        cut = itertools.islice(every, start, self.steps)
        whole = self._arrays
        for i, parts in enumerate(prefetch(cut) if self._reads_ahead else cut, start):
            parts = parts if isinstance(parts, tuple) else (parts,)
            part_of = {id(array): own for array, own in zip(whole, parts, strict=True)}
            share = shares(every.size(i))
            yield tuple(part(tuple(part_of[id(x)] for x in group), share) for group in self.whole())

    def everything(self) -> Batch:
        """Return all data, or the part of them that this process computes, as one mini-batch."""
        share = self.shares(self.observations)
        if share is None:
            return self.whole()
        return tuple(part(tuple(array[share.rows] for array in group), share) for group in self.whole())

    def extra_pass(self) -> Iterator[Batch]:
        """Yield the whole mini-batches of the first epoch, for a pass through the data before training."""
        return _whole_epoch(self)

    def keep_on(self, device: str, dtype: numpy.dtype) -> None:
        """Move arrays that are in memory to a GPU once, if there is room, and not in every mini-batch."""
        if device == "cpu" or any(type(array) is not numpy.ndarray for array in self._arrays):
            return
        if devices.has_room(device, sum(array.nbytes for array in self._arrays)):
            assert self.fingerprint  # of the arrays that were given
            self.inputs, self.targets, *weights = prepared(self.whole(), dtype, device)
            self.weights = weights[0] if weights else ()

    def check(self, what: str) -> None:
        """Refuse NaN and infinity in arrays that are in memory."""
        for kind, arrays in zip(("inputs", "targets", "weights"), self.whole(), strict=False):
            for i, array in enumerate(arrays):
                if type(array) is numpy.ndarray:
                    check_finite(array, f"{what} {kind}" + (f" {i}" if len(arrays) > 1 else ""))


class IterableLoader:
    """Mini-batches from an iterable of them, or from a function that returns an iterator over an epoch.

    They are read ahead in a thread. With ``steps_per_epoch``, an iterator (a generator, say) goes on in the
    next epoch where it was, and may be endless; other iterables begin anew.
    """

    observations: int | None = None
    fingerprint: str | None = None

    def __init__(
        self,
        iterable: Iterable[Any] | Callable[[], Iterable[Any]],
        with_targets: bool = True,
        steps_per_epoch: int | None = None,
    ):
        if not any(hasattr(iterable, name) for name in ("__call__", "__iter__", "__getitem__")):
            raise TypeError(
                "expected arrays, an iterable of mini-batches (inputs, targets) or a function that returns "
                f"one, got {type(iterable).__name__}"
            )
        self.iterable = iterable
        self.with_targets = with_targets
        self.shares: Shares = _all_of_them
        self.limit = steps_per_epoch
        self.is_used_up_by_reading = isinstance(iterable, Iterator)
        self._taken = 0  # from an iterator, in all epochs
        length = _length(iterable)
        self.steps = length if steps_per_epoch is None else min(length or steps_per_epoch, steps_per_epoch)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the mini-batches of an epoch (from 1) from position ``start`` on."""
        items = self.iterable() if callable(self.iterable) else self.iterable
        skipped = start
        if self.is_used_up_by_reading and self.limit is not None:  # of a resumed training, those it has had
            skipped = max(0, (number - 1) * self.limit + start - self._taken)
        end = None if self.limit is None else skipped + self.limit - start
        shares = self.shares
        count = 0
        for item in prefetch(itertools.islice(items, skipped, end)):
            count += 1
            yield _own(self._pair(item), shares)
        self._taken += skipped + count
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
        """Yield the whole mini-batches of the first epoch, for a pass through the data before training.

        Raises
        ------
        ValueError
            They come from an iterator, which would have none left.
        """
        if self.is_used_up_by_reading:
            raise ValueError(
                "the Normalize layers must be fitted first, with layer.fit(x): these mini-batches come "
                "from an iterator, which can be used only once"
            )
        return _whole_epoch(self)

    def _pair(self, item: Any) -> Batch:
        if not self.with_targets:
            return _in_memory(item), ()
        if not (isinstance(item, (tuple, list)) and len(item) in (2, 3)):
            raise ValueError(
                f"a mini-batch must be a pair (inputs, targets), got {type(item).__name__}"
                + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
                + "; weights of the observations may be a third entry"
            )
        return tuple(map(_in_memory, item))

    def check(self, what: str) -> None:
        """Do nothing: the data cannot be checked beforehand."""


Loader = ArrayLoader | IterableLoader


def _all_of_them(observations: int) -> None:
    """Return that this process computes whole mini-batches."""


def _whole_epoch(loader: Loader) -> Iterator[Batch]:
    """Yield the mini-batches of the first epoch, of which other processes compute none."""
    shares, loader.shares = loader.shares, _all_of_them
    try:
        yield from loader.epoch(1)
    finally:
        loader.shares = shares


def _own(batch: Batch, shares: Shares) -> Batch:
    """Return the part of a mini-batch that this process computes."""
    share = shares(len(batch[0][0]))
    if share is None:
        return batch
    own = {id(x): x[share.rows] for group in batch for x in group}
    return tuple(part(tuple(own[id(x)] for x in group), share) for group in batch)


def _in_memory(x: Any) -> Arrays:
    return tuple(array[:] if isinstance(array, OnDisk) else array for array in as_arrays(x))


def _length(iterable: Any) -> int | None:
    """Return how many mini-batches there are, where that is known: some have a __len__ that fails."""
    try:
        return len(iterable) if isinstance(iterable, Sized) else None
    except (TypeError, NotImplementedError):
        return None
