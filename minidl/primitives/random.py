"""Random numbers as primitives, so that a replayed program draws anew each time.

A `Generator` is what the primitives draw from. Whatever takes a ``seed`` takes an integer, a
Generator (shared: several layers may draw from one), a ``numpy.random.Generator``, or None for
fresh entropy.
"""

from __future__ import annotations

from typing import Any

from minidl.primitives.primitive import Kind, Primitive
from minidl.random.generator import Generator


def _uniform(xp: Any, x: Any, generator: Generator, out: Any = None) -> Any:
    return generator.of(xp, x).random(x.shape, dtype=x.dtype, out=out)


def _normal(xp: Any, x: Any, generator: Generator, out: Any = None) -> Any:
    return generator.of(xp, x).standard_normal(x.shape, dtype=x.dtype, out=out)


random_uniform: Primitive = Primitive(
    "random_uniform",
    _uniform,
    gradients=(None,),
    kind=Kind.RANDOM,
    doc="Return one draw from [0, 1) for each element of x: random_uniform(x, generator=generator).",
)
random_normal: Primitive = Primitive(
    "random_normal",
    _normal,
    gradients=(None,),
    kind=Kind.RANDOM,
    doc="Return one standard normal draw for each element of x: random_normal(x, generator=generator).",
)
