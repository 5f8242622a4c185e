"""Arrays of a mini-batch or a data set: what counts as one, and how the network gets it.

A mini-batch is a pair (inputs, targets), each a tuple of arrays, as networks take several inputs and
give several outputs; where observations have weights, these are a third tuple, of one array.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.share import Share
from minidl.tensor import Tensor

Arrays = tuple[Any, ...]
Batch = tuple[Arrays, ...]


class Part(tuple[Any, ...]):
    """The inputs, targets or weights of the part of a mini-batch that this process computes."""

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


#: How many observations of an array are looked at to tell it from another.
_SAMPLES = 64


def is_array(x: Any) -> bool:
    """Return whether something is an array or a table, and not an iterable of mini-batches."""
    return hasattr(x, "shape") and (hasattr(x, "dtype") or hasattr(x, "dtypes"))


def is_numbers(x: Any) -> bool:
    """Return whether something is a list of numbers, or of such lists."""
    return isinstance(x, list) and bool(x) and (_is_number(x[0]) or is_numbers(x[0]))


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float, numpy.generic))


def as_arrays(x: Any) -> Arrays:
    """Return one array, or a tuple or list of them, as a tuple of arrays that mini-batches can be cut from.

    Tensors give their arrays; arrays of other libraries, tables (DataFrames) and nested lists of numbers
    become NumPy's or CuPy's. What lies in a file (memory maps, datasets of h5py) stays there.
    """
    items = x if isinstance(x, (tuple, list)) and not is_numbers(x) else (x,)
    return tuple(_as_array(item) for item in items)


def _as_array(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.data
    if isinstance(x, (numpy.memmap, OnDisk)):
        return x
    if type(x).__module__.partition(".")[0] == "h5py":
        return OnDisk(x)
    if not is_array(x) and not is_numbers(x):
        raise TypeError(f"expected an array or a tuple of arrays, got {type(x).__name__}")
    array = devices.from_any(x.to_numpy() if hasattr(x, "to_numpy") else x)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected an array of numbers, got {type(x).__name__} of {array.dtype}")
    return array


class OnDisk:
    """A dataset of h5py, which takes indices in increasing order only, indexed like an array."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.shape, self.dtype = dataset.shape, dataset.dtype

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> numpy.ndarray:
        if not isinstance(index, numpy.ndarray):
            return numpy.asarray(self.dataset[index])
        places, inverse = numpy.unique(index, return_inverse=True)
        return numpy.asarray(self.dataset[places])[inverse]


def fingerprint(arrays: Sequence[Any]) -> str:
    """Return a text that tells arrays from others: a checksum over some observations of each."""
    total = 0
    for array in arrays:
        total = zlib.crc32(f"{array.dtype} {tuple(array.shape)}".encode(), total)
        count = len(array) if array.shape else 0
        for i in range(0, count, max(1, count // _SAMPLES)):
            with devices.current(array):
                observation = array[i : i + 1]
            if not isinstance(observation, numpy.ndarray):
                observation = devices.to_numpy(observation)
            total = zlib.crc32(numpy.ascontiguousarray(observation).data, total)
    return f"{total:08x}"


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
    return tuple(part(tuple(changed[id(array)] for array in arrays), share_of(arrays)) for arrays in batch)
