"""Prefetching to a GPU: the next mini-batch is copied there while the current one is used.

The copies come from pinned host memory and run on their own stream, beside that of the consumer.
Why no mini-batch is read before it has arrived, and no memory is written while others use it:

- The memory that a mini-batch is copied to is taken on the consumer's stream (not on that of the copies,
  which would get back what the consumer's stream may still read). CuPy hands out memory there that earlier
  work on the same stream may still use. An event recorded afterwards comes after all that work, and the copy
  waits for it. The step that follows comes after the event, so it and the copy run at the same time.
- The consumer's stream waits for the copy before the mini-batch is handed over. So whatever the consumer does
  with it, however long it keeps it, and every later use of the memory, comes after the copy; so do a
  validation and other uploads in between, which use the same streams.
- The pinned memory is kept until the event after its copy has happened.
- At the end, also if the consumer leaves early or the data fail, the host waits for the copies on their way:
  a copy of a mini-batch that was not taken would write to memory that has been freed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy

from minidl import devices

#: How many copies may wait for the GPU: a host that is much faster must not fill its memory with them.
MAX_ON_THEIR_WAY = 8

_END = object()


def prefetch_to_device(items: Iterable[Any], device: str) -> Iterator[Any]:
    """Yield items, arrays or tuples of them (of tuples ...), on a device; on a GPU, each is uploaded ahead.

    While the consumer computes with an item, the next one is made and copied, without the host waiting for
    the copy. An error in the items is raised when its turn comes. An array that is in an item twice is
    uploaded once, and one that is on the device already stays as it is.

    Parameters
    ----------
    items : NumPy or CuPy arrays, as ``batches`` gives them; ``prefetch`` makes them in a thread
    device : ``"gpu"``, ``"gpu:1"``, ...; on ``"cpu"`` nothing is done ahead

    Raises
    ------
    DeviceError
        There is no such device here.
    TypeError
        An item holds anything but arrays.
    """
    device = devices.resolve(device)
    if device == "cpu":
        return (_each(item, lambda array: devices.to_device(array, "cpu")) for item in items)
    return _uploaded(iter(items), device)


def _uploaded(items: Iterator[Any], device: str) -> Iterator[Any]:
    gpu = devices.gpu(device)  # current only while there is something to do, and never in the consumer's code
    with gpu:
        copies = _Copies(device)
    waiting: list[_Upload] = []
    problem: Exception | None = None
    try:
        while True:
            upload: _Upload | None = None
            try:
                item = next(items, _END)
                if item is not _END:
                    with gpu:
                        upload = copies.begin(item)
            except Exception as error:  # its turn comes after the item that waits
                problem = error
            if waiting:
                with gpu:
                    copies.make_wait(waiting[0])
                yield waiting.pop().item  # and hold nothing: how long it is kept is the consumer's choice
            if problem is not None:
                raise problem
            if upload is None:
                return
            waiting.append(upload)
    finally:
        problem = None  # knows this frame
        with gpu:
            copies.stream.synchronize()


class _Upload(NamedTuple):
    """An item on its way to a GPU: on which stream its memory was taken, and the event after its copies."""

    item: Any
    home: Any
    copied: Any


class _Copies:
    """Copies to the current GPU on a stream of their own, and the pinned memory that they come from."""

    def __init__(self, device: str):
        import cupy

        self.device, self.cupy = device, cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.on_their_way: deque[tuple[Any, list[numpy.ndarray]]] = deque()

    def begin(self, item: Any) -> _Upload:
        """Begin to copy an item; return it as it will be."""
        cuda = self.cupy.cuda
        while self.on_their_way and self.on_their_way[0][0].done:
            self.on_their_way.popleft()
        if len(self.on_their_way) == MAX_ON_THEIR_WAY:
            self.on_their_way[0][0].synchronize()
            self.on_their_way.popleft()
        home, copied = cuda.get_current_stream(), None
        given = {id(array): array for array in _arrays(item)}
        pinned = {key: self._pinned(x) for key, x in given.items() if isinstance(x, numpy.ndarray)}
        placed = {
            key: self.cupy.empty(x.shape, pinned[key].dtype)
            if key in pinned
            else devices.to_device(x, self.device)
            for key, x in given.items()
        }
        if pinned:
            taken, copied = (cuda.Event(disable_timing=True) for _ in range(2))
            taken.record(home)
            self.stream.wait_event(taken)
            for key, source in pinned.items():
                placed[key].set(source, self.stream)
            copied.record(self.stream)
            self.on_their_way.append((copied, list(pinned.values())))
        return _Upload(_each(item, lambda x: placed[id(x)]), home, copied)

    def make_wait(self, upload: _Upload) -> None:
        """Make the consumer's stream wait for the copies of an item."""
        if upload.copied is not None:
            upload.home.wait_event(upload.copied)
            self.cupy.cuda.get_current_stream().wait_event(upload.copied)  # which may be another by now

    def _pinned(self, array: numpy.ndarray) -> numpy.ndarray:
        """Return a copy of an array in pinned memory, by rows, in the byte order of this machine."""
        memory = self.cupy.cuda.alloc_pinned_memory(max(array.nbytes, 1))
        copy = numpy.frombuffer(memory, array.dtype.newbyteorder("="), array.size).reshape(array.shape)
        copy[...] = array
        return copy


def _arrays(item: Any) -> Iterator[Any]:
    """Yield the arrays of an item."""
    if isinstance(item, (tuple, list)):
        for part in item:
            yield from _arrays(part)
    else:
        yield item


def _each(item: Any, change: Callable[[Any], Any]) -> Any:
    """Return an item with each of its arrays changed."""
    return tuple(_each(part, change) for part in item) if isinstance(item, (tuple, list)) else change(item)
