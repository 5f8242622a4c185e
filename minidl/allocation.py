"""What is asked of the C library about memory."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory(megabytes: int = 256) -> None:
    """Let freed arrays be used again instead of going back to the operating system at once.

    By default glibc gives each large array fresh pages and returns them when it is freed; an eager
    training step then spends a third of its time in the kernel. At most this many megabytes are
    kept. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_TRIM_THRESHOLD, megabytes << 20)
    mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc accepts
