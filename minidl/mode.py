"""What apply() does besides computing, for each thread: record a tape, record a program, call a hook."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    import numpy

    from minidl.devices import Array
    from minidl.primitives.primitive import Primitive
    from minidl.random.generator import Generator
    from minidl.tensor import Tensor
    from minidl.tracking import Tracked


class Recorder(Protocol):
    """What Tensors, Layers, optimizers and Generators report to while a function is recorded or watched.

    ``current_phase`` is ``"forward"``, ``"backward"`` or ``"update"``.
    """

    current_phase: str

    def infer(self, primitive: Primitive, arrays: list[Array], attributes: dict[str, Any]) -> Array | None:
        """Return an array like the result of a primitive, whose values nobody reads; None to compute it."""

    def record(
        self, primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any], out: Tensor
    ) -> None:
        """Note a primitive that has been computed."""

    def before_assign(self, x: Tensor) -> None:
        """Note a Tensor that is about to be assigned a new value."""

    def before_draw(self, generator: Generator) -> None:
        """Note a Generator that is about to be drawn from."""

    def before_seeding(self, generator: Generator) -> None:
        """Note, or refuse with an error, that a Generator is about to be given another state."""

    def refuse_reading(self, x: Tensor, reader: str) -> None:
        """Note, or refuse with an error, that Python reads the values of a Tensor."""

    def before_gradient(self, x: Tensor) -> None:
        """Note a Tensor whose gradient is about to be read or replaced."""

    def before_data(self, x: Tensor) -> None:
        """Note, or refuse with an error, that the array of a Tensor is asked for."""

    def before_attribute(self, owner: Tracked, name: str) -> None:
        """Note an object of which an attribute is about to be set or deleted."""

    def check(
        self, x: Tensor, holds: Callable[[numpy.ndarray], bool], message: Callable[[numpy.ndarray], str]
    ) -> bool:
        """Note that the values of a Tensor are to be checked, and return whether they are there."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Return a context in which ``current_phase`` is this one."""


class Mode(threading.local):
    """What apply() does besides computing; each thread has its own."""

    grad_enabled = True  # remember how Tensors were made, so that gradients can be found
    recorder: Recorder | None = None  # told of every primitive while a step is being compiled
    layer_calls = 0  # how many calls of Layers have begun, and not ended
    filling = False  # sizes that Layers left open are being filled from a sample
    layer_hook: Any = None  # called in place of every Layer's forward, to look inside a network
    share: Any = None  # the Share of a mini-batch that this process computes, while others compute the rest


mode = Mode()

#: How to compute with values alone: the end of messages where a gradient would be lost otherwise.
LEAVING_THE_TAPE = "if none is needed, use .numpy() or .detach(), or compute inside dl.no_grad()"


Function = TypeVar("Function", bound=Callable[..., Any])


class _GradientMode:
    """Switch the tape on or off for a ``with`` block or a function.

    Python may raise KeyboardInterrupt where ``__exit__`` begins, and the mode would stay. In a function that
    is decorated there is no such place, so what trains is decorated.
    """

    enabled: bool

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        manager = super().__new__(cls)
        if function is None:
            return manager
        manager.__init__()  # type: ignore[misc]  # used as a decorator without parentheses
        return manager(function)

    def __init__(self) -> None:
        self._outer: list[bool] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __call__(self, function: Function) -> Function:
        enabled = self.enabled

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            outer, mode.grad_enabled = mode.grad_enabled, enabled
            try:
                return function(*args, **kwargs)
            finally:
                mode.grad_enabled = outer

        return cast(Function, call)

    def __enter__(self) -> None:
        self._outer.append(mode.grad_enabled)
        mode.grad_enabled = self.enabled

    def __exit__(self, *exception: object) -> None:
        mode.grad_enabled = self._outer.pop()


class no_grad(_GradientMode):
    """Switch the tape off: ``with no_grad():``, ``@no_grad`` or ``@no_grad()``.

    What is computed has no gradient.
    """

    enabled = False


class enable_grad(_GradientMode):
    """Record a tape inside no_grad(): ``with enable_grad():``, ``@enable_grad`` or ``@enable_grad()``."""

    enabled = True
