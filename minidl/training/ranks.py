"""A training on several processes: what they share, compare and agree upon."""

from __future__ import annotations

import itertools
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.communicators import Communicator, communicator
from minidl.distributed.ordered import ordered_sum
from minidl.distributed.share import Share
from minidl.layers import Layer
from minidl.mode import mode, no_grad
from minidl.program.recorder import ChangeLog
from minidl.random.generator import default_generator
from minidl.tensor import Tensor
from minidl.training.checkpoints import Checkpoint, CheckpointFolder

#: In how many micro-batches a mini-batch is computed with ``reproducible=True`` (1, 2, 3, 4 and 6 divide it),
#: as far as each has MIN_ROWS observations.
MICRO_BATCHES, MIN_ROWS = 12, 4

#: The processes of a micro-batch: it is computed by one alone.
ALONE = Communicator()

#: After how many steps the weights of all processes are compared.
COMPARE_STEPS = 100


def processes(distributed: bool | Communicator) -> Communicator:
    """Return the processes that a Trainer trains on, from its argument."""
    if isinstance(distributed, Communicator):
        return distributed
    return communicator() if distributed else Communicator()


def micro_batches(observations: int) -> int:
    """Return in how many micro-batches a mini-batch is computed: it depends on its size alone."""
    return max(1, min(MICRO_BATCHES, observations // MIN_ROWS))


def device_of_rank(device: str, ranks: Communicator) -> str:
    """Return the device of this process: the GPUs of a machine are shared out among its processes."""
    if ranks.size == 1 or device not in ("auto", "gpu") or devices.gpu_problem() is not None:
        return device
    count = len(devices.gpu_names())
    return f"gpu:{ranks.local_rank % count}"


def options_of_rank(options: dict[str, Any], ranks: Communicator, is_reproducible: bool) -> dict[str, Any]:
    """Return the options of compiled steps: cores are shared out among the processes that may use them.

    How sums are split among threads decides their last bits: reproducible steps use one.
    """
    if is_reproducible:
        return {"threads": 1} | options
    if ranks.size > 1:
        host, cores = mine = _cores()
        others = ranks.gather(mine)
        sharing = sum(host == other and not cores.isdisjoint(theirs) for other, theirs in others)
        return {"threads": max(1, len(cores) // max(sharing, 1))} | options
    return options


def _cores() -> tuple[str, set[int]]:
    """Return this machine's name, and the cores that this process may use: mpiexec may have chosen some."""
    has_choice = hasattr(os, "sched_getaffinity")
    return socket.gethostname(), os.sched_getaffinity(0) if has_choice else set(range(os.cpu_count() or 1))


def share_out(steps: Any, loader: Any, arguments: Any) -> None:
    """Let a loader give the parts of mini-batches that this process of a Trainer computes.

    Raises
    ------
    ValueError
        What is asked for does not go together with several processes.
    """
    if arguments.accumulation_steps > 1:
        raise ValueError(
            "accumulation_steps is for one process: several, and reproducible=True, compute mini-batches in "
            "parts as it is"
        )
    if not steps.is_reproducible:
        loader.shares = steps.ranks.share
        return
    if arguments.sample_weight is not None or arguments.class_weight is not None:
        raise ValueError("reproducible=True takes no weights of observations")
    loader.shares = lambda observations: steps.ranks.share(observations, micro_batches(observations))


@contextmanager
def quiet(ranks: Communicator) -> Iterator[None]:
    """Show the warnings of rank 0 alone."""
    with warnings.catch_warnings():
        if not ranks.is_first:
            warnings.simplefilter("ignore")
        yield


# --- losses ------------------------------------------------------------------------------------------


def require_mean(
    ranks: Communicator,
    loss: Callable[..., Tensor],
    outputs: Callable[[], Any],
    targets: Any,
    weights: Any = (),
) -> None:
    """Refuse a loss that is no mean over the observations: of the parts of a mini-batch, it does not follow.

    With weights of the observations, it has to be the mean that they weigh: then a weight of 2 is an
    observation twice. ``outputs()`` computes the network's outputs for this process's observations; it leaves
    nothing behind.
    """
    found = ""
    log, outer = ChangeLog(), mode.recorder
    mode.recorder = log
    try:
        with no_grad():
            values = (*outputs(), *(Tensor(x) for x in targets))
            rows = min((len(x) if x.ndim else 0 for x in values), default=0)
            half = rows // 2
            parts = (slice(None), slice(0, half), slice(half, None))
            counted = weights[0] if weights else numpy.ones(rows)
            total, of_first, of_second = (float(counted[part].sum()) for part in parts)
            if half and total:
                named = [{"weight": counted[part]} if weights else {} for part in parts]
                whole, first, second = (
                    float(loss(*(x[part] for x in values), **weight).item())
                    for part, weight in zip(parts, named, strict=True)
                )
                mean = (of_first * first + of_second * second) / total
                if abs(whole - mean) > 1e-4 * max(abs(first), abs(second), abs(whole)):
                    found = f"of {rows} observations it is {whole:.6g}, of their halves {first:.6g} and "
                    found += f"{second:.6g}"
    finally:
        mode.recorder = outer
        log.rewind()
    found = next(filter(None, ranks.gather(found)), "")
    if found:
        raise ValueError(
            "a training on several processes needs a loss that is a mean over the observations, weighted if "
            f"they have weights, because each process computes a part of them: {found}. Return the mean, or "
            "scale the learning rate instead"
        )


# --- checkpoints -------------------------------------------------------------------------------------


class SharedFolder:
    """The checkpoint folder of all processes: rank 0 alone reads and writes it."""

    def __init__(self, path: Any, keep_last: int, ranks: Communicator):
        self.ranks = ranks
        self.folder: CheckpointFolder | None = None

        def open_folder() -> None:
            self.folder = CheckpointFolder(path, keep_last)

        ranks.from_first(open_folder)
        self.path = Path(path)

    def newest(self) -> Path | None:
        """Return the newest checkpoint file, or None."""
        path: Path | None = self.ranks.from_first(lambda: self.folder and self.folder.newest())
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder for a ``with`` block."""
        with ExitStack() as stack:

            def lock() -> None:
                if self.folder is not None:
                    stack.enter_context(self.folder.locked())

            self.ranks.from_first(lock)
            yield

    def write(self, step: int, checkpoint: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint, on rank 0, which alone makes it."""
        if self.folder is not None:
            self.folder.write(step, checkpoint())

    def write_best(self, state: dict[str, numpy.ndarray]) -> None:
        """Write the weights of the best validation, on rank 0."""
        if self.folder is not None:
            self.folder.write_best(state)


# --- stopping ----------------------------------------------------------------------------------------


def agreed_reason(ranks: Communicator, reason: str) -> str:
    """Return why to stop: the reason of the first process that has one, for all of them."""
    if ranks.size == 1 or not ranks.any(bool(reason)):
        return reason if ranks.size == 1 else ""
    reasons: list[str] = ranks.gather(reason)
    return next(filter(None, reasons))


# --- evaluation --------------------------------------------------------------------------------------


def must_see_all(network: Layer) -> bool:
    """Return whether a network takes mini-batches in their order, so that no process may leave some out."""
    layers = [network, *(layer for _, layer in network.named_layers())]
    return any(getattr(layer, "stateful", False) for layer in layers)


# --- sums in one order -------------------------------------------------------------------------------


class OrderedSums:
    """Adds up over all micro-batches, in their order: gradients, figures, and the state of layers.

    Parameters
    ----------
    network : its state Tensors (running averages) are averaged as well
    """

    def __init__(self, network: Layer, parameters: list[Any], share: Share):
        self.ranks, self.parameters = share.communicator, parameters
        pieces = micro_batches(share.total)
        bounds = [share.total * i // pieces for i in range(pieces + 1)]
        self.total = share.total
        self.own = [
            (number, slice(start - share.start, stop - share.start))
            for number, (start, stop) in enumerate(itertools.pairwise(bounds))
            if share.start <= start and stop <= share.stop
        ]
        trained = set(map(id, network.parameters()))
        states = [x for _, x in network.named_tensors() if id(x) not in trained]
        self.states = [x for x in states if x.dtype.kind == "f"]
        own = [generator for _, generator in network.named_generators()]
        self.generators = list(dict.fromkeys([*own, default_generator]))
        self.before = [devices.copy(x.data) for x in self.states]
        self.keys = [int(generator.numpy.integers(2**63)) for generator in self.generators]
        self.after = [generator.state_dict() for generator in self.generators]
        self.parts: list[list[numpy.ndarray]] = []

    def begin(self, number: int, rows: slice) -> Share:
        """Prepare for a micro-batch: layers have the state of before the mini-batch, and draws of its own."""
        for x, before in zip(self.states, self.before, strict=True):
            x.assign(Tensor(before))
        for generator, key, state in zip(self.generators, self.keys, self.after, strict=True):
            fresh = type(generator.numpy.bit_generator)(numpy.random.SeedSequence([key, number]))
            generator.load_state_dict({**state, **fresh.state, "streams": {}})
        return Share(ALONE, 0, rows.stop - rows.start, self.total)

    def add(self, share: Share, figures: list[Tensor]) -> None:
        """Take in a micro-batch: its gradients, weighted figures, and what it made of the state."""
        gradients = [parameter.grad for parameter in self.parameters]
        states = [x.detach() * share.weight for x in self.states]
        kept = [x for x in (*gradients, *figures, *states) if x is not None]
        self.parts.append([_wide(devices.to_numpy(x.data)) for x in kept])
        self.present = [gradient is not None for gradient in gradients]
        for parameter in self.parameters:
            parameter.grad = None

    def finish(self) -> list[Tensor]:
        """Set gradients and state to the sums of all processes; return the figures."""
        kinds = (self.present, [(x.shape, x.dtype) for x in self.parts[0]]) if self.parts else None
        present, shapes = next(filter(None, self.ranks.gather(kinds)))
        sums = self._sums(shapes)
        device = self.parameters[0].device
        totals = iter([Tensor(devices.to_device(x, device)) for x in sums])
        for parameter, is_there in zip(self.parameters, present, strict=True):
            parameter.grad = next(totals) if is_there else None
        rest = list(totals)
        figures, states = rest[: len(rest) - len(self.states)], rest[len(rest) - len(self.states) :]
        for x, total in zip(self.states, states, strict=True):
            x.assign(total)
        for generator, state in zip(self.generators, self.after, strict=True):
            generator.load_state_dict(state)
        return figures

    def _sums(self, shapes: list[tuple[tuple[int, ...], numpy.dtype]]) -> list[numpy.ndarray]:
        """Return the sum of each array over all micro-batches; those of one dtype travel together."""
        sums: dict[int, numpy.ndarray] = {}
        for dtype in dict.fromkeys(dtype for _, dtype in shapes):
            chosen = [i for i, (_, other) in enumerate(shapes) if other == dtype]
            flat = [numpy.concatenate([part[i].ravel() for i in chosen]) for part in self.parts]
            sizes = [int(numpy.prod(shapes[i][0])) for i in chosen]
            total = ordered_sum(self.ranks, flat, sum(sizes), dtype)
            for i, piece in zip(chosen, numpy.split(total, numpy.cumsum(sizes)[:-1]), strict=True):
                sums[i] = piece.reshape(shapes[i][0])
        return [sums[i] for i in range(len(shapes))]


def _wide(array: numpy.ndarray) -> numpy.ndarray:
    """Return an array in which sums are made: float16 would lose what they add."""
    return array.astype(numpy.float32) if array.dtype == numpy.float16 else array
