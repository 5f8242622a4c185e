"""Several processes and machines: data-parallel training on MPI and NCCL, and sweeps.

Each process (a rank) computes a part of every mini-batch, and gradients are added up over all of them. A
Trainer does all this with ``distributed=True``; a loop of one's own begins with `communicator`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from minidl.distributed.share import Share, sharing

if TYPE_CHECKING:
    from minidl.distributed.communicators import Communicator, communicator
    from minidl.distributed.sums import allreduce, sum_gradients
    from minidl.distributed.sweeps import sweep

__all__ = ["Communicator", "Share", "allreduce", "communicator", "sharing", "sum_gradients", "sweep"]

#: Names that are loaded when they are first used, and from where: most programs run on one process.
_WHEN_USED = {
    "Communicator": "communicators",
    "allreduce": "sums",
    "communicator": "communicators",
    "sum_gradients": "sums",
    "sweep": "sweeps",
}

#: What other frameworks call it.
_FOREIGN = {
    "DistributedDataParallel": "sum_gradients",
    "DistributedSampler": "Share",
    "all_reduce": "allreduce",
    "broadcast_parameters": "communicator",
    "get_rank": "communicator",
    "get_world_size": "communicator",
    "init": "communicator",
    "init_process_group": "communicator",
    "rank": "communicator",
    "size": "communicator",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name.startswith("_"):  # what Python, IPython and inspect look for by themselves
        raise AttributeError(f"module 'minidl.distributed' has no attribute {name!r}")
    if name not in _WHEN_USED:
        from minidl.foreign_names import hint

        advice = hint(name, __all__, _FOREIGN)
        raise AttributeError(f"module 'minidl.distributed' has no attribute {name!r}{advice}")
    module = importlib.import_module(f"minidl.distributed.{_WHEN_USED[name]}")
    globals()[name] = value = getattr(module, name)
    return value
