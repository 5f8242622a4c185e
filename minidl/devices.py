"""NumPy or CuPy: which module an array belongs to, where it lives, and how it moves.

This file is the one switch between CPU and GPU. Everything else takes its array module from its
arrays, so the same code runs wherever the data are. A device is named by a string: ``"cpu"``,
``"gpu"`` (the first GPU), ``"gpu:1"``, or ``"auto"`` (a GPU if there is one, else the CPU).
CuPy is imported only when a GPU is asked for.

CuPy computes on its current GPU, whatever GPU its arrays are on: code that computes with arrays does so
inside ``with current(array):``.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy

from minidl.errors import DeviceError

Array = Any  # numpy.ndarray or cupy.ndarray

_STAY: AbstractContextManager[Any] = nullcontext()  # the current GPU stays the current one

_HOW_TO_INSTALL = "install it with `pip install minidl[gpu]` (CUDA 12) or `pip install minidl[gpu13]`"


class Unavailable:
    """In the place of an array whose values are gone: its shape and dtype, and what to raise for the rest."""

    __slots__ = ("base", "dtype", "ndim", "problem", "shape", "size")

    def __init__(self, array: Array, problem: Exception):
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size
        self.problem = problem
        self.base = None


def is_array(x: Any) -> bool:
    """Return True for NumPy and CuPy arrays."""
    cupy = sys.modules.get("cupy")
    return isinstance(x, numpy.ndarray) or (cupy is not None and isinstance(x, cupy.ndarray))


def array_module(array: Array) -> ModuleType:
    """Return the module, ``numpy`` or ``cupy``, whose functions take this array."""
    if isinstance(array, numpy.ndarray):
        return numpy
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    if isinstance(array, Unavailable):
        raise array.problem
    advice = ": dl.tensor() takes other kinds, and copies" if hasattr(array, "dtype") else ""
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}{advice}")


def common_module(arrays: list[Array], operation: str) -> ModuleType:
    """Return the array module shared by all arrays; refuse arrays of several devices."""
    devices = {device_of(array): None for array in arrays}  # a dict keeps the order of the arrays
    if len(devices) > 1:
        raise DeviceError(
            f"{operation} got Tensors on {' and '.join(devices)}; move them to one device with .to(device)"
        )
    return array_module(arrays[0])


def device_of(array: Array) -> str:
    """Return the device of an array: ``"cpu"``, ``"gpu:0"``, ``"gpu:1"``, ..."""
    if array_module(array) is numpy:
        return "cpu"
    return f"gpu:{array.device.id}"


def current(array: Array) -> AbstractContextManager[Any]:
    """Return a context in which CuPy computes on the GPU of an array; for other arrays it does nothing."""
    if isinstance(array, numpy.ndarray):
        return _STAY
    cupy = sys.modules.get("cupy")
    if cupy is None or not isinstance(array, cupy.ndarray):
        return _STAY
    device = array.device
    return _STAY if device.id == cupy.cuda.runtime.getDevice() else device


def copy(array: Array) -> Array:
    """Return a copy of the array on its own device, with elements in C order and native byte order."""
    if isinstance(array, numpy.ndarray):
        return array.copy() if array.dtype.isnative else array.astype(native(array.dtype), order="C")
    with current(array):
        return array.copy()


def native_copy(array: Array) -> Array:
    """Return a copy as copy() does, in the byte order of this machine."""
    native = array.dtype.newbyteorder("=")
    return copy(array) if native == array.dtype else array.astype(native)


def write(target: Array, values: Array) -> None:
    """Write values of one array, broadcast, into another one on the same device."""
    with current(target):
        array_module(target).copyto(target, values)


def native(dtype: Any) -> numpy.dtype:
    """Return a dtype in the byte order of this machine: generated code reads no other."""
    try:
        same: numpy.dtype = numpy.dtype(dtype).newbyteorder("=")
    except TypeError:
        hint = "; the lengths of several axes are one tuple" if isinstance(dtype, int) else ""
        raise TypeError(
            f"{dtype!r} is no dtype: write numpy.float32 or 'float32', for example{hint}"
        ) from None
    return same


def cast(array: Array, dtype: Any) -> Array:
    """Return a copy of the array in another dtype, on its own device, with elements in C order."""
    with current(array):
        return array.astype(native(dtype), order="C")


def from_any(data: Any) -> Array:
    """Return numbers, nested lists or the array of any library as a NumPy or CuPy array.

    Raises
    ------
    TypeError
        There is no array that says the same: elements are masked, a gradient would be lost, ...
    ValueError
        Lists inside a list have different lengths.
    """
    if isinstance(data, numpy.ma.MaskedArray) and numpy.ma.is_masked(data):
        raise TypeError("a masked array has elements without a value: fill them first, with .filled(value)")
    if type(data) is numpy.ndarray or (is_array(data) and not isinstance(data, numpy.ndarray)):
        return data
    on_tape = _on_tape(data)
    if on_tape is not None and on_tape is not data:
        raise TypeError("Tensors in a list would lose their gradients: join them with minidl.stack(...)")
    if on_tape is not None:
        raise TypeError(f"the tape of another library ends here: detach the {type(data).__name__} first")
    if hasattr(data, "__dlpack_device__") and not isinstance(data, numpy.ndarray):
        try:
            kind, _ = data.__dlpack_device__()
        except Exception as error:
            raise TypeError(f"{described(data)} cannot be read as an array: {error}") from error
        if kind == _DLPACK_CUDA:
            return _cupy().from_dlpack(data)
    try:
        return numpy.asarray(data)  # a subclass of ndarray loses what only it has
    except Exception as error:  # of the library that the data come from
        if isinstance(data, (list, tuple)) and "inhomogeneous" in str(error):
            raise ValueError("the lists inside a list must have one length; these have several") from None
        raise TypeError(f"{described(data)} cannot be read as an array: {error}") from error


def _on_tape(data: Any) -> Any:
    """Return the data, or what is in the lists that they are, if a gradient would be lost; else None."""
    if isinstance(data, (list, tuple)):
        if set(map(type, data)) <= {int, float, bool}:
            return None
        return next((found for part in data if (found := _on_tape(part)) is not None), None)
    return data if getattr(data, "requires_grad", False) is True else None


def described(data: Any) -> str:
    """Return what something is, for an error: its type with the library that it is of, and its dtype."""
    kind = type(data)
    library = kind.__module__.partition(".")[0]
    name = kind.__name__ if library in ("builtins", "numpy") else f"{library}'s {kind.__name__}"
    dtype = getattr(data, "dtype", None)
    return f"{name} of dtype {dtype}" if dtype is not None else name


#: What DLPack calls memory of an NVIDIA GPU.
_DLPACK_CUDA = 2


def to_device(array: Array, device: str) -> Array:
    """Return the array on the device: itself if it is there already, else a copy.

    CuPy copies to a GPU through its own pinned memory, and does not wait for the copy to arrive.
    """
    device = resolve(device)
    if device_of(array) == device:
        return array
    if device == "cpu":
        return to_numpy(array)
    if not isinstance(array, numpy.ndarray):
        return _between_gpus(array, gpu(device))
    with gpu(device):
        if array.ndim == 0:  # CuPy fills it with its number, and mistakes -0.0 for 0.0
            return _cupy().asarray(array.reshape(1)).reshape(())
        return _cupy().asarray(array)


def _between_gpus(array: Array, target: Any) -> Array:
    """Return a copy of an array on another GPU, without waiting for it.

    Only events put the work of two GPUs in order: the copy must not start before the array is computed, and
    the memory of the array must not be used again before the copy is done.
    """
    cuda = _cupy().cuda
    with array.device:
        there = cuda.get_current_stream()
        if not array.flags.c_contiguous:
            array = array.copy()
        computed = cuda.Event(disable_timing=True)
        computed.record(there)
    with target:
        here = cuda.get_current_stream()
        here.wait_event(computed)
        copied = _cupy().asarray(array)
        arrived = cuda.Event(disable_timing=True)
        arrived.record(here)
    with array.device:
        there.wait_event(arrived)
    return copied


def gpu(device: str) -> Any:
    """Return CuPy's device of this name, ``"gpu:N"``; inside ``with`` it is the current one."""
    return _cupy().cuda.Device(int(device.partition(":")[2]))


