"""NumPy's functions on Tensors: ``numpy.exp(t)`` is ours, on the tape; no gradient is lost silently.

NumPy hands a call with a Tensor among its arguments to ``Tensor.__array_ufunc__`` and ``__array_function__``.
A function of NumPy's is ours if one of ours has its name. Lists of Tensors it makes arrays itself, which
``Tensor.__array__`` refuses where a gradient is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy

from minidl.mode import LEAVING_THE_TAPE, mode

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

#: NumPy's names of options, and ours.
_OTHER_OPTIONS = {"a_min": "min", "a_max": "max", "fill_value": "value", "correction": "ddof"}

#: Options that say how NumPy computes, or that have no meaning for Tensors.
_WITHOUT_MEANING = ("out", "where", "order", "subok", "casting", "kind", "stable", "copy", "optimize")

#: What NumPy's functions ask of an array that is not a computation.
_QUESTIONS: dict[Any, Callable[..., Any]] = {
    numpy.shape: lambda x: x.shape,
    numpy.ndim: lambda x: x.ndim,
    numpy.size: lambda x, axis=None: x.size if axis is None else x.shape[axis],
    numpy.iscomplexobj: lambda x: False,
    numpy.isrealobj: lambda x: True,
    numpy.result_type: lambda *xs: numpy.result_type(*(getattr(x, "dtype", x) for x in xs)),
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
    from minidl.primitives.shape import reshape, transpose

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
    # Ours take any number of lengths or axes, NumPy's one sequence with a name.
    found[numpy.reshape] = lambda a, shape: reshape(a, shape)
    found[numpy.transpose] = lambda a, axes=None: transpose(a, axes)
    found[numpy.copy] = lambda a: elementwise.cast(a, dtype=a.dtype)  # Tensor.copy() leaves the tape
    return found


def call_ufunc(function: Any, method: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compute one of NumPy's functions of single elements with Tensors."""
    if method == "__call__" and options.get("out") is None:
        return call(function, inputs, options)
    name = f"numpy.{function.__name__}" + (" with out=" if method == "__call__" else f".{method}")
    return _on_arrays(getattr(function, method), name, inputs, options)


def call(function: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Compute one of NumPy's functions with Tensors, by our function of the same name.

    If there is none, NumPy computes with the values, and gives arrays.

    Raises
    ------
    TypeError
        We have no such function and a gradient would be lost, or ours does not take these options.
    """
    ours = _counterparts().get(function)
    name = f"numpy.{getattr(function, '__name__', function)}"
    if ours is None:
        return _on_arrays(function, name, inputs, options)
    for option in ("out", "where"):
        if options.get(option) is not None:
            raise TypeError(f"{name} of a Tensor takes no {option}=")
    options = {
        _OTHER_OPTIONS.get(key, key): value for key, value in options.items() if key not in _WITHOUT_MEANING
    }
    dtype = options.pop("dtype", None) if "dtype" not in inspect.signature(ours).parameters else None
    try:
        result = ours(*inputs, **options)
    except TypeError as error:
        raise TypeError(f"{name} of a Tensor is that of minidl: {error}") from error
    return result if dtype is None else result.astype(dtype)


def _on_arrays(function: Any, name: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Let NumPy compute with the values of Tensors that no gradient is asked for."""

    def array(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return type(x)(map(array, x))
        if not hasattr(x, "requires_grad"):
            return x
        if x.requires_grad and mode.grad_enabled:
            raise TypeError(
                f"{name} has no counterpart in minidl, and would lose the gradient of a Tensor: "
                f"{LEAVING_THE_TAPE}"
            )
        return numpy.asarray(x)

    written = options.get("out") or ()
    if any(hasattr(x, "requires_grad") for x in (written if isinstance(written, tuple) else (written,))):
        raise TypeError(f"{name} cannot write to a Tensor: only assign() does")
    return function(*map(array, inputs), **{key: array(value) for key, value in options.items()})
