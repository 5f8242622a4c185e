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
        state: dict[str, Any] = _as_lists(self.numpy.bit_generator.state)
        streams = {str(i): stream.place() for i, stream in self.on_device.items() if stream.is_seeded}
        return state | {"streams": self._loaded | streams}

    def check_state(self, state: dict[str, Any], name: str = "the generator") -> None:
        """Refuse a state_dict() that is not one of a Generator of this kind with ValueError."""
        kind = type(self.numpy.bit_generator)
        try:
            kind().state = _as_arrays(_of_host(dict(state)))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            theirs = state.get("bit_generator") if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"the state of {name} is one of {theirs}, not of {kind.__name__}"
                if theirs != kind.__name__
                else f"the state of {name} is none of {theirs}: {error!r}"
            ) from error

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict() of a Generator of the same kind; on other GPUs, with other numbers.

        Raises
        ------
        ValueError
            It is the state of another kind of Generator; nothing is changed.
        """
        if mode.recorder is not None:
            mode.recorder.before_seeding(self)
        self.check_state(state)
        self.numpy.bit_generator.state = _as_arrays(_of_host(state))
        self._loaded = dict(state.get("streams", {}))
        for stream in self.on_device.values():
            stream.is_seeded = False


def _of_host(state: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in state.items() if name != "streams"}


def _as_lists(state: Any) -> Any:
    """Return the state of a bit generator of NumPy with lists for arrays: those of some kinds hold arrays."""
    if isinstance(state, dict):
        return {name: _as_lists(x) for name, x in state.items()}
    if isinstance(state, (numpy.ndarray, numpy.generic)):
        return state.tolist()
    return state


def _as_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _as_arrays(x) for name, x in state.items()}
    if isinstance(state, list):  # words of 64 bits, but for the Mersenne twister
        return numpy.array(state, numpy.uint32 if len(state) == _TWISTER_WORDS else numpy.uint64)
    return state


#: How many words the state of MT19937 has.
_TWISTER_WORDS = 624


#: What is drawn from where no Generator is given.
default_generator = Generator()


def as_generator(seed: int | Generator | NumpyGenerator | None) -> Generator:
    """Return the Generator itself, or a new one from a seed; without one, the default Generator draws it."""
    if isinstance(seed, Generator):
        return seed
    return Generator(int(default_generator.numpy.integers(2**63)) if seed is None else seed)
