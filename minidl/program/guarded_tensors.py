"""What a recording takes for granted of Tensors from outside: their arrays, flags and factors."""

from __future__ import annotations

import operator
from typing import Any

from minidl.program.guarded import same
from minidl.tensor import Parameter, Tensor

_get_array = operator.attrgetter("_array")
_get_flag = operator.attrgetter("requires_grad")
_get_kind = operator.attrgetter("shape", "dtype", "device")
_get_factors = operator.attrgetter("learning_rate_factor", "l2_factor")


class GuardedTensors:
    """Tensors from outside, and what they were when they were seen.

    Parameters
    ----------
    tensors : each once
    are_read : whether the program has their arrays; else only the shape, dtype and device matter, which
        Python may have looked at
    """

    def __init__(self, tensors: list[Tensor], are_read: bool = False):
        self.tensors, self.are_read = tensors, are_read
        self.arrays = list(map(_get_array, tensors))
        self._kinds = list(map(_get_kind, tensors))
        self._flags = list(map(_get_flag, tensors))
        self._parameters = [x for x in tensors if isinstance(x, Parameter)]
        self._factors = list(map(_get_factors, self._parameters))

    def difference(self) -> str | None:
        """Return in words what differs from what was seen, or None."""
        for x, flag in zip(self.tensors, self._flags, strict=True):
            if x.requires_grad is not flag:
                return f"requires_grad of a Tensor of shape {x.shape} is now {x.requires_grad}"
        for parameter, factors in zip(self._parameters, self._factors, strict=True):
            if not all(map(same, _get_factors(parameter), factors)):
                return "learning_rate_factor or l2_factor of a Parameter was changed"
        for i, x in enumerate(self.tensors):
            if x._array is not self.arrays[i]:
                if self.are_read:
                    return f"the array of a Tensor of shape {x.shape} was replaced"
                if _get_kind(x) != self._kinds[i]:
                    return "the array of a Tensor was replaced by one of another shape, dtype or device"
                self.arrays[i] = x._array
        return None

    def restore(self) -> None:
        """Put flags and factors back."""
        for x, flag in zip(self.tensors, self._flags, strict=True):
            x.requires_grad = flag
        for parameter, factors in zip(self._parameters, self._factors, strict=True):
            parameter.learning_rate_factor, parameter.l2_factor = factors

    def without(self, others: list[Tensor]) -> GuardedTensors:
        """Return the guard of all but some."""
        ids: set[Any] = {id(x) for x in others}
        return GuardedTensors([x for x in self.tensors if id(x) not in ids], self.are_read)
