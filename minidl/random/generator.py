"""A Generator: what primitives draw random numbers from, on the host and on GPUs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy

from minidl.mode import mode
from minidl.random.philox import Philox

if TYPE_CHECKING:
    from numpy.random import Generator as NumpyGenerator


class Generator:
    """A source of random numbers that works for NumPy and CuPy arrays alike.

    Host draws come from a ``numpy.random.Generator`` (PCG64). The first draw for a GPU array takes
    the key of a stream on that GPU (Philox) from the host's, so one seed decides both.

    Parameters
    ----------
    seed : an integer, a ``numpy.random.Generator``, or None for fresh entropy
    """

    def __init__(self, seed: int | NumpyGenerator | None = None):
        if seed is not None:
            try:
                self.numpy = numpy.random.default_rng(seed)
            except (TypeError, ValueError):
                raise TypeError(
                    f"a seed is an integer that is not negative, or a numpy.random.Generator; got {seed!r}"
                ) from None
        self.on_device: dict[int, Philox] = {}  # by the number of the GPU
        self._loaded: dict[str, list[int]] = {}  # where streams are to go on, once they are drawn from

    @cached_property
    def numpy(self) -> NumpyGenerator:
        """NumPy's Generator; without a seed it is made when it is used: numpy.random takes long to import."""
        return numpy.random.default_rng()

    def __repr__(self) -> str:
        used = ", ".join(["cpu", *(f"gpu:{index}" for index in self.on_device)])
        return f"Generator({self.numpy.bit_generator.__class__.__name__}, for {used})"

    def of(self, xp: Any, array: Any) -> Any:
        """Return the generator of the module and device of an array."""
        if mode.recorder is not None:
            mode.recorder.before_draw(self)
        if xp is numpy:
            return self.numpy
        index = array.device.id
        if index not in self.on_device:
            self.on_device[index] = Philox(xp)
        stream = self.on_device[index]
        if not stream.is_seeded:
            stream.seed(*self._loaded.pop(str(index), None) or [int(self.numpy.integers(2**63))])
        return stream

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the numbers to come, on the host and on GPUs, as JSON can hold it."""
        state = dict(self.numpy.bit_generator.state)
        streams = {str(i): stream.place() for i, stream in self.on_device.items() if stream.is_seeded}
        return state | {"streams": self._loaded | streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict() of a Generator of the same kind; on other GPUs, with other numbers."""
        if mode.recorder is not None:
            mode.recorder.before_seeding(self)
        self.numpy.bit_generator.state = {name: x for name, x in state.items() if name != "streams"}
        self._loaded = dict(state.get("streams", {}))
        for stream in self.on_device.values():
            stream.is_seeded = False


#: What is drawn from where no Generator is given.
default_generator = Generator()


def as_generator(seed: int | Generator | NumpyGenerator | None) -> Generator:
    """Return the Generator itself, or a new one from a seed; without one, the default Generator draws it."""
    if isinstance(seed, Generator):
        return seed
    return Generator(int(default_generator.numpy.integers(2**63)) if seed is None else seed)
