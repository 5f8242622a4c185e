"""NumPy's functions on Tensors: ``numpy.exp(t)`` is ours, on the tape, and what we lack is refused.

NumPy hands a call with a Tensor among its arguments to ``Tensor.__array_ufunc__`` and ``__array_function__``.
A function of NumPy's is ours if one of ours has its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy

#: Names of ours that mean something else than NumPy's, or that NumPy calls by another name.
_OTHER_NAMES = {
    "remainder": "mod",
    "true_divide": "divide",
    "fabs": "absolute",
    "concat": "concatenate",
    "permute_dims": "transpose",
    "acos": "arccos",
    "asin": "arcsin",
    "atan": "arctan",
    "atan2": "arctan2",
    "acosh": "arccosh",
    "asinh": "arcsinh",
    "atanh": "arctanh",
    "pow": "power",
    "amax": "max",
    "amin": "min",
}

#: What NumPy's functions ask of an array that is not a computation.
_QUESTIONS: dict[Any, Callable[..., Any]] = {
    numpy.shape: lambda x: x.shape,
    numpy.ndim: lambda x: x.ndim,
    numpy.size: lambda x, axis=None: x.size if axis is None else x.shape[axis],
    numpy.iscomplexobj: lambda x: False,
    numpy.isrealobj: lambda x: True,
    numpy.result_type: lambda *xs: numpy.result_type(*(getattr(x, "dtype", x) for x in xs)),
    numpy.copy: lambda x: x.copy(),
    numpy.array_repr: lambda x: repr(x),
    numpy.array_str: lambda x: repr(x),
}


@cache
def _counterparts() -> Mapping[Any, Callable[..., Any]]:
    """Return our functions by those of NumPy's that they stand for."""
    from minidl import creation, linalg
    from minidl.primitives import (
        cumulative,
        einsum,
        elementwise,
        indexing,
        linear_algebra,
        logic,
        mathematics,
        reduction,
        shape,
        sorting,
    )

    ours_by_family = (
        *(elementwise, mathematics, logic, reduction, cumulative, sorting),
        *(shape, indexing, linear_algebra, einsum, creation),
    )
    found: dict[Any, Callable[..., Any]] = dict(_QUESTIONS)
    for namespace, modules in ((numpy, ours_by_family), (numpy.linalg, (linalg,))):
        for name in dir(namespace):
            theirs = getattr(namespace, name)
            if not callable(theirs) or isinstance(theirs, type):
                continue
            for module in modules:
                ours = getattr(module, _OTHER_NAMES.get(name, name), None)
                if callable(ours) and not isinstance(ours, type):
                    found[theirs] = ours
    return found


def call_ufunc(function: Any, method: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compute one of NumPy's functions of single elements with Tensors."""
    if method != "__call__":
        raise TypeError(
            f"numpy.{function.__name__}.{method} does not take Tensors: use a function of minidl, or .numpy()"
        )
    return call(function, inputs, options)


def call(function: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compute one of NumPy's functions with Tensors.

    Raises
    ------
    TypeError
        minidl has no function of this name, or ours does not take these options.
    """
    ours = _counterparts().get(function)
    name = f"numpy.{getattr(function, '__name__', function)}"
    if ours is None:
        raise TypeError(
            f"{name} has no counterpart in minidl, and its result would have no gradient: "
            "convert the Tensor with .numpy() if none is needed"
        )
    for option in ("out", "where", "casting", "order", "subok"):
        if options.get(option) is not None:
            raise TypeError(f"{name} of a Tensor takes no {option}=: only assign() writes arrays")
    options = {key: value for key, value in options.items() if key not in ("out", "where", "order", "subok")}
    dtype = options.pop("dtype", None) if "dtype" not in _parameters(ours) else None
    try:
        result = ours(*inputs, **options)
    except TypeError as error:
        raise TypeError(f"{name} of a Tensor is that of minidl: {error}") from error
    return result if dtype is None else result.astype(dtype)


def _parameters(function: Any) -> Sequence[str]:
    import inspect

    return list(inspect.signature(function).parameters)