def has_room(device: str, nbytes: int) -> bool:
    """Return True if this number of bytes is at most half of what is free on a GPU."""
    free, _ = gpu(device).mem_info
    return 2 * nbytes <= int(free)


def compute_capability(device: str) -> tuple[int, int]:
    """Return the generation of a GPU, for example (9, 0)."""
    capability = gpu(device).compute_capability
    return int(capability[:-1]), int(capability[-1])


def to_numpy(array: Array) -> numpy.ndarray:
    """Return the array as a NumPy array: itself if it is one, else a copy on the host."""
    if isinstance(array, numpy.ndarray):
        return array
    with current(array):  # CuPy would wait for the stream of the current GPU
        host: numpy.ndarray = array_module(array).asnumpy(array)
    return host


def fetch(arrays: Sequence[Array]) -> list[numpy.ndarray]:
    """Return arrays as NumPy arrays: those of a GPU in one transfer, because each transfer is waited for."""
    together: dict[Any, list[int]] = {}
    for i, array in enumerate(arrays):
        together.setdefault((device_of(array), array.dtype), []).append(i)
    fetched = list(arrays)
    for (device, _), places in together.items():
        if device == "cpu":
            continue
        with gpu(device):
            whole = to_numpy(_cupy().concatenate([arrays[i].reshape(-1) for i in places]))
        ends = itertools.accumulate(arrays[i].size for i in places)
        for i, end in zip(places, ends, strict=True):
            fetched[i] = whole[end - arrays[i].size : end].reshape(arrays[i].shape)
    return fetched


