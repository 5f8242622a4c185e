"""A stand-in for CuPy without a GPU: device arrays that refuse what CuPy's refuse.

`module` has the functions of NumPy, but they take and return only the ``ndarray`` of this file
(and Python and NumPy scalars). A NumPy array among the arguments is an error, and so is every
implicit conversion of a device array to one.

Generated kernels are compiled by g++ and run on the CPU. Streams, graphs and cuBLAS behave as far as minidl
uses them: what is launched on a stream that is being captured is written down and not done, and what CuPy
or CUDA refuses then is refused.

There are two GPUs. Arrays are made on the current one, and operations refuse arrays of the other.

Work on the current stream is done at once. Copies on another stream are done as late as CUDA may do them:
when somebody waits for an event behind them. Memory that was given back is handed out again to the stream
that it was made on, full of NaN. Every use of such memory must be behind all earlier uses on other streams,
by events or by waiting; if it is not, the stand-in raises `Race`, whether or not it would have gone well.
`synchronisations` lists what made the host wait.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import types
import weakref
from pathlib import Path
from typing import ClassVar

import numpy
import pytest

from minidl.mode import mode

DEVICES = 2


class _State(threading.local):
    """What each thread has of its own: the current GPU, and the current streams of all GPUs."""

    def __init__(self):
        self.device = 0
        self.streams = [[stream] for stream in _default_streams]


def _inside(value):
    """Return what NumPy computes with; refuse NumPy arrays, which live on the host."""
    if isinstance(value, ndarray):
        value.use()
        return value.host
    if isinstance(value, numpy.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: it is not on the device")
    if isinstance(value, (list, tuple)):
        return type(value)(_inside(v) for v in value)
    if isinstance(value, dict):
        return {k: _inside(v) for k, v in value.items()}
    return value


def _outside(value):
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return ndarray(numpy.asarray(value))
    return tuple(map(_outside, value)) if isinstance(value, tuple) else value


def _on_device(function):
    def call(*arguments, **options):
        name = getattr(function, "__name__", "a function")
        refuse_while_capturing(name)
        if name == "nonzero":
            current_stream().synchronize("nonzero()")
        result = function(*_inside(arguments), **_inside(options))
        out = options.get("out")
        return out if out is not None else _outside(result)

    return call


class _Device:
    compute_capability = "90"
    mem_info = (1 << 30, 2 << 30)  # free and in all

    def __init__(self, number):
        assert 0 <= number < DEVICES
        self.id = number
        self.outer = []

    def __enter__(self):
        self.outer.append(state.device)
        state.device = self.id
        return self

    def __exit__(self, *exception):
        state.device = self.outer.pop()


class ndarray:
    __array_ufunc__ = None
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host):
        assert type(host) is numpy.ndarray
        self.host = host
        self.number = state.device

    device = property(lambda self: _Device(self.number))

    def use(self):
        """Note that the current stream works with this array."""
        if self.number != state.device:
            raise ValueError(
                f"The device where the array resides ({self.number}) is different from the current device "
                f"({state.device}). Peer access is unavailable between these devices."
            )
        memory = _memory_of(self.host)
        if memory is not None:
            stream = current_stream()
            if stream.captured is None:
                memory.use(stream)
            else:
                stream.captured.append(lambda: memory.use(current_stream()))

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __setitem__(self, key, value):
        self.use()
        self.host[_inside(key)] = _inside(value)

    def __len__(self):
        return len(self.host)

    shape = property(lambda self: self.host.shape)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    dtype = property(lambda self: self.host.dtype)
    strides = property(lambda self: self.host.strides)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)
    data = property(lambda self: types.SimpleNamespace(ptr=self.host.ctypes.data))

    @property
    def base(self):
        """What owns the memory; as two of these can share one, an owner names its memory too."""
        return self.host.base if isinstance(self.host.base, numpy.ndarray) else self.host

    def fill(self, value):
        self.use()
        self.host.fill(value)

    def read(self, what):
        """Return the values on the host, which waits for them."""
        refuse_while_capturing(what)
        self.use()
        current_stream().synchronize(what)
        return self.host

    def item(self):
        return self.read("item()").item()

    def tolist(self):
        return self.read("tolist()").tolist()

    def __bool__(self):
        return bool(self.read("bool()"))

    def set(self, values, stream):
        """Copy pinned memory of the host here, on a stream and when that gets to it."""
        assert values.dtype == self.dtype
        assert values.shape == self.shape
        assert self.flags.c_contiguous
        assert values.flags.c_contiguous
        assert stream.device_id == self.number
        source, address, size = weakref.ref(_pinned_of(values)), values.ctypes.data, self.nbytes
        memory, target = _memory_of(self.host), self.host.ctypes.data
        memory.use(stream)

        def copy(memory=memory):  # who gives memory back does not stop a copy to it
            assert source() is not None, "the pinned memory of a copy was given back before the copy"
            ctypes.memmove(target, address, size)

        stream.waiting.append(copy)
        stream.enqueued += 1

    def __iter__(self):
        raise TypeError("iterating over a device array copies each element")


for _name in (
    "reshape",
    "transpose",
    "astype",
    "view",
    "copy",
    "nonzero",
    "sum",
    "min",
    "max",
    "all",
    "__getitem__",
):
    setattr(ndarray, _name, _on_device(getattr(numpy.ndarray, _name)))


# --- streams and graphs ---------------------------------------------------------------------------


class Race(AssertionError):
    """Two streams work with the same memory, and nothing says which comes first."""


def later(one, other):
    """Return the later of two moments: how far each stream has come at least."""
    return {stream: max(one.get(stream, 0), other.get(stream, 0)) for stream in one | other}


class Host:
    """What the host has waited for."""

    moment: ClassVar[dict] = {}


class Stream:
    """A stream; work is done at once, or written down while the stream is being captured.

    `moment` is what its next work comes behind, as a number for each stream. Only copies wait, in `waiting`.
    """

    count = 0

    def __init__(self, non_blocking=False, device=None):
        self.device_id = state.device if device is None else device
        self.ptr = 0 if device is not None else Stream.count + 1
        Stream.count += self.ptr > 0
        self.captured = None
        self.waiting, self.enqueued = [], 0
        self.moment = {}

    def __enter__(self):
        if self.device_id != state.device:
            raise RuntimeError(
                "The device that the stream is created on does not match with the current device"
            )
        state.streams[self.device_id].append(self)
        return self

    def __exit__(self, *exception):
        state.streams[self.device_id].pop()

    def tick(self):
        """Begin the next work, behind all that the host has waited for; return its number."""
        self.moment = later(self.moment, Host.moment)
        self.moment[self] = self.moment.get(self, 0) + 1
        return self.moment[self]

    def run_until(self, position):
        """Do the waiting work up to a position."""
        while self.waiting and self.enqueued - len(self.waiting) < position:
            self.waiting.pop(0)()

    def wait_event(self, event):
        refuse_while_capturing("waiting for an event")
        assert self.device_id == state.device, "the default streams of all GPUs have the same handle"
        event.stream.run_until(event.position)
        self.moment = later(self.moment, event.moment)

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default stream")
        self.captured = []

    def end_capture(self):
        graph, self.captured = Graph(self.captured), None
        return graph

    def synchronize(self, what="synchronize()"):
        refuse_while_capturing("synchronize()")
        assert self.device_id == state.device
        synchronisations.append(what)
        self.run_until(self.enqueued)
        Host.moment = later(Host.moment, self.moment)

    def do(self, work):
        """Do the work, or write it down."""
        work() if self.captured is None else self.captured.append(work)


class Event:
    def __init__(self, disable_timing=False):
        self.device_id = state.device

    def record(self, stream=None):
        refuse_while_capturing("an event")
        self.stream = current_stream() if stream is None else stream
        assert self.stream.device_id == self.device_id == state.device
        self.position, self.moment = self.stream.enqueued, dict(self.stream.moment)
        self.seconds = time.perf_counter()

    @property
    def done(self):
        return self.stream.enqueued - len(self.stream.waiting) >= self.position

    def synchronize(self):
        refuse_while_capturing("synchronize()")
        synchronisations.append("synchronize()")
        self.stream.run_until(self.position)
        Host.moment = later(Host.moment, self.moment)


def get_elapsed_time(start, end):
    return 1e3 * (end.seconds - start.seconds)


class Graph:
    def __init__(self, work):
        self.work = work
        self.device_id = state.device

    def launch(self):
        assert self.device_id == state.device
        for work in self.work:
            work()


def current_stream(device_id=None):
    return state.streams[state.device if device_id is None else device_id][-1]


def refuse_while_capturing(what):
    if current_stream().captured is not None:
        raise RuntimeError(f"{what} is not permitted when stream is capturing")


def begin_anew():
    """Forget memory and streams of earlier tests."""
    Lease.free, Host.moment = {}, {}
    synchronisations.clear()


#: What made the host wait, in order.
synchronisations: list[str] = []

_default_streams = [Stream(device=number) for number in range(DEVICES)]
state = _State()


# --- memory ---------------------------------------------------------------------------------------


class Memory:
    """Memory of a GPU, and when which stream worked with it last."""

    def __init__(self, nbytes):
        self.bytes = numpy.empty(nbytes, numpy.uint8)
        self.used: dict[Stream, int] = {}

    def use(self, stream):
        for other, moment in self.used.items():
            if other is not stream and later(stream.moment, Host.moment).get(other, 0) < moment:
                raise Race(
                    f"stream {stream.ptr} does not wait for what stream {other.ptr} does with this memory"
                )
        self.used[stream] = stream.tick()


class Lease:
    """What an array holds on to while it uses memory; then the memory is free for others."""

    free: ClassVar[dict] = {}

    def __init__(self, nbytes, stream):
        self.home = self.free.setdefault((stream, nbytes), [])
        self.memory = self.home.pop() if self.home else Memory(nbytes)
        self.memory.bytes[...] = 255
        self.__array_interface__ = self.memory.bytes.__array_interface__

    def __del__(self):
        self.home.append(self.memory)


def leased(shape, dtype):
    """Return an array on the current GPU whose memory goes back when it is dropped."""
    dtype = numpy.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    lease = Lease(int(numpy.prod(shape)) * dtype.itemsize, current_stream())
    return ndarray(numpy.asarray(lease).view(dtype).reshape(shape))


def _memory_of(host):
    """Return the memory that an array lies in, or None if that was not leased."""
    while isinstance(host, numpy.ndarray):
        host = host.base
    return host.memory if isinstance(host, Lease) else None


class Pinned(bytearray):
    """Pinned memory of the host."""


def alloc_pinned_memory(nbytes):
    return Pinned(b"\xff" * nbytes)


def _pinned_of(host):
    while isinstance(host, numpy.ndarray):
        host = host.base
    host = host.obj if isinstance(host, memoryview) else host
    assert isinstance(host, Pinned), "a copy from pageable memory makes the host wait"
    return host


# --- kernels --------------------------------------------------------------------------------------

SHIM = Path(__file__).with_name("cuda_on_cpu.h")
compiler = shutil.which("g++")
_built = tempfile.TemporaryDirectory(prefix="minidl-kernels-")


def built(code):
    """Return CUDA source as a library of the CPU, with a function run_... for each kernel."""
    if compiler is None:
        pytest.skip("there is no g++ on this machine to run generated kernels with")
    runners = []
    meeting = {
        name
        for name, body in re.findall(r"(step_\d+)\((.*?)^}", code, re.M | re.S)
        if "combine(" in body or "__syncthreads(" in body
    }
    for name, parameters, body in re.findall(r"__global__ void (\w+)\((.*?)\) {(.*?)^}", code, re.M | re.S):
        meets = any(step in meeting for step in re.findall(r"step_\d+", body))
        runners.append(f"RUNNER({name}, {parameters.count(',') + 1}, {str(meets).lower()})")
    code = code.replace("#include <cuda_fp16.h>", "")
    text = "\n".join([f'#include "{SHIM}"', code, *runners, ""])
    path = Path(_built.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
    if not path.exists():
        # Kernels may have any name: -Bsymbolic keeps them apart from functions that are loaded already.
        options = ["-O1", "-std=c++17", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-w"]
        command = [compiler, *options, "-x", "c++", "-", "-o", str(path)]
        recorder, mode.recorder = mode.recorder, None  # to a function that is recorded, this is CuPy
        try:
            run = subprocess.run(command, input=text, text=True, capture_output=True)
        finally:
            mode.recorder = recorder
        if run.returncode:
            raise RuntimeError(f"g++ refused generated code:\n{run.stderr}\n{code}")
    return ctypes.CDLL(str(path))


def _argument(value):
    """Return an address, or a whole number in place of one."""
    if isinstance(value, ndarray):
        value.use()
        return value.host.ctypes.data
    assert type(value) is numpy.int64, f"CuPy does not take {type(value).__name__} for such a parameter"
    return int(value)


class RawModule:
    def __init__(self, code):
        self.library = built(code)

    def get_function(self, name):
        function = getattr(self.library, f"run_{name}")

        def launch(grid, block, arguments):
            assert 8 * len(arguments) <= 4096, "older versions of CUDA have no room for so many arguments"
            addresses = (ctypes.c_void_p * len(arguments))(*map(_argument, arguments))
            current_stream().do(lambda: function(grid[0], block[0], addresses))

        return launch


# --- cuBLAS ---------------------------------------------------------------------------------------

_TYPES = {0: "float32", 1: "float64", 2: "float16", 14: "uint16"}  # the last is bfloat16


class Cublas:
    """The functions of libcublas that minidl calls, on memory of the host, in their conventions."""

    def __init__(self):
        self.handles, self.created = {}, 0
        self.computed_as = []

    def cublasCreate_v2(self, handle):
        handle._obj.value = self.created = self.created + 1
        self.handles[handle._obj.value] = {"stream": 0, "workspace": False, "device": state.device}
        return 0

    def cublasDestroy_v2(self, handle):
        assert self.handles.pop(handle.value)["device"] == state.device
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.handles[handle.value] |= {"stream": stream.value or 0, "workspace": False}
        return 0

    def cublasSetWorkspace_v2(self, handle, pointer, size):
        self.handles[handle.value]["workspace"] = bool(pointer.value and size.value)
        return 0

    def cublasGemmEx(
        self,
        handle,
        op_a,
        op_b,
        m,
        n,
        k,
        alpha,
        a,
        type_a,
        lda,
        b,
        type_b,
        ldb,
        beta,
        c,
        type_c,
        ldc,
        kind,
        _,
    ):
        factors = (a, type_a, lda, 0), (b, type_b, ldb, 0)
        self._multiply(handle, (op_a, op_b, m, n, k), (alpha, beta, kind), *factors, (c, type_c, ldc, 0), 1)
        return 0

    def cublasGemmStridedBatchedEx(self, handle, op_a, op_b, m, n, k, alpha, *others):
        a, type_a, lda, stride_a, b, type_b, ldb, stride_b, *others = others
        beta, c, type_c, ldc, stride_c, count, kind, _ = others
        for stride in (stride_a, stride_b, stride_c):
            assert type(stride) is ctypes.c_longlong, "ctypes passes 32 bits, if it is not told otherwise"
        assert count > 0
        side_by_side = stride_c.value >= ldc * (n - 1) + m
        in_turn = (
            stride_c.value >= m and ldc >= stride_c.value * (count - 1) + m
        )  # columns of one, of the next
        assert side_by_side or in_turn or count == 1, "results lie on each other"
        factors = (a, type_a, lda, stride_a.value), (b, type_b, ldb, stride_b.value)
        out = c, type_c, ldc, stride_c.value
        self._multiply(handle, (op_a, op_b, m, n, k), (alpha, beta, kind), *factors, out, count)
        return 0

    def _multiply(self, handle, sizes, numbers, a, b, c, count):
        op_a, op_b, m, n, k = sizes
        alpha, beta, kind = numbers
        assert min(m, n, k) > 0
        assert a[1] == b[1], "the factors of a product have one type"
        assert type(alpha._obj) is type(beta._obj) is (ctypes.c_double if kind == 70 else ctypes.c_float)
        own = self.handles[handle.value]
        assert own["workspace"], "without a workspace cuBLAS allocates, which a capture refuses"
        assert own["device"] == state.device
        assert own["stream"] == current_stream().ptr
        left, right = alpha._obj.value, beta._obj.value
        self.computed_as.append(kind)

        def matrix(place, rows, columns, number):
            """By columns: the transpose of what lies there by rows."""
            pointer, code, leading, stride = place
            assert leading >= rows, "illegal leading dimension"
            dtype = numpy.dtype(_TYPES[code])
            size = (leading * (columns - 1) + rows) * dtype.itemsize
            flat = (ctypes.c_byte * size).from_address(pointer.value + number * stride * dtype.itemsize)
            strides = (dtype.itemsize, leading * dtype.itemsize)
            stored = numpy.ndarray((rows, columns), dtype, flat, 0, strides)
            return (stored.astype("uint32") << 16).view("float32") if code == 14 else stored

        def work():
            wide = numpy.float64 if kind == 70 else numpy.float32
            for i in range(count):
                x = matrix(a, *((k, m) if op_a else (m, k)), i).astype(wide)
                y = matrix(b, *((n, k) if op_b else (k, n)), i).astype(wide)
                out = matrix(c, m, n, i)
                product = left * ((x.T if op_a else x) @ (y.T if op_b else y))
                out[...] = product + (right * out if right else 0)

        current_stream().do(work)


# --- the module -----------------------------------------------------------------------------------


class _Module(types.ModuleType):
    ndarray = ndarray
    float32, float64 = numpy.float32, numpy.float64
    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        Device=_Device,
        Stream=Stream,
        Event=Event,
        get_elapsed_time=get_elapsed_time,
        get_current_stream=current_stream,
        alloc_pinned_memory=alloc_pinned_memory,
        runtime=types.SimpleNamespace(
            getDeviceCount=lambda: DEVICES,
            getDevice=lambda: state.device,
            getDeviceProperties=lambda index: {"name": b"Strict device"},
        ),
    )
    RawModule = RawModule

    class add:
        def __new__(cls, *arguments, **options):
            return _on_device(numpy.add)(*arguments, **options)

        at = staticmethod(_on_device(numpy.add.at))

    lib = types.SimpleNamespace(
        stride_tricks=types.SimpleNamespace(as_strided=_on_device(numpy.lib.stride_tricks.as_strided))
    )

    @staticmethod
    def empty(shape, dtype=float):
        refuse_while_capturing("empty()")
        return leased(shape, dtype)

    @staticmethod
    def asarray(value):
        """As CuPy's: arrays of another GPU are copied to this one, on the current stream here."""
        refuse_while_capturing("asarray()")
        if isinstance(value, ndarray):
            if value.number == state.device:
                return value
            memory, value = _memory_of(value.host), value.host
            if memory is not None:
                memory.use(current_stream())
        value = numpy.asarray(value)
        array = leased(value.shape, value.dtype)
        array.use()
        array.host[...] = value
        return array

    @staticmethod
    def asnumpy(array):
        return array.read("asnumpy()").copy()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _on_device(getattr(numpy, name))


module = _Module("cupy")
