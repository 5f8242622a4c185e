"""verify=True: what the plain function gives and leaves behind, beside what a replay does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl import devices
from minidl.mode import mode
from minidl.program.arguments import results_of
from minidl.program.program import Program
from minidl.program.recorder import ChangeLog
from minidl.tensor import Tensor

#: How far a replay may be from plain execution, relatively and absolutely, by the bits of a number.
_TOLERANCES = {16: 1e-2, 32: 1e-4, 64: 1e-9}


class Plain:
    """What a function returns when it is called as it is, and what Tensors and gradients are then.

    The call itself leaves nothing behind: arrays, gradients, attributes and Generators are put back.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]):
        log = ChangeLog()
        mode.recorder = log
        try:
            result = function(*arguments, **keywords)
            mode.recorder = None
            self.outputs = [devices.copy(y._array) for y in results_of(result)]
            self.states = [
                (x, devices.copy(x._array)) for x, _ in log.arrays.values() if x.created_at <= log.started
            ]
            self.gradients = [
                (
                    gradient.leaf,
                    None if gradient.leaf._grad is None else devices.copy(gradient.leaf._grad._array),
                )
                for gradient in log.gradients.values()
            ]
        finally:
            mode.recorder = None
            log.rewind()

    def compare(self, result: Any, program: Program, exact: bool) -> None:
        """Compare with the result of a replay, and with what it left behind.

        Raises
        ------
        AssertionError
            Something differs by more than rounding.
        """
        # What has fewer bits on its way comes out less exact.
        bits = min([64, *(8 * x.dtype.itemsize for x in program.values() if x.dtype.kind == "f")])
        tolerance = _TOLERANCES[bits]
        if bits == 32 and not exact:  # a factor that differs in its last bit may be rounded another way
            tolerance = 2e-2
        for i, (y, plain) in enumerate(zip(results_of(result), self.outputs, strict=True)):
            _compare(f"output {i}", y._array, plain, tolerance)
        for x, plain in self.states:
            _compare(f"new state of shape {x.shape}", x._array, plain, tolerance)
        for x, gradient in self.gradients:
            _compare_gradients(x, gradient, tolerance)


def _compare_gradients(x: Tensor, plain: Any, tolerance: float) -> None:
    what = f"the gradient of a Tensor of shape {x.shape}"
    if (plain is None) != (x._grad is None):
        there = ["is there", "is not there"]
        raise AssertionError(
            f"verify: {what} {there[x._grad is None]} after the replay, and {there[plain is None]} after the "
            "plain call"
        )
    if x._grad is not None:
        _compare(what, x._grad._array, plain, tolerance)


def _compare(name: str, replayed: Any, plain: Any, tolerance: float) -> None:
    plain, replayed = devices.to_numpy(plain), devices.to_numpy(replayed)
    if not numpy.allclose(replayed, plain, rtol=tolerance, atol=tolerance, equal_nan=True):
        worst = numpy.abs(replayed - plain).max()
        raise AssertionError(
            f"verify: {name} differs between replay and plain execution by up to {worst:.3g}"
        )
