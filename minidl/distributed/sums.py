"""allreduce: the sum of a Tensor over all processes, as a primitive that programs record."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy

from minidl.mode import mode, no_grad
from minidl.primitives.primitive import Primitive
from minidl.tensor import Parameter, Tensor, as_tensor

if TYPE_CHECKING:
    from minidl.distributed.communicators import Communicator


def _allreduce(xp: Any, x: Any, communicator: Communicator, waits: bool, out: Any = None) -> Any:
    if out is None:
        out = xp.empty(x.shape, x.dtype)
    xp.copyto(out, x)
    # What is computed while a function is recorded is thrown away, and not every process records at once.
    if not getattr(mode.recorder, "is_rehearsal", False):
        if out.flags.c_contiguous or out.flags.f_contiguous:
            communicator.sum(out.reshape(-1, order="A"))
        else:
            whole = xp.ascontiguousarray(out)
            communicator.sum(whole.reshape(-1))
            xp.copyto(out, whole)
    return out


#: ``waits`` says that the sum may come later, with others in one message.
allreduce_: Primitive = Primitive(
    "allreduce",
    _allreduce,
    gradients=(lambda g, out, x, communicator, waits: allreduce(g, communicator),),
    doc="Return the sum of x over all processes.",
)


def allreduce(x: Any, communicator: Communicator) -> Tensor:
    """Return the sum of x over all processes, each of which gets all of it.

    The gradient of x is the sum of the gradients of all processes' results: together, they compute one loss,
    which is the sum of what each of them calls backward() of.
    """
    return _summed(as_tensor(x), communicator, waits=False)


def sum_gradients(parameters: Iterable[Parameter], communicator: Communicator) -> None:
    """Replace the gradients of Parameters by their sums over all processes.

    In a compiled step, they travel in a few large messages while the step goes on.
    """
    once = {id(parameter): parameter for parameter in parameters}
    with nullcontext() if mode.recorder is None else mode.recorder.phase("backward"):
        for parameter in once.values():
            if parameter.grad is not None:
                parameter.grad = summed_later(parameter.grad, communicator)


@no_grad()
def summed_later(x: Tensor, communicator: Communicator) -> Tensor:
    """Return the sum over all processes, which in a compiled step may come later, with others."""
    return _summed(x, communicator, waits=True)


def _summed(x: Tensor, communicator: Communicator, waits: bool) -> Tensor:
    if communicator.size == 1:
        return x
    wide = x.astype(numpy.float32) if x.dtype == numpy.float16 else x  # which MPI has no sums of
    if wide.dtype.kind not in "iuf":
        raise TypeError(f"allreduce adds up numbers, got a Tensor of {x.dtype}")
    result: Tensor = allreduce_(wide, communicator=communicator, waits=waits).astype(x.dtype)
    return result
