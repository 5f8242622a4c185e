"""Sums in one order, however many processes there are: the same bits for 1, 2, 3, ... of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy

from minidl.distributed.communicators import Communicator

#: How many elements go from one process to the next at a time, while the next ones are added up.
CHUNK = 1 << 17


def ordered_sum(
    communicator: Communicator, parts: Sequence[numpy.ndarray], length: int, dtype: numpy.dtype
) -> numpy.ndarray:
    """Return the sum of the parts of all processes, in the order of ranks, and of parts in a rank.

    Floating-point sums depend on their order. Here it is ``((0 + p0) + p1) + p2 ...`` over all parts,
    wherever they lie: the sum so far goes from each process to the next, which adds its own parts, and from
    the last one to all. Each process sends the whole sum once, and receives it twice; the chunks of it are on
    their way at the same time.

    Parameters
    ----------
    parts : flat arrays of one length and dtype; a process may have none
    length, dtype : of the parts
    """
    before, after = communicator.rank - 1, communicator.rank + 1
    total = numpy.zeros(length, dtype)
    sending: list[Callable[[], None]] = []
    for start in range(0, length, CHUNK):
        chunk = total[start : start + CHUNK]
        mine = [part[start : start + CHUNK] for part in parts]
        if before >= 0:
            communicator.receive(chunk, before)
        for part in mine:
            numpy.add(chunk, part, out=chunk)
        if after < communicator.size:
            sending.append(communicator.send(chunk, after))
    for wait in sending:
        wait()
    communicator.broadcast_array(total, communicator.size - 1)
    return total