def resolve(device: str) -> str:
    """Return the full name of a device, ``"cpu"`` or ``"gpu:N"``.

    Raises
    ------
    DeviceError
        The name is none of ``cpu``, ``gpu``, ``gpu:N``, ``auto``, or there is no such GPU here.
    """
    if device == "cpu":
        return "cpu"
    if device == "auto":
        return "gpu:0" if gpu_problem() is None else "cpu"
    match = re.fullmatch(r"gpu(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise DeviceError(f"unknown device {device!r}: use 'cpu', 'gpu', 'gpu:1' or 'auto'")
    problem = gpu_problem()
    if problem is not None:
        raise DeviceError(f"device {device!r} is not available: {problem}")
    index = int(match.group(1) or 0)
    count = _cupy().cuda.runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"device {device!r} does not exist: this machine has {count} GPU(s), from gpu:0")
    return f"gpu:{index}"


def gpu_problem() -> str | None:
    """Return None if a GPU can be used, else one sentence that says what is missing."""
    try:
        cupy = _cupy()
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            return f"CuPy is not installed; {_HOW_TO_INSTALL}"
        return f"CuPy cannot be imported: {error}"
    except ImportError as error:  # which CuPy raises with a long text
        lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
        return f"CuPy cannot be imported: {lines[-1] if lines else 'without a reason'}"
    if not cupy.cuda.is_available():
        return "CuPy finds no CUDA driver or no GPU on this machine"
    return None


def gpu_names() -> list[str]:
    """Return the device and the product name of each GPU, where one can be used."""
    runtime = _cupy().cuda.runtime
    count = runtime.getDeviceCount()
    return [f"gpu:{i} {runtime.getDeviceProperties(i)['name'].decode()}" for i in range(count)]


def report() -> str:
    """Return what minidl computes with on this machine: NumPy and BLAS, threads, the C compiler, GPUs.

    Whether one compiled function uses C and how many threads is in its listing,
    ``print(step.programs[0])``.

    Examples
    --------
    >>> import minidl as dl
    >>> [line.split()[0] for line in dl.devices.report().splitlines()]
    ['NumPy', 'threads', 'kernels', 'cache', 'GPU']
    """
    from minidl.program.reports import machine  # what it reports on is above this module, and loaded late

    return machine.report()


def _cupy() -> Any:  # it has no types
    import cupy

    return cupy


def scalar(value: complex, dtype: numpy.dtype, device: str) -> Array:
    """Return a 0-d array for a Python number; equal requests share one array.

    Nothing may write to it. Sharing saves the GPU an upload for each ``x * 2``, and shows a recorder that two
    operations use the same constant.
    """
    if value == 0:  # 0.0 and -0.0 are equal: a cache would return one for the other
        return to_device(numpy.asarray(value, dtype), device)
    return _cached_scalar(value, dtype, device)


@lru_cache(maxsize=1024)
def _cached_scalar(value: complex, dtype: numpy.dtype, device: str) -> Array:
    return to_device(numpy.asarray(value, dtype), device)
