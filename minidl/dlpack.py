"""DLPack: arrays that other libraries take from Tensors, and Tensors of other libraries' memory.

The protocol: https://dmlc.github.io/dlpack/latest/python_spec.html and the array API standard.
"""

from __future__ import annotations

from typing import Any

import numpy

from minidl import devices
from minidl.devices import Array
from minidl.errors import DeviceError
from minidl.mode import LEAVING_THE_TAPE, mode
from minidl.tensor import Tensor

#: DLPack's numbers of devices: the host's memory, pinned or not, and that of NVIDIA's GPUs.
_CPU, _PINNED, _CUDA, _MANAGED = 1, 3, 2, 13


def export(
    x: Tensor,
    array: Array,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Return what ``Tensor.__dlpack__`` returns, for the array of a Tensor.

    Another library may write to what it gets, and only assign() writes to Tensors: so it gets a copy, unless
    ``copy=False`` asks for the memory itself, which is then marked as read-only.

    Raises
    ------
    BufferError
        A gradient would be lost, or the consumer cannot be served as it asks.
    """
    if x.requires_grad and mode.grad_enabled:
        raise BufferError(f"another library would lose the gradient of a Tensor: {LEAVING_THE_TAPE}")
    here = tuple(array.__dlpack_device__())
    if dl_device is not None and tuple(map(int, dl_device)) != here:
        if int(dl_device[0]) != _CPU:
            raise BufferError(f"a Tensor on {x.device} is not handed to another device; move it with .to()")
        if copy is False:
            raise BufferError(f"a Tensor on {x.device} cannot be on the host without a copy")
        array, stream, copy = devices.to_numpy(array), None, False  # which is a copy already
    elif copy is False:
        array = array.view()
        if isinstance(array, numpy.ndarray):
            if max_version is None or max_version < (1, 0):
                raise BufferError(
                    "the consumer's version of DLPack, below 1.0, cannot be told that memory is read-only: "
                    "leave out copy=False"
                )
            array.flags.writeable = False
    else:
        array = devices.copy(array)
    if isinstance(array, numpy.ndarray):
        if stream is not None:
            raise BufferError(f"memory of the host has no stream, got stream={stream}")
        return array.__dlpack__(max_version=max_version)
    with devices.current(array):
        return array.__dlpack__(stream=stream, max_version=max_version)


def from_dlpack(x: Any, device: str | None = None, copy: bool | None = None) -> Tensor:
    """Return a Tensor of another library's array, without copying it where that is possible.

    The memory is shared: if the other library writes to it, the Tensor changes with it, and what backward()
    has kept of it is stale. ``tensor(x)`` copies.

    Parameters
    ----------
    x : an object with ``__dlpack__``, of PyTorch, JAX, CuPy, NumPy or another library
    device : where the Tensor shall be; by default, where the array is
    copy : True for memory of its own, False to refuse rather than copy

    Raises
    ------
    TypeError
        The object does not speak DLPack, its gradient would be lost, or it has a dtype that NumPy lacks.
    DeviceError, ValueError
        It is on a device that minidl does not compute on, or cannot be had without a copy.
    """
    if isinstance(x, Tensor):
        x = x.detach()
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack takes an array with __dlpack__, got {type(x).__name__}: use tensor()")
    if getattr(x, "requires_grad", False):
        raise TypeError(f"the tape of another library ends here: detach the {type(x).__name__} first")
    array = shared(x)
    where = devices.device_of(array) if device is None else devices.resolve(device)
    if where != devices.device_of(array):
        if copy is False:
            raise ValueError(f"an array on {devices.device_of(array)} cannot be on {where} without a copy")
        array = devices.to_device(array, where)
    elif copy:
        array = devices.copy(array)
    return Tensor(array)


def shared(x: Any) -> Array:
    """Return the memory of an object with ``__dlpack__`` as an array of NumPy or CuPy."""
    if devices.is_array(x):
        return x
    if isinstance(x, Tensor):
        return x._values("from_dlpack()")
    kind, _ = x.__dlpack_device__()
    try:
        if int(kind) in (_CUDA, _MANAGED):
            import cupy

            return cupy.from_dlpack(x)
        if int(kind) in (_CPU, _PINNED):
            return numpy.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        dtype = getattr(x, "dtype", "unknown")
        raise TypeError(f"a {type(x).__name__} of dtype {dtype} cannot be taken: {error}") from error
    raise DeviceError(f"an array of {type(x).__name__} is on a device that minidl cannot use: kind {kind}")
