"""assert_compiled_equals: that a compiled function does what the plain one does, on code of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minidl.program.compile import compile


def assert_compiled_equals(
    function: Callable[..., Any],
    make_arguments: Callable[[int], Sequence[Any]],
    calls: int = 4,
    change: Callable[[int], Any] | None = None,
    kernels: Sequence[str] = ("numpy",),
) -> None:
    """Call a function compiled, and compare each call with the plain function: results, state and gradients.

    Parameters
    ----------
    function : a step, or any function that ``compile`` takes
    make_arguments : returns the arguments of call ``i``
    calls : how many calls to compare, for each of the kernels
    change : called after call ``i``, to change what the function reads: an attribute, a list, a mode
    kernels : the kernels to compare, see ``compile``

    Raises
    ------
    AssertionError
        A call differs from the plain function by more than rounding.
    RecordingError
        The function does something that a compiled function cannot repeat; the message names the line.

    Examples
    --------
    >>> import minidl as dl
    >>> scale = {"factor": 1.0}
    >>> assert_compiled_equals(
    ...     lambda x: x * scale["factor"],
    ...     lambda i: [dl.ones(3) * i],
    ...     change=lambda i: scale.update(factor=2.0 + i),
    ... )
    """
    for kind in kernels:
        compiled = compile(function, verify=True, kernels=kind)
        for i in range(calls):
            compiled(*make_arguments(i))
            if change is not None:
                change(i)
