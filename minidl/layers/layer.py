"""Layer: something with Parameters and a forward; everything else follows from its attributes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import numpy

from minidl import devices, weights
from minidl.layers.sizes import fill
from minidl.mode import mode, no_grad
from minidl.nests import named_leaves
from minidl.random.generator import Generator
from minidl.tensor import Parameter, Tensor, tensor
from minidl.tracking import Tracked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minidl.inspection.summary import Summary
    from minidl.weight_names import LoadReport, Renaming


class Layer(Tracked):
    """A part of a network: subclass it, set attributes in ``__init__``, compute in ``forward``.

    A Layer finds its Parameters, state Tensors and sub-layers among its attributes, and in lists,
    tuples and dicts of them, in the order in which they were set. An object found twice is shared:
    it is listed once, under the first of its names.

    Examples
    --------
    >>> import minidl as dl
    >>> class Scale(dl.Layer):
    ...     def __init__(self, features):
    ...         self.factor = dl.Parameter(dl.ones(features))
    ...
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale(3)(dl.ones((2, 3))).shape
    (2, 3)
    """

    __slots__ = ("_results",)  # the names of attributes that a call has set to Tensors: results, no state

    training = True
    unset: Any = None  # of a Layer whose size was left open, how it is completed: see sizes.py

    def forward(self, *inputs: Any) -> Any:
        """Compute the output Tensor, or a tuple of them, from the input Tensors."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        """Return forward() of the inputs; NumPy and CuPy arrays among them become Tensors.

        Type checkers take the result for a Tensor, which can be unpacked as a tuple of them can.
        """
        if named:  # hooks see inputs by position
            try:
                call = inspect.signature(self.forward).bind(*inputs, **named)
            except TypeError as error:
                raise TypeError(f"{type(self).__name__}.forward() {error}") from None
            call.apply_defaults()
            inputs = call.args
        is_array = [hasattr(x, "dtype") and not isinstance(x, Tensor) for x in inputs]
        inputs = tuple(tensor(x) if bare else x for x, bare in zip(inputs, is_array, strict=True))
        if self.unset is not None:
            fill(self, inputs)
        mode.layer_calls += 1
        try:
            hook = mode.layer_hook
            result: Tensor = self.forward(*inputs) if hook is None else hook(self, inputs)
            return result
        finally:
            mode.layer_calls -= 1

    def __setattr__(self, name: str, value: Any) -> None:
        results: frozenset[str] = getattr(self, "_results", frozenset())
        is_state = name not in results and _is_result(vars(self).get(name))  # a Tensor from __init__
        super().__setattr__(name, value)
        is_result = mode.layer_calls and not mode.filling and not is_state and _is_result(value)
        if is_result or name in results:
            object.__setattr__(self, "_results", results | {name} if is_result else results - {name})

    # --- what it holds ----------------------------------------------------------------------------

    def members(self) -> dict[str, Any]:
        """Return what to search for Parameters and sub-layers, by name.

        By default these are the attributes, but for results: Tensors that a call of a Layer kept in an
        attribute. State is made in ``__init__``, and changes by assign().
        """
        results = getattr(self, "_results", None)
        if not results:
            return vars(self)
        return {name: value for name, value in vars(self).items() if name not in results}

    def named_members(self) -> Iterator[tuple[str, Tensor | Layer | Generator]]:
        """Yield every Tensor, Layer and Generator inside, depth first, each once, with its dotted name."""
        seen = {id(self)}
        waiting = list(reversed(list(parts_of(self.members()))))
        while waiting:
            name, member = waiting.pop()
            if id(member) in seen:
                continue
            seen.add(id(member))
            yield name, member
            if isinstance(member, Layer):
                waiting.extend(reversed(list(parts_of(member.members(), name))))

    def named_children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the Layers directly in this one with their names here, each as often as it is there."""
        return ((name, part) for name, part in parts_of(self.members()) if isinstance(part, Layer))

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """Yield every sub-layer at any depth with its dotted name, shared ones once."""
        return ((name, member) for name, member in self.named_members() if isinstance(member, Layer))

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every Parameter and state Tensor with its dotted name, shared ones once.

        A result with a tape that forward() kept in an attribute is not state.
        """
        return (
            (name, member)
            for name, member in self.named_members()
            if isinstance(member, Tensor) and not (member.requires_grad and member.primitive is not None)
        )

    def named_occurrences(self) -> Iterator[tuple[str, Tensor | Layer]]:
        """Yield every Tensor and Layer inside under each of its dotted names, shared ones several times.

        Sharing within sharing multiplies names: 10,000 are yielded at most.
        """
        return islice(_occurrences(self, "", ()), 10_000)

    def shared_names(self) -> dict[str, str]:
        """Return the further names of shared Parameters and state, each with its name in state_dict()."""
        from minidl.weight_names import other_names

        return other_names(self.named_occurrences(), dict(self.named_tensors()))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every Parameter with its dotted name, shared ones once."""
        return ((name, member) for name, member in self.named_members() if isinstance(member, Parameter))

    def named_generators(self) -> Iterator[tuple[str, Generator]]:
        """Yield every random Generator with its dotted name, shared ones once."""
        return ((name, member) for name, member in self.named_members() if isinstance(member, Generator))

    def parameters(self) -> list[Parameter]:
        """Return every Parameter, shared ones once."""
        return [parameter for _, parameter in self.named_parameters()]

    def parameter_count(self) -> int:
        """Return the number of trainable values; shared ones count once."""
        return sum(parameter.size for parameter in self.parameters())

    def initialize(self, *samples: Any) -> Self:
        """Fill the sizes that were left open, as in ``Dense(None, 10)``, from a sample. Returns the Layer.

        What has its size stays as it is, and so do modes and statistics. Make the optimizer afterwards.

        Parameters
        ----------
        samples : for each input, an array of observations, or the shape of one observation
        """
        inputs = [numpy.zeros((1, *x), numpy.float32) if isinstance(x, (tuple, list)) else x for x in samples]
        outer, mode.filling = mode.filling, True
        try:
            with no_grad(), self.evaluating():
                self(*inputs)
        finally:
            mode.filling = outer
        return self

    # --- mode, device and dtype -------------------------------------------------------------------

    def train(self, training: bool = True) -> Self:
        """Switch this Layer and all inside to training mode (or, with False, to evaluation)."""
        self.training = training
        for _, layer in self.named_layers():
            layer.training = training
        return self

    def eval(self) -> Self:
        """Switch this Layer and all inside to evaluation mode."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[Self]:
        """Switch to evaluation mode within a ``with`` block; restore every Layer's mode afterwards."""
        layers: list[Layer] = [self, *(layer for _, layer in self.named_layers())]
        modes = [layer.training for layer in layers]
        self.eval()
        try:
            yield self
        finally:
            for layer, training in zip(layers, modes, strict=True):
                layer.training = training

    def to(self, device: str) -> Self:
        """Move all Parameters and state to a device; sharing is kept. Returns the Layer itself."""
        device = devices.resolve(device)
        for _, x in self.named_tensors():
            x.data = devices.to_device(x.data, device)
            x.grad = None if x.grad is None else x.grad.to(device)
        return self

    def astype(self, dtype: Any) -> Self:
        """Convert all floating-point Parameters and state to another floating-point dtype.

        Gradients are dropped. Returns the Layer itself.
        """
        if numpy.dtype(dtype).kind != "f":
            raise TypeError(f"Parameters are floating-point numbers; {numpy.dtype(dtype)} is not")
        for _, x in self.named_tensors():
            if x.dtype.kind == "f":
                x.data = devices.cast(x.data, dtype)
                x.grad = None
        return self

    # --- saving -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Return a copy of every Parameter and state Tensor by its dotted name, shared ones once."""
        state: dict[str, numpy.ndarray] = {}
        for name, x in self.named_tensors():
            if name in state:
                raise ValueError(f"{type(self).__name__} has two Tensors named {name!r}; rename one")
            state[name] = x.numpy()
        return state

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        strict: bool = True,
        prefix: str = "",
        rename: Renaming | None = None,
    ) -> LoadReport:
        """Set Parameters and state Tensors from a state_dict(). What is shared may have any of its names.

        Parameters
        ----------
        strict : False lets what is missing keep its value, and leaves out what is unexpected
        prefix : only names that begin with it are loaded, without it: ``"encoder."``
        rename : from names in the state (without the prefix), or from what they begin with, to names here:
            ``{"body": "encoder.0"}``; or a function of a name, which returns None to leave it out

        Returns
        -------
        LoadReport
            What was loaded, what was missing and what was not used. Print it.

        Raises
        ------
        ValueError
            Names are missing or unexpected, shapes differ, or a shared Tensor has several names whose arrays
            differ; all is listed, nothing is changed.
        """
        return self._load(state, {}, strict, prefix, rename, type(self).__name__)

    def _load(
        self,
        state: Mapping[str, Any],
        shared: Mapping[str, str],
        strict: bool,
        prefix: str,
        rename: Renaming | None,
        source: str,
        allow_nan: bool = True,
    ) -> LoadReport:
        from minidl import weight_names

        return weight_names.load(
            dict(self.named_tensors()),
            state,
            self.shared_names(),
            shared,
            strict=strict,
            prefix=prefix,
            rename=rename,
            source=source,
            allow_nan=allow_nan,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state_dict() to a safetensors file; an existing file is replaced in one move.

        What is shared is stored once; its further names are in the file's metadata.
        """
        weights.save(self.state_dict(), path, self.shared_names())

    def load(
        self,
        path: str | PathLike[str],
        strict: bool = True,
        prefix: str = "",
        rename: Renaming | None = None,
        report: Callable[[LoadReport], Any] | None = None,
    ) -> Self:
        """Set Parameters and state Tensors from a file written by save(). Returns the Layer.

        Parameters
        ----------
        strict, prefix, rename : as for load_state_dict()
        report : is called with a LoadReport of what was loaded: ``report=print``

        Raises
        ------
        FileNotFoundError, ValueError
            The file is missing, is no safetensors file, does not fit, or has Parameters that are NaN;
            nothing is changed.
        """
        state = weights.read(path)
        shared = weights.read_shared_names(
            path, refuse="pt", instead="read PyTorch's weights with load_torch()"
        )
        loaded = self._load(state, shared, strict, prefix, rename, f"{path}", allow_nan=False)
        if report is not None:
            report(loaded)
        return self

    def load_torch(
        self,
        source: str | PathLike[str] | Mapping[str, Any],
        strict: bool = True,
        prefix: str = "",
        rename: Renaming | None = None,
        flattened: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> LoadReport:
        """Set Parameters and state Tensors from PyTorch's: see `minidl.interop.load_torch`."""
        from minidl.interop.torch_weights import load_torch

        return load_torch(self, source, strict, prefix, rename, flattened)

    def save_torch(
        self,
        path: str | PathLike[str],
        every_name: bool = False,
        flattened: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> None:
        """Write Parameters and state for PyTorch: see `minidl.interop.save_torch`."""
        from minidl.interop.torch_weights import save_torch

        save_torch(self, path, every_name, flattened)

    def load_keras(
        self, path: str | PathLike[str], strict: bool = True, rename: Renaming | None = None
    ) -> LoadReport:
        """Set Parameters and state Tensors from Keras's: see `minidl.interop.load_keras`."""
        from minidl.interop.keras_weights import load_keras

        return load_keras(self, path, strict, rename)

    def load_mat(
        self,
        path: str | PathLike[str],
        strict: bool = True,
        rename: Renaming | None = None,
        flattened: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> LoadReport:
        """Set Parameters and state Tensors from MATLAB's: see `minidl.interop.load_mat`."""
        from minidl.interop.mat_weights import load_mat

        return load_mat(self, path, strict, rename, flattened)

    def to_mat(
        self, path: str | PathLike[str], flattened: Mapping[str, tuple[int, int, int]] | None = None
    ) -> None:
        """Write Parameters and state for MATLAB: see `minidl.interop.save_mat`."""
        from minidl.interop.mat_weights import save_mat

        save_mat(self, path, flattened)

    def to_onnx(self, path: str | PathLike[str], *samples: Any, opset: int = 18) -> None:
        """Write the forward in evaluation mode as an ONNX file: see `minidl.interop.to_onnx`.

        Parameters
        ----------
        path : the file
        samples : for each input, the shape of one observation, or an array of observations
        opset : the version of ONNX's operators, 18 or later
        """
        from minidl.interop.onnx_export import to_onnx

        to_onnx(self, path, samples, opset)

    # --- showing ----------------------------------------------------------------------------------

    def summary(self, *inputs: Any) -> Summary:
        """Return a table of all Layers: outputs, parameters, operations. Print it.

        Parameters
        ----------
        inputs : for each input, the shape of one observation (without a batch axis), or an array of
            observations; without any, the table has what is known without running the Layer
        """
        from minidl.inspection.summary import summarize

        return summarize(self, inputs)

    def plot(self, *inputs: Any, path: str | PathLike[str] | None = None) -> Figure:
        """Plot the Layers as nested boxes, how data flows through them, and which weights they share.

        Parameters
        ----------
        inputs : as for summary(); at least one
        path : where to write the plot, as PNG, SVG or PDF; a notebook shows the returned figure
        """
        from minidl.inspection.plot import plot_network

        return plot_network(self, inputs, path)

    def extra_repr(self) -> str:
        """Return what is printed between the parentheses of the Layer's name, for example sizes."""
        return ""

    def settings(self) -> str:
        """Return extra_repr(), under its old name."""
        warnings.warn("Layer.settings() is now extra_repr()", DeprecationWarning, stacklevel=2)
        return self.extra_repr()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if callable(own.get("settings")) and "extra_repr" not in own:
            message = f"{cls.__name__}.settings() is now called extra_repr(): rename it"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            cls.extra_repr = own["settings"]  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return _tree(self, {})


@contextmanager
def layer_hook(hook: Callable[[Layer, tuple[Any, ...]], Any]) -> Iterator[None]:
    """Within a ``with`` block, have ``hook(layer, inputs)`` called instead of each Layer's forward.

    It calls ``layer.forward(*inputs)`` itself and returns the outputs, so it sees the inputs and the
    outputs of every Layer.
    """
    outer, mode.layer_hook = mode.layer_hook, hook
    try:
        yield
    finally:
        mode.layer_hook = outer


def _is_result(value: Any) -> bool:
    """Return whether a value is a Tensor that is no Parameter, or a nest with one in it."""
    if isinstance(value, Tensor):
        return not isinstance(value, Parameter)
    if isinstance(value, (list, tuple)):
        return any(map(_is_result, value))
    return isinstance(value, dict) and any(map(_is_result, value.values()))


def _occurrences(
    layer: Layer, prefix: str, around: tuple[Layer, ...]
) -> Iterator[tuple[str, Tensor | Layer]]:
    for name, part in parts_of(layer.members(), prefix):
        if isinstance(part, Generator):
            continue
        yield name, part
        if isinstance(part, Layer) and not any(part is outer for outer in (*around, layer)):
            yield from _occurrences(part, name, (*around, layer))


def parts_of(members: Any, prefix: str = "") -> Iterator[tuple[str, Tensor | Layer | Generator]]:
    """Yield the Tensors, Layers and Generators in a nest, with dotted names; look into no Layer."""
    for name, part in named_leaves(members, prefix, lambda x: isinstance(x, Layer)):
        if isinstance(part, (Tensor, Layer, Generator)):
            yield name, part


def _tree(layer: Layer, shown: dict[int, str], path: str = "") -> str:
    """Return the printed form: one line for each sub-layer, indented; shared ones point back."""
    lines = []
    for name, function in layer.members().items():
        if name.isdigit() and not isinstance(function, Layer):  # a function among a network's layers
            lines.append(f"({name}): {getattr(function, 'name', getattr(function, '__name__', function))}")
    for name, member in parts_of(layer.members()):
        if not isinstance(member, Layer):
            continue
        if id(member) in shown:
            lines.append(f"({name}): the same as {shown[id(member)]}")
        else:
            shown[id(member)] = f"{path}{name}"
            lines.append(f"({name}): {_tree(member, shown, f'{path}{name}.')}")
    title = f"{type(layer).__name__}({layer.extra_repr()}"
    if not lines:
        return f"{title})"
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{title}\n  {body}\n)"
