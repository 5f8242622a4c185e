"""Several processes and machines: data-parallel training on MPI and NCCL.

Each process (a rank) computes a part of every mini-batch, and gradients are added up over all of them. A
Trainer does all this with ``distributed=True``; a loop of one's own begins with `communicator`.
"""

from minidl.distributed.allreduce import allreduce, sum_gradients
from minidl.distributed.communicator import Communicator, communicator
from minidl.distributed.share import Share, sharing
from minidl.distributed.sweep import sweep

__all__ = ["Communicator", "Share", "allreduce", "communicator", "sharing", "sum_gradients", "sweep"]
