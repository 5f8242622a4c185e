"""Isolation of a function under check: all that it reads is float64 meanwhile, and restored afterwards."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy

from minidl import devices
from minidl.checks.tracing import OperationTrace, UsageRecorder
from minidl.layers.layer import Layer, parts_of
from minidl.mode import mode
from minidl.nests import leaves
from minidl.program.compile import Compiled
from minidl.random.generator import Generator
from minidl.tensor import Tensor, tensor


@contextmanager
def with_tape() -> Iterator[None]:
    """Switch the tape on within a ``with`` block, even if the caller is inside no_grad()."""
    outer, mode.grad_enabled = mode.grad_enabled, True
    try:
        yield
    finally:
        mode.grad_enabled = outer


class Snapshot:
    """Layers, Tensors and Generators as they were when each was added; ``restore`` puts them back.

    A Tensor that is added works on a copy of its array, in float64 if ``float64`` is set, until the
    original array is put back. The state of a Generator includes its streams on GPUs.
    """

    def __init__(self, float64: bool = False):
        self.float64 = float64
        self.tensors: dict[int, Tensor] = {}
        self.names: dict[int, str] = {}
        self.was_converted = False
        self._starts: dict[int, devices.Array] = {}
        self._undo: list[Callable[[], None]] = []
        self._attributes: list[Any] = []
        self._generators: dict[int, tuple[Generator, Any]] = {}
        self._layers: dict[int, Layer] = {}

    def add(self, found: Layer | Generator | Tensor, prefix: str | None = None) -> None:
        """Add an object, and all that is inside if it is a Layer."""
        if isinstance(found, Layer):
            self._add_layer(found, f"{type(found).__name__}." if prefix is None else prefix)
        elif isinstance(found, Generator):
            self._add_generator(found)
        else:
            self._add_tensor(found, prefix or "")

    def _add_layer(self, layer: Layer, prefix: str) -> None:
        if id(layer) in self._layers:
            return
        for part in (layer, *(inner for _, inner in layer.named_layers())):
            if id(part) not in self._layers:
                self._layers[id(part)] = part
                self._attributes.append(_contents_of(vars(part)))
        for name, x in layer.named_tensors():
            self._add_tensor(x, f"{prefix}{name}")
        for _, generator in layer.named_generators():
            self._add_generator(generator)

    def _add_generator(self, generator: Generator) -> None:
        if id(generator) in self._generators:
            return
        start = generator.state_dict()
        self._generators[id(generator)] = (generator, start)
        self._undo.append(lambda: generator.load_state_dict(start))

    def _add_tensor(self, x: Tensor, name: str) -> None:
        if id(x) in self.tensors:
            return
        self.tensors[id(x)], self.names[id(x)] = x, name
        data, gradient, assigned = x.data, x.grad, x.assigned_at

        def undo() -> None:
            x.data, x.grad, x.assigned_at = data, gradient, assigned

        self._undo.append(undo)
        is_lower = self.float64 and data.dtype.kind == "f" and data.dtype != numpy.float64
        self.was_converted |= is_lower
        x.data, x.grad = devices.cast(data, numpy.float64) if is_lower else devices.copy(data), None
        self._starts[id(x)] = devices.copy(x.data)

    def rewind(self, changed: Iterable[int]) -> None:
        """Reset some Tensors, by id, and all Generators to when they were added; drop gradients."""
        for key in changed:
            x = self.tensors[key]
            devices.write(x.data, self._starts[key])
        for x in self.tensors.values():
            x.grad = None
        for generator, start in self._generators.values():
            generator.load_state_dict(start)

    def changed(self) -> list[str]:
        """Return the names of the Tensors whose values have changed since they were added."""
        return [
            self.names[key]
            for key, x in self.tensors.items()
            if not numpy.array_equal(
                devices.to_numpy(x.data), devices.to_numpy(self._starts[key]), equal_nan=x.dtype.kind == "f"
            )
        ]

    def restore_attributes(self) -> None:
        """Restore the attributes of the Layers, and the contents of the lists, dicts and arrays in them."""
        for attributes in self._attributes:
            _with_contents(attributes)

    def restore(self) -> None:
        """Restore everything, bit for bit."""
        self.restore_attributes()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()


class IsolatedFunction:
    """A function under check, which is called many times from the same state.

    Attributes
    ----------
    inputs : the inputs as Tensors: floating-point ones in float64 and with gradients, others as they are
    snapshot : the Layers, Tensors and Generators that the function uses
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Iterable[Any], names: dict[int, str] | None = None
    ):
        self.eager, self.function = _eager_and_replayed(function)
        self.inputs = [_float64_leaf(x) for x in inputs]
        self.snapshot = Snapshot(float64=True)
        self._names = names or {}
        self._assigned: dict[int, Tensor] = {}
        self._owners = list(_owners(function))

    def __enter__(self) -> Self:
        try:
            for prefix, owner in self._owners:
                self.snapshot.add(owner, prefix)
            self._discover()
        except BaseException:
            self.snapshot.restore()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.snapshot.restore()

    def _discover(self) -> None:
        """Run the function until all that it uses is known and was float64 from the start."""
        for _ in range(3):
            self.snapshot.was_converted = False
            usage = UsageRecorder(self._found)
            with usage.recording(), numpy.errstate(all="ignore"):
                self.eager(*self.inputs)
            self._assigned |= usage.assigned
            self.rewind()
            self.snapshot.restore_attributes()  # what one call stores must not hide what the next does
            if not self.snapshot.was_converted:
                return

    def _found(self, x: Layer | Generator | Tensor) -> None:
        if not any(x is leaf for leaf in self.inputs):
            self.snapshot.add(x)

    def rewind(self) -> None:
        """Restore the state before the first call."""
        self.snapshot.rewind(self._assigned)
        for x in self.inputs:
            x.grad = None

    def call(self, eager: bool = False) -> list[Tensor]:
        """Return the floating-point Tensors that the function returns, called in the initial state."""
        self.rewind()
        return outputs_of((self.eager if eager else self.function)(*self.inputs))

    def trace(self) -> tuple[OperationTrace, list[Tensor]]:
        """Call the function and keep every operation; return them and the outputs."""
        self.rewind()
        trace = OperationTrace(self._found)
        for x in (*self.inputs, *self.snapshot.tensors.values()):
            trace.remember(x)
        with trace.recording(), numpy.errstate(all="ignore"):
            outputs = outputs_of(self.eager(*self.inputs))
        trace.finish()
        return trace, outputs

    def watched(self) -> dict[str, Tensor]:
        """Return everything that gets a gradient, by name: inputs, Parameters and other leaves."""
        found = {f"input {i}": x for i, x in enumerate(self.inputs) if x.requires_grad}
        unnamed = 0
        for key, x in self.snapshot.tensors.items():
            if not x.requires_grad or x.primitive is not None:  # no leaf, or frozen
                continue
            name = self._names.get(key) or self.snapshot.names[key]
            if not name or name in found:
                name, unnamed = f"parameter {unnamed}", unnamed + 1
            found[name] = x
        return found

    def updated_parameters(self) -> list[str]:
        """Return the names of the Parameters to which the function assigns."""
        return [name for name, x in self.watched().items() if id(x) in self._assigned]


