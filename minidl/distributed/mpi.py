"""MPICommunicator: the processes that mpiexec started, through mpi4py, with NCCL for GPUs."""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.communicators import Communicator

#: The tag of the message by which a process says that it has ended.
LEFT = 30_000
#: How often a message is asked for before other processes get a chance to use this core.
SPINS = 200
#: For how many seconds a process waits without sleep, and, once another has ended, altogether.
PATIENT_SECONDS, GRACE_SECONDS = 1.0, 3.0


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
        atexit.register(self._leave)

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
            self._complete(request)

    def _complete(self, request: Any) -> None:
        """Wait for a message, so that Ctrl-C still works, and a process that has ended is not waited for."""
        for _ in range(SPINS):
            if request.Test():
                return
        started = time.monotonic()
        seen, source = 0.0, -1
        while not request.Test():
            now = time.monotonic()
            if now - started < PATIENT_SECONDS:
                _let_others_work()
                continue
            time.sleep(0.0005)
            status = self.mpi.Status()
            if source < 0 and self.comm.Iprobe(self.mpi.ANY_SOURCE, LEFT, status):
                seen, source = now, status.source
            if source >= 0 and now - seen > GRACE_SECONDS:
                raise RuntimeError(
                    f"rank {self.rank} waits for the others, but rank {source} has ended: all "
                    "processes must make the same steps"
                )

    def progress(self) -> None:
        """Let sums that have begun move on, without waiting."""
        for number in [number for number, request in self._waiting.items() if request.Test()]:
            del self._waiting[number]

    def gather(self, value: Any) -> list[Any]:
        """Return a value of every process, by rank."""
        if isinstance(value, bool):  # at every step of a training: without pickling
            flags = numpy.empty(self.size, numpy.uint8)
            self._complete(self.comm.Iallgather(numpy.array([value], numpy.uint8), flags))
            return [bool(flag) for flag in flags]
        own = numpy.frombuffer(pickle.dumps(value), numpy.uint8)
        lengths = numpy.empty(self.size, numpy.int64)
        self._complete(self.comm.Iallgather(numpy.array([own.size], numpy.int64), lengths))
        everything = numpy.empty(int(lengths.sum()), numpy.uint8)
        self._complete(self.comm.Iallgatherv(own, (everything, lengths.tolist())))
        parts = numpy.split(everything, numpy.cumsum(lengths)[:-1])
        return [pickle.loads(part.tobytes()) for part in parts]

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        own = numpy.frombuffer(pickle.dumps(value if self.is_first else None), numpy.uint8)
        length = numpy.array([own.size], numpy.int64)
        self.broadcast_array(length)
        data = own.copy() if self.is_first else numpy.empty(int(length[0]), numpy.uint8)
        self.broadcast_array(data)
        return pickle.loads(data.tobytes())

    def broadcast_array(self, array: numpy.ndarray, root: int = 0) -> None:
        """Overwrite a contiguous array by that of a process."""
        if array.size:
            self._complete(self.comm.Ibcast(array.reshape(-1).view(numpy.uint8), root))

    def send(self, array: numpy.ndarray, to: int) -> Callable[[], None]:
        """Begin to send an array to another process; return what waits until it may be overwritten."""
        return functools.partial(self._complete, self.comm.Isend(array, to))

    def receive(self, array: numpy.ndarray, sender: int) -> None:
        """Overwrite an array by one that another process sends."""
        self._complete(self.comm.Irecv(array, sender))

    def _leave(self) -> None:
        """Tell the others that this process takes no part any more, should they wait for it."""
        for rank in range(self.size):
            if rank != self.rank:
                self.comm.Isend(numpy.empty(0, numpy.uint8), rank, LEFT)

    def abort(self) -> None:
        """End all processes."""
        self.comm.Abort(1)


def end_all_on_error(communicator: MPICommunicator) -> None:
    """Let an exception that nothing catches end all processes, after its traceback."""
    outer = sys.excepthook

    def end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            lines = traceback.format_exception(kind, error, trace)
            text = f"rank {communicator.rank} of {communicator.size} failed, which ends all:\n"
            text += "".join(lines)
            os.write(2, text.encode())  # whole, whatever other processes write
        except BaseException:
            outer(kind, error, trace)
        finally:
            sys.stdout.flush()
            communicator.abort()

    sys.excepthook = end_all


def _let_others_work() -> None:
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)
