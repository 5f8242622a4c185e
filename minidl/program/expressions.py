"""The primitives' expressions, filled in: what the generators of C and of CUDA share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache

import numpy

from minidl.primitives.elementwise import cast, floor
from minidl.primitives.mathematics import floor_divide, mod
from minidl.primitives.primitive import Primitive
from minidl.program.program import Instruction, Value

#: Expressions for results of a kind of dtype for which a primitive's own does not do; None for no expression.
_OTHER_DTYPES = {
    (cast, "b"): "x != 0",
    **{(floor, kind): "x" for kind in "iub"},
    **{(primitive, kind): None for primitive in (mod, floor_divide) for kind in "iub"},
}


#: Primitives whose expressions hold for floating-point numbers alone.
_OF_FLOATS = (mod, floor_divide)


class Unsupported(Exception):
    """A step that a generator does not handle; the array module runs it instead."""


def expression(
    member: Instruction,
    names: Mapping[Value, str],
    type_name: Callable[[numpy.dtype], str],
    functions: Mapping[str, str] | None = None,
) -> str:
    """Return a member's expression with its arguments' names put in, and its attributes as numbers.

    ``functions`` says by which names the functions in the expression go.
    """
    template = _OTHER_DTYPES.get((member.primitive, member.output.dtype.kind), member.primitive.expression)
    if template is None or (member.primitive in _OF_FLOATS and member.output.dtype.kind != "f"):
        raise Unsupported(member.name)
    kind = type_name(member.output.dtype)
    attributes = {
        name: type_name(numpy.dtype(value)) if name == "dtype" else f"(({kind}) {number(value)})"
        for name, value in member.attributes.items()
    }
    arguments = dict(functions or {})
    arguments |= zip(_parameters(member.primitive), (names[value] for value in member.inputs), strict=False)
    filled = template.format(**attributes) if attributes else template
    return re.sub(r"\b[A-Za-z_]\w*", lambda match: arguments.get(match.group(), match.group()), filled)


@cache
def _parameters(primitive: Primitive) -> list[str]:
    """Return how a primitive's expression calls its arguments: as its forward function does."""
    return list(inspect.signature(primitive.forward).parameters)[1:]


def number(value: object) -> str:
    """Return a number of Python or NumPy as C: digits, whatever the object says about itself.

    A subclass may have any ``__repr__``, so the number is taken from inside it. Floats are written in
    hexadecimal, which every compiler reads to the last bit; infinity and NaN have no literals.
    """
    if isinstance(value, numpy.generic) and not isinstance(value, float):
        value = numpy.generic.item(value)
    if isinstance(value, int):  # bool too
        value = int.__pos__(value)
        if -(2**63) < value < 2**63:
            return repr(value)
        value = float(value)
    if not isinstance(value, float):
        raise Unsupported(f"{type(value).__name__} is no number of C")
    value = float.__pos__(value)
    if value != value:
        return "(1e308 * 10 - 1e308 * 10)"
    if value in (float("inf"), -float("inf")):
        return "(1e308 * 10)" if value > 0 else "(-1e308 * 10)"
    return value.hex()
