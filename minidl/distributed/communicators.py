"""Communicator: the processes that compute together. The base class is a process alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.distributed.share import Share
from minidl.errors import DriftError
from minidl.tensor import Tensor, mark_assigned

if TYPE_CHECKING:
    from minidl.random.generator import Generator

#: What launchers tell the processes that they start: how many there are.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_SIZE", "MV2_COMM_WORLD_SIZE")

#: What decides how a training goes on: Layers, optimizers, Tensors, Generators.
State = Any


class Communicator:
    """The processes that compute together, as one of them sees them.

    This class is a process alone, for which every sum is what it has itself. `communicator` returns the one
    of this process. All methods but `share` are collective: every process calls them, in the same order.

    Attributes
    ----------
    rank, size : the number of this process, from 0, and how many there are
    local_rank, local_size : the same among the processes on this machine
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which prints and writes files."""
        return self.rank == 0

    def share(self, observations: int, pieces: int | None = None) -> Share:
        """Return which rows of a mini-batch of so many observations this process computes.

        The parts are as equal as can be. A mini-batch with fewer observations than processes is computed
        whole by each of them. With ``pieces``, it is first cut into so many parts, and the share is some of
        these: there may be none.
        """
        if pieces is not None:
            pieces = min(pieces, observations)
            first, end = (pieces * rank // self.size for rank in (self.rank, self.rank + 1))
            return Share(self, observations * first // pieces, observations * end // pieces, observations)
        if observations < self.size:
            return Share(self, 0, observations, observations)
        start, stop = (observations * rank // self.size for rank in (self.rank, self.rank + 1))
        return Share(self, start, stop, observations)

    # --- what a kind of communicator writes -------------------------------------------------------

    def begin_sum(self, array: devices.Array) -> Callable[[], None]:
        """Begin to add up a contiguous array over all processes, in place; return what waits for the sum."""
        return lambda: None

    def progress(self) -> None:
        """Let sums that have begun move on, without waiting."""

    def gather(self, value: Any) -> list[Any]:
        """Return a value of every process, by rank: numbers, texts, small arrays."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return value

    def broadcast_array(self, array: numpy.ndarray, root: int = 0) -> None:
        """Overwrite a contiguous array by that of a process."""

    def send(self, array: numpy.ndarray, to: int) -> Callable[[], None]:
        """Begin to send an array to another process; return what waits until it may be overwritten."""
        raise RuntimeError("a process alone has nobody to send to")

    def receive(self, array: numpy.ndarray, sender: int) -> None:
        """Overwrite an array by one that another process sends."""
        raise RuntimeError("a process alone has nobody to receive from")

    # --- what all have in common ------------------------------------------------------------------

    def sum(self, array: devices.Array) -> None:
        """Add up a contiguous array over all processes, in place."""
        self.begin_sum(array)()

    def any(self, value: bool) -> bool:
        """Return whether a value is true on any process."""
        return any(self.gather(bool(value)))

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.gather(None)

    def from_first(self, function: Callable[[], Any]) -> Any:
        """Return what a function returns on rank 0, the only one to call it.

        Raises
        ------
        Exception
            What the function raises, on every process.
        """
        problem: Exception | None = None
        value: Any = None
        if self.is_first:
            try:
                value = function()
            except Exception as error:
                problem = error
        value, problem = self.broadcast((value, problem))
        if problem is not None:
            raise problem
        return value

    def synchronize(self, *states: State) -> None:
        """Give every process the state of rank 0: Layers, optimizers, Tensors, Generators.

        Raises
        ------
        ValueError
            They do not have the same names and shapes everywhere.
        """
        if self.size == 1:
            return
        tensors, generators = _parts(states)
        kinds = [(name, x.shape, str(x.dtype)) for name, x in tensors.items()] + [*generators]
        for rank, theirs in enumerate(self.gather(kinds)):
            if theirs != kinds:
                ours, other = next((a, b) for a, b in _longest(kinds, theirs) if a != b)
                raise ValueError(
                    f"the processes do not train the same network: rank {self.rank} has {ours}, "
                    f"rank {rank} has {other}"
                )
        for x in tensors.values():
            array = numpy.ascontiguousarray(devices.to_numpy(x.data))
            self.broadcast_array(array)
            devices.write(x.data, devices.to_device(array, x.device))
            mark_assigned(x)
        states_of_first = self.broadcast([g.state_dict() for g in generators.values()])
        for generator, state in zip(generators.values(), states_of_first, strict=True):
            generator.load_state_dict(state)

    def require_equal(self, *states: State) -> None:
        """Compare the state of all processes by hashes.

        Raises
        ------
        DriftError
            They differ; the first Tensor or Generator that does is named.
        """
        if self.size == 1:
            return
        tensors, generators = _parts(states)
        hashes = {name: _hash(devices.to_numpy(x.data)) for name, x in tensors.items()}
        hashes |= {name: _hash_of_state(g) for name, g in generators.items()}
        whole = _digest("".join(hashes.values()).encode())
        if len(set(self.gather(whole))) == 1:
            return
        each = self.gather(hashes)
        different = [name for name in hashes if len({theirs.get(name) for theirs in each}) > 1]
        raise DriftError(
            f"the processes have drifted apart: {', '.join(different[:4])}"
            f"{f' and {len(different) - 4} more' if len(different) > 4 else ''} differ. Something was "
            "changed, or drawn, on some processes alone: see docs/distributed.md"
        )


