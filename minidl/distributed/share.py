"""Share: the rows of a mini-batch that this process computes, and what layers ask about the whole of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from minidl.creation import zeros
from minidl.mode import mode
from minidl.primitives.reduction import mean
from minidl.primitives.shape import broadcast_to
from minidl.tensor import Tensor

if TYPE_CHECKING:
    from minidl.distributed.communicators import Communicator
    from minidl.random.generator import Generator


class Share(NamedTuple):
    """The part of a mini-batch that one process computes: rows ``start`` to ``stop`` of ``total``.

    It may be an argument of a compiled function. That of a process alone is a micro-batch: the rest is
    computed at another time. Where there are fewer rows than processes, each computes all of them.
    """

    communicator: Communicator
    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """The rows, as an index of arrays that hold the whole mini-batch."""
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """Whether this process computes the mini-batch by itself."""
        return self.size == self.total

    @property
    def weight(self) -> float:
        """What a mean over these rows counts among those of all processes; all weights sum to 1."""
        return 1 / self.communicator.size if self.is_whole else self.size / self.total


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Within a ``with`` block, let layers know that the mini-batch is a share of a larger one.

    BatchNorm then normalises by the mean and variance over all processes, and random numbers that are drawn
    for the observations of the mini-batch are those that one process would draw for the same observations.
    """
    is_shared = share is not None and share.communicator.size > 1 and not share.is_whole
    outer, mode.share = mode.share, share if is_shared else None
    try:
        yield
    finally:
        mode.share = outer


def batch_size(x: Tensor) -> int:
    """Return how many rows a Tensor has with those of other processes, if it is a share of a mini-batch."""
    each = _rows_of_each(x)
    return len(x) if each is None else mode.share.total * each


def batch_mean(x: Tensor, axis: tuple[int, ...]) -> Tensor:
    """Return the mean over axes, of which the first one goes on in other processes, if x is a share."""
    if _rows_of_each(x) is None:
        return mean(x, axis)
    from minidl.distributed.sums import allreduce  # which imports this module

    share = mode.share
    return allreduce(mean(x, axis) * share.weight, share.communicator)


def batch_draw(draw: Callable[..., Tensor], x: Tensor, generator: Generator) -> Tensor:
    """Return a random primitive's draws for x: those of its rows among the draws for the whole mini-batch."""
    each = _rows_of_each(x)
    if each is None:
        return draw(x, generator=generator)
    share = mode.share
    whole = broadcast_to(zeros((), x.dtype, x.device), (share.total * each, *x.shape[1:]))
    return draw(whole, generator=generator)[share.start * each : share.stop * each]


def _rows_of_each(x: Tensor) -> int | None:
    """Return how many rows of x belong to each observation of a share; None if x is no such Tensor."""
    share: Any = mode.share
    if share is None or not x.ndim or x.shape[0] == 0 or not share.size or x.shape[0] % share.size:
        return None
    return int(x.shape[0] // share.size)
