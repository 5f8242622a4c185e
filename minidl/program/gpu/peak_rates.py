"""What a GPU reaches at best: operations of a matrix product, and copied bytes, per second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl.program.lowered.rounding import to_bfloat16


def peak_rates(
    cupy: Any,
    multiply: Callable[..., Any],
    seconds_of: Callable[..., float],
    packed: bool = False,
    n: int = 4096,
    length: int = 64 << 20,
) -> tuple[float, float]:
    """Return what CuPy's current GPU reaches with ``multiply(a, b, out, add)``, timed by ``seconds_of``.

    The product is of (n, n) matrices, float32 or, if they are to be ``packed``, bfloat16; the copy is of
    ``length`` numbers, more than the GPU's cache holds.
    """
    # Random numbers: a GPU that multiplies zeros or ones draws less power, and can run faster.
    numbers = numpy.random.default_rng(0).standard_normal((n, n), numpy.float32)
    a = cupy.asarray(to_bfloat16.forward(numpy, numbers) if packed else numbers)
    b, out = a.copy(), cupy.empty((n, n), numpy.float32)
    big, target = (cupy.ones(length, numpy.float32) for _ in range(2))
    products = min(seconds_of(lambda: multiply(a, b, out, False)) for _ in range(8))
    copies = min(seconds_of(lambda: cupy.copyto(target, big)) for _ in range(8))
    return 2 * n**3 / products, 2 * big.nbytes / copies
