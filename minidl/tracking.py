"""Objects whose attributes a compiled function may rely on: each change of one moves a counter on.

A compiled function takes the attributes of Layers, optimizers and Trainers for granted, and which arrays
Tensors hold, which of them require gradients, and the factors of Parameters. To look at all of them at every
call would take longer than many a step. So it looks at one counter, and compares them only where that has
moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl.mode import mode

if TYPE_CHECKING:
    from minidl.tensor import Tensor

#: Stands for an attribute that is not there.
MISSING: Any = object()


class _Changes:
    """How often any attribute of a Tracked object was set or deleted, and any of these of a Tensor.

    ``functions`` counts how often the code or the defaults of any function were set. It is NaN, which equals
    nothing, where that is not known (program/outside_world.py).
    """

    __slots__ = ("count", "functions")

    def __init__(self) -> None:
        self.count = 0
        self.functions = float("nan")


changes = _Changes()


class NotHere:
    """In the place of an attribute that a class does not have: the error says what to write.

    Tensors have these. With ``__getattr__``, as Tracked has it, each use of any attribute would take longer.
    """

    def __init__(self, name: str):
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            raise AttributeError(f"type object 'Tensor' has no attribute {self.name!r}")
        from minidl.foreign_names import attribute_problem

        raise AttributeError(attribute_problem(owner, self.name))


class Tracked:
    """The base of classes whose attributes are watched; a recorder is told before each change."""

    if not TYPE_CHECKING:  # a type checker would take it that every attribute exists

        def __getattr__(self, name: str) -> Any:
            """Refuse an attribute that does not exist; Python asks for it last."""
            if name.startswith("_"):  # what Python and other libraries look for by themselves
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            if any(name in vars(part) for part in type(self).__mro__):
                return object.__getattribute__(self, name)  # a property that failed: with its own error
            from minidl.foreign_names import attribute_problem

            raise AttributeError(attribute_problem(self, name))

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self).get(name, MISSING) is value:
            return
        if mode.recorder is not None:
            mode.recorder.before_attribute(self, name)
        object.__setattr__(self, name, value)
        changes.count += 1

    def __delattr__(self, name: str) -> None:
        if mode.recorder is not None:
            mode.recorder.before_attribute(self, name)
        object.__delattr__(self, name)
        changes.count += 1


class TracedNumber:
    """Stands for a float argument while a function is recorded that should serve all values of it.

    Where it is computed with beside Tensors, `tensor` makes it an input of the program. Python's arithmetic
    gives another TracedNumber, which a replay computes from the new value. Whatever else Python does with it
    is done with its value, and noted: then ``is_read`` is True, and the program serves this value alone.

    Parameters
    ----------
    value : the float
    compute : returns the value in another call, from all float arguments of that
    make_input : returns the Tensor that stands for it, for a dtype and a device
    origin : the number that this one was computed from
    """

    __slots__ = ("compute", "is_read", "make_input", "origin", "value")

    def __init__(
        self,
        value: float,
        compute: Callable[[list[float]], float],
        make_input: Callable[[TracedNumber, Any, str], Tensor],
        origin: TracedNumber | None = None,
    ):
        self.value, self.compute, self.make_input, self.is_read = value, compute, make_input, False
        self.origin = self if origin is None else origin

    def tensor(self, dtype: Any, device: str) -> Tensor:
        """Return the Tensor that stands for the number."""
        return self.make_input(self, dtype, device)

    def read(self) -> float:
        """Return the value to Python."""
        self.origin.is_read = True
        return self.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.read(), name)


def _reading(name: str) -> Callable[..., Any]:
    """Return a method that computes with the value, which is noted."""
    operation = getattr(float, name)

    def read(self: TracedNumber, *others: Any) -> Any:
        return operation(self.read(), *(x.read() if isinstance(x, TracedNumber) else x for x in others))

    return read


def _arithmetic(name: str) -> Callable[..., Any]:
    """Return a method of arithmetic with another plain number, or with none, which gives a TracedNumber."""
    operation, read = getattr(float, name), _reading(name)

    def compute(self: TracedNumber, *others: Any) -> Any:
        if any(not isinstance(x, TracedNumber) and hasattr(x, "requires_grad") for x in others):
            return NotImplemented  # a Tensor, whose own operator comes next
        values = [x.value if isinstance(x, TracedNumber) else x for x in others]
        result = NotImplemented
        if all(type(value) in (int, float) for value in values):
            result = operation(self.value, *values)
        if type(result) is not float:
            return read(self, *others)

        def again(numbers: list[float]) -> float:
            there = (x.compute(numbers) if isinstance(x, TracedNumber) else x for x in others)
            result: float = operation(self.compute(numbers), *there)
            return result

        return TracedNumber(result, again, self.make_input, self.origin)

    return compute


_ARITHMETIC = [
    f"__{r}{name}__" for r in ("", "r") for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
]
_ARITHMETIC += ["__neg__", "__pos__", "__abs__"]
_COMPARED = (
    "__repr__",
    "__str__",
    "__format__",
    "__hash__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
)
_OWN = ("__getformat__", "__getnewargs__", *(name for name in vars(object) if name not in _COMPARED))

for _name in vars(float):
    if _name.startswith("__") and _name not in _OWN:
        setattr(TracedNumber, _name, (_arithmetic if _name in _ARITHMETIC else _reading)(_name))
