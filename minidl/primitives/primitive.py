"""What a primitive is: a name, a forward on arrays, and gradient rules written with Tensors.

A forward has the signature ``forward(xp, *arrays, out=None, **attributes)``: ``xp`` is NumPy or
CuPy, and if ``out`` is given the result is written there and nothing of its size is allocated.

A gradient rule has the signature ``rule(g, out, *inputs, **attributes)``: it gets the gradient
``g`` of the output, the output and the inputs, all as Tensors, and returns the gradient of one
input. There is one rule for each input, so that a gradient nobody needs is never computed. Rules
are ordinary Tensor code: they can be differentiated again, and recorded. A rule may return a
gradient of the broadcast shape; autodiff.py sums it back to the shape of the input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from minidl.tensor import Tensor, apply, as_tensors, promote_dtypes

Rule = Callable[..., Any]

#: Every primitive by its name. The gradient checks in the tests run over this table.
PRIMITIVES: dict[str, Primitive] = {}


class Kind(StrEnum):
    """What a primitive does to elements, which is what the compiler has to know of it."""

    #: Computes each element by itself, with NumPy's broadcasting; such primitives are computed in groups.
    ELEMENTWISE = "elementwise"
    #: Computes nothing: the result shares the memory of the input where NumPy's would.
    VIEW = "view"
    #: Draws from the Generator in its attributes: never computed twice, dropped or moved among other draws.
    RANDOM = "random"
    #: Writes its first input; only Tensor.assign() applies it, and a program has updates in its place.
    ASSIGN = "assign"
    #: Anything else: a reduction, a product, indexing, ...
    GENERAL = "general"


@dataclass(eq=False)
class Primitive:
    """One differentiable operation.

    Calling a primitive applies it to Tensors; numbers and arrays among its inputs become constant
    Tensors first.

    Attributes
    ----------
    name : the name that tapes, programs and error messages show
    forward : the computation on arrays
    gradients : one rule (or None, where there is no gradient) for each input, or, for primitives
        with any number of inputs, one function that gets the index of the input as first argument
    kind : what it does to elements, a Kind or its name
    expression : for elementwise primitives, the result of one element as a C expression in the
        forward's argument names (attributes in braces)
    promotes : inputs of several dtypes are brought to one before the forward, as promote_dtypes() says;
        so it is by default for elementwise primitives
    promotes_to_float : integer and bool inputs are converted to float32 before the forward
    compares : a number beside a Tensor may be one that the dtype of the Tensor does not hold
    may_alias : the indices of inputs whose memory ``out`` may be; None for all of them
    keeps_inputs : the result remembers its inputs even where no gradient is asked for, so that a
        loss can see the logits behind a probability
    domain : the interval from which the tests draw inputs
    doc : the docstring
    input_count : how many inputs an elementwise primitive takes; None where nobody needs it
    """

    name: str
    forward: Callable[..., Any]
    gradients: Sequence[Rule | None] | Rule
    kind: Kind = Kind.GENERAL
    expression: str | None = None
    promotes: bool = False
    promotes_to_float: bool = False
    compares: bool = False
    may_alias: tuple[int, ...] | None = ()
    keeps_inputs: bool = False
    domain: tuple[float, float] = (-2.0, 2.0)
    doc: str = ""
    differentiable: bool = field(init=False)
    input_count: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.name in PRIMITIVES:
            raise ValueError(f"there are two primitives named {self.name!r}")
        self.kind = Kind(self.kind)
        self.differentiable = callable(self.gradients) or any(self.gradients)
        self.__doc__ = self.doc or None
        if self.kind is Kind.ELEMENTWISE and not callable(self.gradients):
            self.input_count = len(self.gradients)
        PRIMITIVES[self.name] = self

    def __call__(self, *inputs: Any, **attributes: Any) -> Tensor:
        """Return the result for Tensors, or what becomes Tensors; see tensor.apply()."""
        if self.input_count is not None:
            self._require_inputs(len(inputs))  # one more would be taken for ``out``, and written
        if "out" in attributes:
            self._require_keywords(attributes)
        tensors = as_tensors(inputs, beyond_dtype=self.compares)
        if self.promotes or self.promotes_to_float:
            tensors = promote_dtypes(tensors, self.promotes_to_float)
        try:
            return apply(self, tensors, attributes)
        except TypeError as error:
            self._require_keywords(attributes)
            if "not supported for the input types" in str(error):
                dtypes = " and ".join(str(x.dtype) for x in tensors)
                raise TypeError(f"{self.name} is not defined for {dtypes}") from None
            raise

    def _require_inputs(self, given: int) -> None:
        if given != self.input_count:
            plural = "" if self.input_count == 1 else "s"
            raise TypeError(f"{self.name}() takes {self.input_count} input{plural}, got {given}")

    def _require_keywords(self, attributes: dict[str, Any]) -> None:
        known = [*inspect.signature(self.forward).parameters][1:]
        wrong = [name for name in attributes if name not in known or name == "out"]
        if wrong:
            raise TypeError(f"{self.name}() has no argument {wrong[0]!r}") from None

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> Any:
        """Pickle and copy a primitive by its name: it is known by identity."""
        return _of_name, (self.name,)

    def rule(self, index: int) -> Rule | None:
        """Return the gradient rule of the input with this index, or None if it has none."""
        if callable(self.gradients):
            gradients = self.gradients
            return lambda *arguments, **attributes: gradients(index, *arguments, **attributes)
        return self.gradients[index]


def _of_name(name: str) -> Primitive:
    return PRIMITIVES[name]


def elementwise(name: str, forward: Callable[..., Any], **options: Any) -> Primitive:
    """Declare a primitive that computes each element by itself, with NumPy's broadcasting."""
    options.setdefault("may_alias", None)
    options.setdefault("promotes", True)
    return Primitive(name, forward, kind=Kind.ELEMENTWISE, **options)
