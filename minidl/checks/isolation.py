"""A function with all that it reads and changes: in float64 while it is checked, restored afterwards."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy

from minidl import devices
from minidl.checks.tracing import Trace, Witness
from minidl.layers.layer import Layer, _named
from minidl.mode import mode
from minidl.program.compile import Compiled
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor, tensor


@contextmanager
def with_tape() -> Iterator[None]:
    """Switch the tape on for a ``with`` block, should the caller be inside no_grad()."""
    outer, mode.grad_enabled = mode.grad_enabled, True
    try:
        yield
    finally:
        mode.grad_enabled = outer


class Snapshot:
    """Layers, Tensors and Generators as they were when each was added; ``restore`` puts them back.

    A Tensor that is added gets a copy of its array to be played with, in float64 if ``float64`` is
    set; the original array, untouched, comes back. A Generator keeps its streams on GPUs aside too.
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
        """Add an object, and of a Layer all that is inside."""
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
                self._attributes.append(_frozen(vars(part)))
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
        """Give Tensors, by id, and all Generators the state in which they were added; drop gradients."""
        for key in changed:
            x = self.tensors[key]
            devices.write(x.data, self._starts[key])
        for x in self.tensors.values():
            x.grad = None
        for generator, start in self._generators.values():
            generator.load_state_dict(start)

    def changed(self) -> list[str]:
        """Return the names of the Tensors whose values are not those they had when they were added."""
        return [
            self.names[key]
            for key, x in self.tensors.items()
            if not numpy.array_equal(
                devices.to_numpy(x.data), devices.to_numpy(self._starts[key]), equal_nan=x.dtype.kind == "f"
            )
        ]

    def restore_attributes(self) -> None:
        """Give the Layers the attributes, and their lists, dicts and arrays the contents, that they had."""
        for attributes in self._attributes:
            _thawed(attributes)

    def restore(self) -> None:
        """Put everything back, to the bit."""
        self.restore_attributes()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()


class Subject:
    """A function under check, called as often as needed, always from the same state.

    Attributes
    ----------
    inputs : the inputs as float64 leaves (those that are not floating-point as they were)
    snapshot : the Tensors and Generators that the function was seen to use, by any name known
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
        """Run the function until all it uses is known, and in float64 from the start."""
        for _ in range(3):
            self.snapshot.was_converted = False
            witness = Witness(self._found)
            with witness.watching(), numpy.errstate(all="ignore"):
                self.eager(*self.inputs)
            self._assigned |= witness.assigned
            self.rewind()
            self.snapshot.restore_attributes()  # what the first call keeps must not hide what later ones do
            if not self.snapshot.was_converted:
                return

    def _found(self, x: Layer | Generator | Tensor) -> None:
        if not any(x is leaf for leaf in self.inputs):
            self.snapshot.add(x)

    def rewind(self) -> None:
        """Go back to the state before the first call."""
        self.snapshot.rewind(self._assigned)
        for x in self.inputs:
            x.grad = None

    def call(self, eager: bool = False) -> list[Tensor]:
        """Return the floating-point Tensors that the function returns, computed from the first state."""
        self.rewind()
        return outputs_of((self.eager if eager else self.function)(*self.inputs))

    def trace(self) -> tuple[Trace, list[Tensor]]:
        """Call the function while keeping every step."""
        self.rewind()
        trace = Trace(self._found)
        for x in (*self.inputs, *self.snapshot.tensors.values()):
            trace.keep(x)
        with trace.watching(), numpy.errstate(all="ignore"):
            outputs = outputs_of(self.eager(*self.inputs))
        trace.finish()
        return trace, outputs

    def watched(self) -> dict[str, Tensor]:
        """Return everything a gradient is due for, by name: inputs, Parameters, other leaves."""
        found = {f"input {i}": x for i, x in enumerate(self.inputs) if x.requires_grad}
        unnamed = 0
        for key, x in self.snapshot.tensors.items():
            if not (isinstance(x, Parameter) or (x.requires_grad and x.primitive is None)):
                continue
            name = self._names.get(key) or self.snapshot.names[key]
            if not name or name in found:
                name, unnamed = f"parameter {unnamed}", unnamed + 1
            found[name] = x
        return found

    def updated_parameters(self) -> list[str]:
        """Return the names of the Parameters that the function assigns to."""
        return [name for name, x in self.watched().items() if id(x) in self._assigned]


def outputs_of(result: Any) -> list[Tensor]:
    """Return the floating-point Tensors in what a function returned: a Tensor, or a nest of them."""
    if isinstance(result, Tensor):
        return [result] if result.dtype.kind == "f" else []
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, (tuple, list)):
        return [y for part in result for y in outputs_of(part)]
    raise TypeError(f"the function returned {type(result).__name__}; it must return Tensors")


def _float64_leaf(x: Any) -> Tensor:
    source = tensor(x)
    if source.dtype.kind != "f":
        return source
    return Tensor(devices.cast(source.data, numpy.float64), requires_grad=True)


def _eager_and_replayed(function: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a function as it is written, and as it is called: compiled anew if it was compiled."""
    compiled = getattr(function, "__func__", function)
    if not isinstance(compiled, Compiled):
        return function, function
    eager = compiled.function
    if hasattr(function, "__func__"):
        eager = functools.partial(eager, function.__self__)
    replayed = copy.copy(compiled)
    replayed.function, replayed._recordings = eager, {}
    return eager, replayed


def _owners(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield what holds a function's Parameters, with the prefix of their names, as far as can be seen."""
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
        for name, member in _named("", {**variables.globals, **variables.nonlocals}.items()):
            yield (f"{name}." if isinstance(member, Layer) else name), member


def _frozen(value: Any) -> Any:
    """Return what ``_thawed`` makes the value from again: lists, dicts and arrays with their contents."""
    if type(value) is dict:
        return _Frozen(value, {key: _frozen(item) for key, item in value.items()})
    if type(value) is list:
        return _Frozen(value, [_frozen(item) for item in value])
    if isinstance(value, numpy.ndarray) and value.flags.writeable:
        return _Frozen(value, value.copy())
    return value


class _Frozen:
    def __init__(self, container: Any, contents: Any):
        self.container, self.contents = container, contents


def _thawed(value: Any) -> Any:
    """Return the same list, dict or array, at any depth, with the contents that it had."""
    if not isinstance(value, _Frozen):
        return value
    if isinstance(value.contents, numpy.ndarray):
        value.container[...] = value.contents
    elif isinstance(value.contents, list):
        value.container[:] = [_thawed(item) for item in value.contents]
    else:
        contents = {key: _thawed(item) for key, item in value.contents.items()}
        value.container.clear()
        value.container.update(contents)
    return value.container