def outputs_of(result: Any) -> list[Tensor]:
    """Return the floating-point Tensors in the result of a function: a Tensor or a nest of them."""
    outputs = [y for y in leaves(result) if y is not None]
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(f"the function returned {type(y).__name__}; it must return Tensors")
    return [y for y in outputs if y.dtype.kind == "f"]


def _float64_leaf(x: Any) -> Tensor:
    source = tensor(x)
    if source.dtype.kind != "f":
        return source
    return Tensor(devices.cast(source.data, numpy.float64), requires_grad=True)


def _eager_and_replayed(function: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a function without compile(), and as it is called: if compiled, with new programs."""
    compiled = getattr(function, "__func__", function)
    if not isinstance(compiled, Compiled):
        return function, function
    eager = compiled.function
    if hasattr(function, "__func__"):
        eager = functools.partial(eager, function.__self__)
    replayed = copy.copy(compiled)
    replayed.function = eager
    return eager, replayed


def _owners(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects that hold a function's Parameters, with the prefix of their names, where found."""
    if isinstance(function, Layer):
        yield "", function
    elif isinstance(function, functools.partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            if callable(part):
                yield from _owners(part)
    elif isinstance(function, Compiled):
        yield from _owners(function.function)
    elif inspect.ismethod(function):
        yield from _owners(function.__self__ if isinstance(function.__self__, Layer) else function.__func__)
    elif inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        for name, member in parts_of({**variables.globals, **variables.nonlocals}):
            yield (f"{name}." if isinstance(member, Layer) else name), member


def _contents_of(value: Any) -> Any:
    """Return a value such that `_with_contents` restores it: lists, dicts and arrays with their contents."""
    if type(value) is dict:
        return _Contents(value, {key: _contents_of(item) for key, item in value.items()})
    if type(value) is list:
        return _Contents(value, [_contents_of(item) for item in value])
    if isinstance(value, numpy.ndarray) and value.flags.writeable:
        return _Contents(value, value.copy())
    return value


class _Contents:
    """A list, dict or array, and a copy of what was in it."""

    def __init__(self, container: Any, contents: Any):
        self.container, self.contents = container, contents


def _with_contents(value: Any) -> Any:
    """Return a value of `_contents_of`: the same list, dict or array, with its contents restored."""
    if not isinstance(value, _Contents):
        return value
    if isinstance(value.contents, numpy.ndarray):
        value.container[...] = value.contents
    elif isinstance(value.contents, list):
        value.container[:] = [_with_contents(item) for item in value.contents]
    else:
        contents = {key: _with_contents(item) for key, item in value.contents.items()}
        value.container.clear()
        value.container.update(contents)
    return value.container