def _longest(first: list[Any], second: list[Any]) -> Iterator[tuple[Any, Any]]:
    for i in range(max(len(first), len(second))):
        yield first[i] if i < len(first) else "nothing more", second[i] if i < len(second) else "nothing more"


def _parts(states: Iterable[State]) -> tuple[dict[str, Tensor], dict[str, Generator]]:
    """Return the Tensors and Generators of Layers, optimizers and others, each once, by names."""
    tensors: dict[str, Tensor] = {}
    generators: dict[str, Generator] = {}
    for number, state in enumerate(states):
        prefix = f"{type(state).__name__} {number}: "
        if isinstance(state, Tensor):
            tensors[f"{prefix}Tensor"] = state
        elif hasattr(state, "load_state_dict") and hasattr(state, "of"):  # a Generator, which stands above
            generators[f"{prefix}Generator"] = state
        elif hasattr(state, "named_tensors"):
            found = dict(state.named_tensors())  # pairs of a Layer, a dict of an optimizer
            tensors |= {f"{prefix}{name}": x for name, x in found.items()}
            drawn = state.named_generators() if hasattr(state, "named_generators") else ()
            generators |= {f"{prefix}{name}": g for name, g in drawn}
        else:
            raise TypeError(
                f"processes share the state of Layers, optimizers, Tensors and Generators, got {state!r}"
            )
    seen: dict[int, Tensor] = {}
    return {name: x for name, x in tensors.items() if seen.setdefault(id(x), x) is x}, generators


def _hash(array: numpy.ndarray) -> str:
    return _digest(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data)


def _hash_of_state(generator: Generator) -> str:
    return _digest(repr(generator.state_dict()).encode())


def _digest(data: Any) -> str:
    import hashlib

    return hashlib.blake2b(data, digest_size=16).hexdigest()


@functools.cache
def communicator() -> Communicator:
    """Return the processes that were started together with this one by ``mpiexec``, or this one alone.

    With a GPU, sums of arrays on it are made by NCCL where it is there, else by MPI through the host.

    Raises
    ------
    ImportError
        This process is one of several, and mpi4py is not installed.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        started = [name for name in _SIZES if os.environ.get(name, "1") != "1"]
        if not started:
            return Communicator()
        raise ImportError(
            f"this process is one of {os.environ[started[0]]} ({started[0]}), which need mpi4py to talk to "
            f"each other: pip install 'minidl[mpi]' ({error})"
        ) from error
    if MPI.COMM_WORLD.size == 1:
        return Communicator()
    from minidl.distributed.mpi import MPICommunicator

    return MPICommunicator(MPI.COMM_WORLD)
