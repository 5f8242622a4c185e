"""Sizes that are left open: ``Dense(None, 10)`` takes the length of its input's last axis from a sample."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from minidl.mode import mode

if TYPE_CHECKING:
    from minidl.layers.layer import Layer

Init = TypeVar("Init", bound=Callable[..., None])


def may_be_open(size: str) -> Callable[[Init], Init]:
    """Let an ``__init__`` take None for a size that is the length of the input's last axis.

    Then nothing is made yet: the arguments become attributes, for the printed form, and wait in ``unset``
    until `fill` calls ``__init__`` again with the size.
    """

    def decorate(init: Init) -> Init:
        signature = inspect.signature(init)

        @functools.wraps(init)
        def __init__(self: Layer, *arguments: Any, **named: Any) -> None:
            call = signature.bind(self, *arguments, **named)
            call.apply_defaults()
            if call.arguments[size] is not None:
                init(*call.args, **call.kwargs)
                return
            values = {name: value for name, value in list(call.arguments.items())[1:] if name != "options"}
            for name, value in values.items():
                setattr(self, name, value)
            self.unset = (size, values | call.arguments.get("options", {}))

        __init__.open_size = size  # type: ignore[attr-defined]
        return __init__  # type: ignore[return-value]

    return decorate


def fill(layer: Layer, inputs: tuple[Any, ...]) -> None:
    """Complete a Layer whose size was left open; refuse unless Layer.initialize() is at work.

    Raises
    ------
    RuntimeError
        The Layer is called before it has a size.
    """
    if not mode.filling:
        raise RuntimeError(
            f"{layer!r} takes its size from a sample: call initialize(sample) before it is used, "
            "and before an optimizer is made"
        )
    size, arguments = layer.unset
    classes = (c for c in type(layer).__mro__ if hasattr(vars(c).get("__init__"), "open_size"))
    for name in ("unset", *arguments):
        if name in vars(layer):
            delattr(layer, name)
    vars(next(classes))["__init__"](layer, **arguments | {size: inputs[0].shape[-1]})
