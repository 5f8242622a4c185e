"""Tensor: an array plus how it was made; Parameter: a Tensor that trains; apply: the one choke point.

Everything that happens to Tensors goes through apply(), which computes with arrays, and notes on the
result how it was made. autodiff.py follows these notes back to compute gradients.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.mode import LEAVING_THE_TAPE, mode
from minidl.tracking import NotHere, TracedNumber, changes

DTypeLike = Any
#: What operations take: Tensors, numbers, arrays of any library, nested lists; as_tensor() makes Tensors.
TensorLike = object

#: Orders Tensors by creation, and assignments among them.
_clock = itertools.count(1)


class _Storage:
    """What a Tensor and its views share: when their memory was last assigned a new value."""

    __slots__ = ("assigned_at",)

    def __init__(self) -> None:
        self.assigned_at = 0


def check_differentiable(dtype: numpy.dtype) -> None:
    """Raise a TypeError unless Tensors of a dtype can require gradients."""
    if dtype.kind != "f":
        raise TypeError(f"only floating-point Tensors can require a gradient, got {dtype}")


class Tensor:
    """An array plus how it was made.

    Make one with `tensor`, not with this class. A Tensor computes with NumPy's operators, functions
    and methods under NumPy's names. Nothing writes to its array except `assign`.

    Attributes
    ----------
    data : the NumPy or CuPy array
    requires_grad : whether gradients are computed for it, or through it
    grad : the gradient that backward() has added up, or None
    primitive, inputs, attributes : how it was made; ``primitive`` is None for a leaf, and
        ``inputs`` is None where the tape has been freed or was never kept
    created_at, assigned_at : when it was made, and when it was last assigned a new value
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_grad",
        "_requires_grad",
        "_storage",
        "attributes",
        "created_at",
        "inputs",
        "primitive",
    )

    def __init__(self, data: devices.Array, requires_grad: bool = False):
        try:
            dtype = data.dtype
        except AttributeError:
            raise TypeError(
                f"Tensor() takes a NumPy or CuPy array, got {type(data).__name__}: dl.tensor() takes lists, "
                "numbers and much else"
            ) from None
        if requires_grad:
            check_differentiable(dtype)
        self._array = data
        self._requires_grad = requires_grad
        self._grad: Tensor | None = None
        self._storage: _Storage | None = None
        self.primitive: Primitive | None = None
        self.inputs: tuple[Tensor, ...] | None = None
        self.attributes: dict[str, Any] = {}
        self.created_at = next(_clock)

    # --- what a recorder is told of ---------------------------------------------------------------

    @property
    def data(self) -> devices.Array:
        """The NumPy or CuPy array. A compiled function cannot read it: a replay would not see its values."""
        if mode.recorder is not None:
            mode.recorder.before_data(self)
        return self._array

    @data.setter
    def data(self, array: devices.Array) -> None:
        if mode.recorder is not None:
            mode.recorder.before_data(self)
        if not isinstance(getattr(array, "dtype", None), numpy.dtype):
            raise TypeError(f"data is a NumPy or CuPy array, got {devices.described(array)}: see assign()")
        self._array = array
        changes.count += 1

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed for this Tensor, or through it."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        if requires_grad:
            check_differentiable(self.dtype)
        self._requires_grad = bool(requires_grad)
        changes.count += 1

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() has added up, or None."""
        if mode.recorder is not None:
            mode.recorder.before_gradient(self)
        return self._grad

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        if mode.recorder is not None:
            mode.recorder.before_gradient(self)
        self._grad = gradient

    @property
    def assigned_at(self) -> int:
        """When the memory of this Tensor was last assigned a new value, through it or a view; 0 for never."""
        return 0 if self._storage is None else self._storage.assigned_at

    @assigned_at.setter
    def assigned_at(self, moment: int) -> None:
        if moment or self._storage is not None:
            self._storage = self._storage or _Storage()
            self._storage.assigned_at = moment

    # --- what it is -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self._array.ndim)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    @property
    def dtype(self) -> numpy.dtype:
        """The NumPy dtype of the elements."""
        dtype: numpy.dtype = self._array.dtype
        return dtype

    @property
    def device(self) -> str:
        """Where the array is: ``"cpu"``, ``"gpu:0"``, ..."""
        return devices.device_of(self._array)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d Tensor has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        if mode.recorder is not None:
            return f"tensor(shape={self.shape}, dtype={self.dtype})"
        text = numpy.array2string(
            devices.to_numpy(self._array), separator=", ", prefix="tensor(", threshold=50
        )
        notes = "" if self.dtype == numpy.float32 else f", dtype={self.dtype}"
        notes += "" if self.device == "cpu" else f", device={self.device}"
        if self.requires_grad:
            notes += ", requires_grad=True" if self.primitive is None else f", made by {self.primitive.name}"
        return f"{type(self).__name__.lower()}({text}{notes})"

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if not isinstance(vars(Tensor).get(name), NotHere)]

    # --- its values, as something other than a Tensor ---------------------------------------------

    def _values(self, reader: str) -> devices.Array:
        """Return the array to be read by Python; a step that is being recorded cannot allow that."""
        if mode.recorder is not None:
            mode.recorder.refuse_reading(self, reader)
        return self._array

    def numpy(self) -> Any:
        """Return the values as a NumPy array of their own (a copy, on the host)."""
        return numpy.array(devices.to_numpy(self._values("numpy()")))

    def item(self) -> Any:
        """Return the only element as a Python number."""
        if self.size != 1:
            raise ValueError(f"item() needs a Tensor of one element, got shape {self.shape}")
        return devices.to_numpy(self._values("item()")).item()

    def tolist(self) -> Any:
        """Return the values as nested lists of Python numbers."""
        return devices.to_numpy(self._values("tolist()")).tolist()

    def nonzero(self) -> tuple[Tensor, ...]:
        """Return the positions of elements that are not zero: one int64 Tensor for each axis."""
        array = self._values("nonzero()")
        with devices.current(array):
            return tuple(Tensor(positions) for positions in array.nonzero())

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> Any:
        """Return what NumPy and others read of a Tensor, where that loses no gradient."""
        if self.device != "cpu":
            raise TypeError(f"a Tensor on {self.device} is not converted implicitly: use .numpy()")
        if self._requires_grad and mode.grad_enabled:
            raise TypeError(
                f"an array would lose the gradient of a Tensor: {LEAVING_THE_TAPE}; "
                "dl.stack([...]) makes one Tensor of a list of them"
            )
        return self.numpy().astype(dtype) if dtype is not None else self.numpy()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Hand the values to another library, such as PyTorch or JAX: a copy, unless ``copy=False``."""
        from minidl import dlpack

        return dlpack.export(self, self._values("__dlpack__()"), stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> Any:
        """Return what DLPack calls the device."""
        return self._array.__dlpack_device__()

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Let NumPy's functions of elements, and ``array * tensor``, be ours."""
        return numpy_functions.call_ufunc(function, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        """Let NumPy's other functions be ours."""
        return numpy_functions.call(function, inputs, options)

    def __format__(self, specification: str) -> str:
        if not specification:
            return repr(self)
        if self.size == 1:
            return format(self.item(), specification)
        raise TypeError(
            f"format {specification!r} is for a Tensor of one element, got shape {self.shape}: "
            "format its .numpy(), or one element"
        )

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer Tensor can be an index, got {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"the truth value of a Tensor of shape {self.shape} is ambiguous")
        return bool(devices.to_numpy(self._values("the truth value")).item())

    # --- gradients and state ----------------------------------------------------------------------

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to ``.grad`` of every leaf behind it: autodiff.backward."""
        autodiff.backward(self, gradient, retain_graph)

    def detach(self) -> Tensor:
        """Return a Tensor of the same array that gradients do not flow through."""
        return shape_operations.detach(self)

    def assign(self, value: Any) -> None:
        """Write a new value, of the same shape, into this Tensor's array.

        This is how Parameters and other state change; gradients do not flow through it.

        Raises
        ------
        ValueError
            The value has another shape.
        RuntimeError
            This Tensor is the result of an operation whose gradient may still be asked for.
        """
        if self.requires_grad and self.primitive is not None:
            raise RuntimeError(
                f"assign() is for Parameters and state, not for a result of '{self.primitive.name}'"
            )
        value = as_tensors((self, value))[1]
        if value.shape != self.shape:
            raise ValueError(
                f"assign: a value of shape {value.shape} does not fit a Tensor of shape {self.shape}"
            )
        if value.dtype != self.dtype:
            value = value.detach().astype(self.dtype)
        xp = devices.common_module([self._array, value._array], "assign")
        recorder = mode.recorder
        if recorder is not None:
            recorder.before_assign(self)
        arrays = [self._array, value._array]
        if recorder is not None and recorder.infer(indexing.assign_, arrays, {}) is not None:
            pass  # there are no values to be written
        elif xp is numpy:
            indexing.assign_.forward(xp, *arrays)
        else:
            with devices.current(self._array):
                indexing.assign_.forward(xp, *arrays)
        mark_assigned(self)
        if recorder is not None:
            recorder.record(indexing.assign_, (self, value), {}, self)

    def to(self, device: str) -> Tensor:
        """Return this Tensor on a device, as a new leaf if it has to be moved."""
        if devices.resolve(device) == self.device:
            return self
        return Tensor(devices.to_device(self._values("to()"), device), self.requires_grad)

    def copy(self) -> Tensor:
        """Return a Tensor with an array of its own, that gradients do not flow through."""
        return elementwise.cast(self.detach(), dtype=self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        Tensor.__init__(twin, devices.copy(self._array), self.requires_grad and self.primitive is None)
        _record_copy(twin, self)
        for name, value in getattr(self, "__dict__", {}).items():  # of a subclass
            setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    def __reduce__(self) -> Any:
        """Pickle the values, the device and whether a gradient is required; tape and gradient stay behind."""
        values = devices.to_numpy(self._values("pickling"))
        required = self.requires_grad and self.primitive is None
        own = set(Tensor.__slots__)
        slots = (name for kind in type(self).__mro__ for name in getattr(kind, "__slots__", ()))
        more = {name: getattr(self, name) for name in slots if name not in own and hasattr(self, name)}
        state = (getattr(self, "__dict__", None), more)
        return _unpickled, (type(self), values, self.device, required), state

    def __copy__(self) -> Tensor:
        return self.__deepcopy__({})

    def zeros_like(self) -> Tensor:
        """Return zeros of this shape, dtype and device."""
        with devices.current(self._array):
            return Tensor(devices.array_module(self._array).zeros(self.shape, self.dtype))

    def ones_like(self) -> Tensor:
        """Return ones of this shape, dtype and device."""
        with devices.current(self._array):
            return Tensor(devices.array_module(self._array).ones(self.shape, self.dtype))

    # --- operators --------------------------------------------------------------------------------

    __hash__ = object.__hash__  # Tensors are told apart by identity; == compares elements

    def __add__(self, other: Any) -> Tensor:
        return elementwise.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return elementwise.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return elementwise.subtract(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return elementwise.subtract(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return elementwise.multiply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return elementwise.multiply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return elementwise.divide(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return elementwise.divide(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return elementwise.power(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return elementwise.power(other, self)

    def __neg__(self) -> Tensor:
        return elementwise.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __invert__(self) -> Tensor:
        return logic.invert(self)

    def __mod__(self, other: Any) -> Tensor:
        return mathematics.mod(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return mathematics.mod(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return mathematics.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return mathematics.floor_divide(other, self)

    def __and__(self, other: Any) -> Tensor:
        return logic.bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return logic.bitwise_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return logic.bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return logic.bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return logic.bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return logic.bitwise_xor(other, self)

    def __round__(self, decimals: int | None = None) -> Tensor:
        return mathematics.round(self, decimals or 0)

    def __abs__(self) -> Tensor:
        return elementwise.absolute(self)

    def __matmul__(self, other: Any) -> Tensor:
        return linear_algebra.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return linear_algebra.matmul(other, self)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented  # no element of a Tensor is; Python then compares identities
        return elementwise.equal(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        if other is None or isinstance(other, str):
            return NotImplemented
        return elementwise.not_equal(self, other)

    def __lt__(self, other: Any) -> Tensor:
        return elementwise.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return elementwise.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return elementwise.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return elementwise.greater_equal(self, other)

    def __getitem__(self, key: Any) -> Tensor:
        return indexing.index(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Assign this Tensor's value with some elements replaced: assign() says to what that can be done."""
        self.assign(indexing.with_items(self, key, value))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # --- NumPy's methods --------------------------------------------------------------------------

    @property
    def T(self) -> Tensor:
        """The Tensor with its axes reversed, as a view."""
        return shape_operations.transpose(self)

    def transpose(self, *axes: Any) -> Tensor:
        """Return the Tensor with its axes in another order, as a view."""
        return shape_operations.transpose(self, *axes)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the Tensor with another shape, as a view where possible."""
        return shape_operations.reshape(self, *shape)

    def flatten(self) -> Tensor:
        """Return the elements in one axis."""
        return shape_operations.ravel(self)

    def ravel(self) -> Tensor:
        """Return the elements in one axis."""
        return shape_operations.ravel(self)

    def squeeze(self, axis: Any = None) -> Tensor:
        """Return the Tensor without its axes of length 1, or without those given."""
        return shape_operations.squeeze(self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Return the Tensor with two axes exchanged, as a view."""
        return shape_operations.swapaxes(self, axis1, axis2)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """Return the Tensor with each element along an axis repeated."""
        return shape_operations.repeat(self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        """Return the elements at positions along an axis, or of all elements in one."""
        return indexing.take(self, indices, axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """Return a diagonal of matrices as the last axis."""
        return indexing.diagonal(self, offset, axis1, axis2)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """Return the sum of a diagonal of matrices."""
        return indexing.trace(self, offset, axis1, axis2)

    def dot(self, other: Any) -> Tensor:
        """Return the sum of products over the last axis of this and the last but one of the other."""
        return linear_algebra.dot(self, other)

    def round(self, decimals: int = 0) -> Tensor:
        """Return the Tensor rounded to a number of decimals."""
        return mathematics.round(self, decimals)

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Return the Tensor converted to a dtype; itself if it has it."""
        dtype = devices.native(dtype)
        if dtype == self.dtype:
            return self
        return elementwise.cast(self if dtype.kind == "f" else self.detach(), dtype=dtype)

    def sum(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
        """Return the sum over the axes, computed in another dtype if one is given."""
        return reduction.sum(self, axis, keepdims, dtype)

    def mean(self, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Tensor:
        """Return the mean over the axes, computed in another dtype if one is given."""
        return reduction.mean(self, axis, keepdims, dtype)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the largest element over the axes."""
        return reduction.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the smallest element over the axes."""
        return reduction.min(self, axis, keepdims)

    def var(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Return the variance over the axes."""
        return reduction.var(self, axis, ddof, keepdims)

    def std(self, axis: Any = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        """Return the standard deviation over the axes."""
        return reduction.std(self, axis, ddof, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the index of the largest element along an axis, or of all elements in one axis."""
        return reduction.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Return the index of the smallest element along an axis, or of all elements in one axis."""
        return reduction.argmin(self, axis, keepdims)

    def argsort(self, axis: int | None = -1) -> Tensor:
        """Return the positions along an axis in ascending order of the elements."""
        return sorting.argsort(self, axis)

    def all(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return as bool whether all elements over the axes are not 0."""
        return reduction.all(self, axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return as bool whether any element over the axes is not 0."""
        return reduction.any(self, axis, keepdims)

    def prod(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """Return the product over the axes."""
        return reduction.prod(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        """Return the sums of the elements up to each along an axis."""
        return cumulative.cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        """Return the products of the elements up to each along an axis."""
        return cumulative.cumprod(self, axis)

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Return the Tensor limited to [min, max]."""
        return elementwise.clip(self, min, max)


def _unpickled(kind: type[Tensor], values: numpy.ndarray, device: str, requires_grad: bool) -> Tensor:
    """Return a new Tensor, younger than all there are."""
    x = kind.__new__(kind)
    if type(values) is not numpy.ndarray or not values.flags.writeable:  # joblib maps files into memory
        values = numpy.array(values)
    Tensor.__init__(x, devices.to_device(values, device), requires_grad)
    return x


class Parameter(Tensor):
    """A Tensor that trains: a leaf that requires a gradient.

    A Parameter used in two places is shared: its gradients add up, and every list of parameters
    holds it once.

    Parameters
    ----------
    value : array, Tensor or nested lists; copied
    learning_rate_factor : multiplies the optimizer's learning rate for this Parameter; 0 freezes it
    l2_factor : multiplies the optimizer's L2 regularisation; by default 1 for weights and 0 for
        biases and gains, which are told apart by having fewer than two axes
    """

    __slots__ = ("_l2_factor", "_learning_rate_factor")

    def __init__(self, value: Any, learning_rate_factor: float = 1.0, l2_factor: float | None = None):
        source = tensor(value)
        if source.dtype.kind != "f":
            source = source.astype(numpy.float32)
        super().__init__(devices.copy(source._array), requires_grad=True)
        _record_copy(self, source)
        self._learning_rate_factor = learning_rate_factor
        self._l2_factor = (1.0 if self.ndim >= 2 else 0.0) if l2_factor is None else l2_factor

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        twin = super().__deepcopy__(memo)
        assert isinstance(twin, Parameter)
        twin._learning_rate_factor, twin._l2_factor = self._learning_rate_factor, self._l2_factor
        return twin

    @property
    def learning_rate_factor(self) -> float:
        """What the optimizer's learning rate is multiplied by; 0 freezes the Parameter."""
        return self._learning_rate_factor

    @learning_rate_factor.setter
    def learning_rate_factor(self, factor: float) -> None:
        self._learning_rate_factor = factor
        changes.count += 1

    @property
    def l2_factor(self) -> float:
        """What the optimizer's L2 regularisation is multiplied by."""
        return self._l2_factor

    @l2_factor.setter
    def l2_factor(self, factor: float) -> None:
        self._l2_factor = factor
        changes.count += 1


def apply(primitive: Primitive, inputs: tuple[Tensor, ...], attributes: dict[str, Any]) -> Tensor:
    """Compute a primitive on Tensors: the one place where that happens.

    The forward computes with arrays. If a gradient may be asked for, the result remembers how it
    was made; if a step is being recorded, the recorder is told, and may know the shape of the result, so that
    nothing is computed.

    Raises
    ------
    DeviceError
        The inputs live on several devices.
    ValueError
        The shapes do not fit each other; the message names the primitive and the shapes.
    """
    arrays = [x._array for x in inputs]
    recorder = mode.recorder
    xp = numpy
    for array in arrays:
        if type(array) is not numpy.ndarray:
            xp = devices.common_module(arrays, primitive.name)
            break
    try:
        inferred = None if recorder is None else recorder.infer(primitive, arrays, attributes)
        if inferred is not None:
            data = inferred
        elif xp is numpy:
            data = primitive.forward(xp, *arrays, **attributes)
        else:
            with devices.current(arrays[0]):
                data = primitive.forward(xp, *arrays, **attributes)
    except ValueError as error:
        shapes = " and ".join(str(x.shape) for x in inputs)
        raise ValueError(f"{primitive.name} cannot take inputs of shape {shapes}: {error}") from error
    if xp is numpy and type(data) is not numpy.ndarray:
        data = numpy.asarray(data)  # NumPy gives scalars where all inputs are 0-d
    out = Tensor(data)
    if mode.grad_enabled and primitive.differentiable:
        for index, x in enumerate(inputs):
            if x._requires_grad and primitive.rule(index) is not None:
                out._requires_grad = True
                break
    if data.base is not None or (arrays and data is arrays[0]):  # detach() gives the array itself
        _share_storage(out, inputs)
    if out._requires_grad or primitive.keeps_inputs:
        out.primitive, out.inputs, out.attributes = primitive, inputs, attributes
    if recorder is not None:
        recorder.record(primitive, inputs, attributes, out)
    return out


def _share_storage(view: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """Note whose memory a result is a view of, so that assignments through either are known to both."""
    memory = view._array if view._array.base is None else view._array.base
    for x in inputs:
        if x._array is view._array or x._array is memory or x._array.base is memory:
            if x._storage is None:
                x._storage = _Storage()
            view._storage = x._storage
            return


def mark_assigned(x: Tensor) -> None:
    """Note that the array of a Tensor has been written, as assign() does."""
    if x._storage is None:
        x._storage = _Storage()
    x._storage.assigned_at = next(_clock)


def as_tensors(
    values: Sequence[Any], like: Tensor | None = None, beyond_dtype: bool = False
) -> tuple[Tensor, ...]:
    """Return the values as Tensors; numbers get the dtype and device of the Tensors beside them.

    ``like`` is a Tensor that stands for those, should there be none. With ``beyond_dtype``, a whole number
    that the dtype does not hold becomes int64 (to be compared); else it is refused.
    """
    like = next((value for value in values if isinstance(value, Tensor)), like)
    return tuple(
        value if isinstance(value, Tensor) else _constant(value, like, beyond_dtype) for value in values
    )


def as_tensor(value: Any) -> Tensor:
    """Return a value as a Tensor: itself if it is one."""
    return value if isinstance(value, Tensor) else as_tensors((value,))[0]


def promote_dtypes(tensors: tuple[Tensor, ...], floating: bool = False) -> tuple[Tensor, ...]:
    """Return Tensors that NumPy combines without leaving float32 by itself.

    Integers beside floating-point Tensors take their dtype (NumPy would make float64 of int64 and
    float32). With ``floating``, integers and bools alone become float32.
    """
    dtypes = {x._array.dtype for x in tensors}
    if len(dtypes) == 1 and not (floating and tensors[0]._array.dtype.kind != "f"):
        return tensors
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    if not floats and not floating:
        return tensors
    target = numpy.result_type(*floats) if floats else numpy.dtype(numpy.float32)
    converted = "biu" if floating else "iu"
    return tuple(x.astype(target) if x.dtype.kind in converted else x for x in tensors)


def _constant(value: Any, like: Tensor | None, beyond_dtype: bool) -> Tensor:
    if isinstance(value, numpy.generic):
        value = value.item()
    if isinstance(value, TracedNumber):
        return value.tensor(
            tensor_dtype(0.0) if like is None or like.dtype.kind != "f" else like.dtype,
            "cpu" if like is None else like.device,
        )
    if not isinstance(value, (bool, int, float)):
        written_out = isinstance(value, (list, tuple))  # like numbers, lists have no device of their own
        return tensor(value, device=like.device if like is not None and written_out else None)
    dtype = tensor_dtype(value)
    device = "cpu"
    if like is not None:
        device = like.device
        if "biuf".index(like.dtype.kind) >= "biuf".index(dtype.kind) and not (
            beyond_dtype and like.dtype.kind in "iu" and not _holds(like.dtype, value)
        ):
            dtype = like.dtype
    return Tensor(devices.scalar(value, dtype, device))


def _holds(dtype: numpy.dtype, value: float) -> bool:
    limits = numpy.iinfo(dtype)
    return limits.min <= value <= limits.max


def tensor_dtype(value: bool | int | float) -> numpy.dtype:
    """Return the dtype of a Tensor made from a Python number."""
    return numpy.dtype(
        bool if isinstance(value, bool) else numpy.int64 if isinstance(value, int) else numpy.float32
    )


def tensor(
    data: Any, dtype: DTypeLike = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """Make a Tensor.

    Parameters
    ----------
    data : numbers in nested lists, an array (of NumPy, CuPy or another library), or a Tensor; always copied
    dtype : by default, arrays and Tensors keep theirs, and Python's floats become float32
    device : ``"cpu"``, ``"gpu"``, ``"gpu:1"`` or ``"auto"``; by default, data stay where they are
    requires_grad : whether backward() computes a gradient for it

    Raises
    ------
    TypeError
        The data are not numbers.
    DeviceError
        There is no such device here.
    """
    if isinstance(data, Tensor) and mode.recorder is not None:
        return _recorded_copy(data, dtype, device, requires_grad)
    array = devices.from_any(data._array if isinstance(data, Tensor) else data)
    if dtype is None and array.dtype == numpy.float64 and not hasattr(data, "dtype"):
        dtype = numpy.float32
    array = devices.cast(array, array.dtype if dtype is None else dtype)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        what = devices.described(data)
        what += "" if hasattr(data, "dtype") else f", which NumPy reads as dtype {array.dtype}"
        raise TypeError(f"a Tensor holds real numbers of at most 64 bits or bools; got {what}")
    if device is not None:
        array = devices.to_device(array, device)
    return Tensor(array, requires_grad)


def _record_copy(copy: Tensor, source: Tensor) -> None:
    """Tell a recorder that a new leaf has the values of another Tensor, which a replay may change."""
    if mode.recorder is not None:
        mode.recorder.record(elementwise.cast, (source,), {"dtype": source.dtype}, copy)


def _recorded_copy(x: Tensor, dtype: DTypeLike, device: str | None, requires_grad: bool) -> Tensor:
    """Return what tensor() makes of a Tensor by operations, so that a replay makes it of the new values."""
    if device is not None and devices.resolve(device) != x.device:
        x._values("tensor() on another device")
    copy = elementwise.cast(x.detach(), dtype=x.dtype if dtype is None else numpy.dtype(dtype))
    if requires_grad:
        check_differentiable(copy.dtype)
    copy._requires_grad = requires_grad
    return copy


# Primitives call apply(), and operators call primitives: each module needs the other when it is
# used, not while it is being read.
from minidl import numpy_functions  # noqa: E402
from minidl.primitives import (  # noqa: E402
    cumulative,
    elementwise,
    indexing,
    linear_algebra,
    logic,
    mathematics,
    reduction,
    sorting,
)
from minidl.primitives import shape as shape_operations  # noqa: E402
from minidl.primitives.primitive import Primitive  # noqa: E402
