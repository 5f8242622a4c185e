"""Sums of arrays on GPUs: by NCCL, which is in CuPy, or by MPI through the host where NCCL is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl import devices

#: NCCL's numbers of dtypes (nccl.h, ncclDataType_t).
_TYPES = {"int32": 2, "uint32": 3, "int64": 4, "uint64": 5, "float16": 6, "float32": 7, "float64": 8}
_SUM = 0


class GPUSums:
    """Adds up arrays on the GPU of each process; every process has a GPU of its own.

    The sums run on a stream of their own, beside what the GPU computes meanwhile.

    Parameters
    ----------
    communicator : tells the processes of each other
    array : on the GPU that this process uses
    """

    def __init__(self, communicator: Any, array: devices.Array):
        self.communicator = communicator
        self.cupy: Any = devices.array_module(array)
        self.device = array.device
        try:
            from cupy.cuda import nccl

            is_there = bool(nccl.available) if hasattr(nccl, "available") else True
        except ImportError:
            is_there = False
        busy = communicator.gather((_host(), self.device.id))
        if len(set(busy)) < len(busy):
            is_there = False  # NCCL refuses two processes on one GPU
        self.nccl: Any = None
        if all(communicator.gather(is_there)):
            with self.device:
                name = communicator.broadcast(nccl.get_unique_id() if communicator.is_first else None)
                self.nccl = nccl.NcclCommunicator(communicator.size, name, communicator.rank)
                self.stream = self.cupy.cuda.Stream(non_blocking=True)

    def begin(self, array: devices.Array) -> Callable[[], None]:
        """Begin to add up an array, in place; return what lets the current stream wait for the sum."""
        if self.nccl is None or array.dtype.name not in _TYPES:
            return self._through_the_host(array)
        cuda = self.cupy.cuda
        ready = cuda.Event(disable_timing=True)
        ready.record(cuda.get_current_stream())
        self.stream.wait_event(ready)
        place, kind = array.data.ptr, _TYPES[array.dtype.name]
        self.nccl.allReduce(place, place, array.size, kind, _SUM, self.stream.ptr)
        done = cuda.Event(disable_timing=True)
        done.record(self.stream)
        return lambda: cuda.get_current_stream().wait_event(done)

    def _through_the_host(self, array: devices.Array) -> Callable[[], None]:
        host = devices.to_numpy(array)
        finish = self.communicator.begin_sum(host)

        def wait() -> None:
            finish()
            devices.write(array, devices.to_device(host, devices.device_of(array)))

        return wait


def _host() -> str:
    import socket

    return socket.gethostname()
