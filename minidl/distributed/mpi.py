"""MPICommunicator: the processes that mpiexec started, through mpi4py, with NCCL for GPUs."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.communicator import Communicator


class MPICommunicator(Communicator):
    """The processes of an MPI communicator; minidl's messages do not meet others of the same one.

    From then on, an exception that nothing catches ends all processes, with its traceback: the others would
    wait for this one without end.
    """

    def __init__(self, comm: Any):
        from mpi4py import MPI

        self.mpi = MPI
        self.comm = comm.Dup()
        self.rank, self.size = comm.rank, comm.size
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        local.Free()
        self._waiting: dict[int, Any] = {}  # sums that have begun, by number
        self._count = 0
        self._nccl: Any = None
        end_all_on_error(self)

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size} processes>"

    def begin_sum(self, array: devices.Array) -> Callable[[], None]:
        """Begin to add up a contiguous array over all processes, in place; return what waits for the sum."""
        if isinstance(array, numpy.ndarray):
            request = self.comm.Iallreduce(self.mpi.IN_PLACE, array)
            self._count += 1
            self._waiting[self._count] = request
            return functools.partial(self._wait, self._count)
        if self._nccl is None:
            from minidl.distributed.nccl import GPUSums

            self._nccl = GPUSums(self, array)
        begun: Callable[[], None] = self._nccl.begin(array)
        return begun

    def _wait(self, number: int) -> None:
        request = self._waiting.pop(number, None)
        if request is not None:
            request.Wait()

    def progress(self) -> None:
        """Let sums that have begun move on, without waiting."""
        for number in [number for number, request in self._waiting.items() if request.Test()]:
            del self._waiting[number]

    def gather(self, value: Any) -> list[Any]:
        """Return a value of every process, by rank."""
        if isinstance(value, bool):  # at every step of a training: without pickling
            flags = numpy.empty(self.size, numpy.uint8)
            self.comm.Allgather(numpy.array([value], numpy.uint8), flags)
            return [bool(flag) for flag in flags]
        values: list[Any] = self.comm.allgather(value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return self.comm.bcast(value)

    def broadcast_array(self, array: numpy.ndarray, root: int = 0) -> None:
        """Overwrite a contiguous array by that of a process."""
        self.comm.Bcast(array.reshape(-1).view(numpy.uint8), root)

    def send(self, array: numpy.ndarray, to: int) -> Callable[[], None]:
        """Begin to send an array to another process; return what waits until it may be overwritten."""
        request = self.comm.Isend(array, to)
        return lambda: request.Wait()

    def receive(self, array: numpy.ndarray, sender: int) -> None:
        """Overwrite an array by one that another process sends."""
        self.comm.Recv(array, sender)

    def abort(self) -> None:
        """End all processes."""
        self.comm.Abort(1)


def end_all_on_error(communicator: MPICommunicator) -> None:
    """Let an exception that nothing catches end all processes, after its traceback."""
    outer = sys.excepthook

    def end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            lines = traceback.format_exception(kind, error, trace)
            text = f"rank {communicator.rank} of {communicator.size} failed, which ends all:\n{''.join(lines)}"
            os.write(2, text.encode())  # whole, whatever other processes write
        except BaseException:
            outer(kind, error, trace)
        finally:
            sys.stdout.flush()
            communicator.abort()

    sys.excepthook = end_all
