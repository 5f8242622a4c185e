"""A stand-in for CuPy without a GPU: device arrays that refuse what CuPy's refuse.

`module` has the functions of NumPy, but they take and return only the ``ndarray`` of this file
(and Python and NumPy scalars). A NumPy array among the arguments is an error, and so is every
implicit conversion of a device array to one.

Generated kernels are compiled by g++ and run on the CPU. Streams, graphs and cuBLAS behave as far as minidl
uses them: what is launched on a stream that is being captured is written down and not done, and what CuPy
or CUDA refuses then is refused.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import time
import types
from pathlib import Path

import numpy
import pytest


def _inside(value):
    """Return what NumPy computes with; refuse NumPy arrays, which live on the host."""
    if isinstance(value, ndarray):
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
        refuse_while_capturing(getattr(function, "__name__", "a function"))
        result = function(*_inside(arguments), **_inside(options))
        out = options.get("out")
        return out if out is not None else _outside(result)

    return call


class _Device:
    id = 0
    mem_info = (1 << 30, 2 << 30)  # free and in all

    def __init__(self, number=0):
        assert number == 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class ndarray:
    __array_ufunc__ = None
    __array_priority__ = 100
    __hash__ = None
    device = _Device()

    def __init__(self, host):
        assert type(host) is numpy.ndarray
        self.host = host

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __setitem__(self, key, value):
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
    tolist = property(lambda self: self.host.tolist)
    fill = property(lambda self: self.host.fill)

    def item(self):
        refuse_while_capturing("item()")
        return self.host.item()

    def __bool__(self):
        return bool(self.host)

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
    "__getitem__",
):
    setattr(ndarray, _name, _on_device(getattr(numpy.ndarray, _name)))


# --- streams and graphs ---------------------------------------------------------------------------


_streams, _current = [], []


class Stream:
    """A stream; work is done at once, or written down while the stream is being captured."""

    def __init__(self, non_blocking=False):
        self.ptr = len(_streams)
        self.captured = None
        _streams.append(self)

    def __enter__(self):
        _current.append(self)
        return self

    def __exit__(self, *exception):
        _current.pop()

    def begin_capture(self):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default stream")
        self.captured = []

    def end_capture(self):
        graph, self.captured = Graph(self.captured), None
        return graph

    def synchronize(self):
        refuse_while_capturing("synchronize()")

    def do(self, work):
        """Do the work, or write it down."""
        work() if self.captured is None else self.captured.append(work)


class Event:
    def record(self):
        refuse_while_capturing("an event")
        self.seconds = time.perf_counter()

    def synchronize(self):
        refuse_while_capturing("synchronize()")


def get_elapsed_time(start, end):
    return 1e3 * (end.seconds - start.seconds)


class Graph:
    def __init__(self, work):
        self.work = work

    def launch(self):
        for work in self.work:
            work()


def current_stream():
    return _current[-1] if _current else _streams[0]


def refuse_while_capturing(what):
    if current_stream().captured is not None:
        raise RuntimeError(f"{what} is not permitted when stream is capturing")


Stream()  # the default stream


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
        name for name, body in re.findall(r"(step_\d+)\((.*?)^}", code, re.M | re.S) if "combine(" in body
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
        run = subprocess.run(command, input=text, text=True, capture_output=True)
        if run.returncode:
            raise RuntimeError(f"g++ refused generated code:\n{run.stderr}\n{code}")
    return ctypes.CDLL(str(path))


def _argument(value):
    """Return an address, or a whole number in place of one."""
    if isinstance(value, ndarray):
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

_TYPES = {0: ctypes.c_float, 1: ctypes.c_double}


class Cublas:
    """The functions of libcublas that minidl calls, on memory of the host, in their conventions."""

    def __init__(self):
        self.handles, self.created = {}, 0
        self.computed_as = []

    def cublasCreate_v2(self, handle):
        handle._obj.value = self.created = self.created + 1
        self.handles[handle._obj.value] = {"stream": 0, "workspace": False}
        return 0

    def cublasDestroy_v2(self, handle):
        del self.handles[handle.value]
        return 0

    def cublasSetStream_v2(self, handle, stream):
        self.handles[handle.value] = {"stream": stream.value or 0, "workspace": False}
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
        state = self.handles[handle.value]
        assert state["workspace"], "without a workspace cuBLAS allocates, which a capture refuses"
        assert state["stream"] == current_stream().ptr
        left, right = alpha._obj.value, beta._obj.value
        self.computed_as.append(kind)

        def matrix(pointer, rows, columns, leading, code):
            """By columns: the transpose of what lies there by rows."""
            assert leading >= rows, "illegal leading dimension"
            count = leading * (columns - 1) + rows
            flat = numpy.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(_TYPES[code])), (count,))
            strides = (flat.itemsize, leading * flat.itemsize)
            return numpy.lib.stride_tricks.as_strided(flat, (rows, columns), strides)

        def work():
            x = matrix(a, *((k, m) if op_a else (m, k)), lda, type_a)
            y = matrix(b, *((n, k) if op_b else (k, n)), ldb, type_b)
            out = matrix(c, m, n, ldc, type_c)
            product = left * ((x.T if op_a else x) @ (y.T if op_b else y))
            out[...] = product + (right * out if right else 0)

        _streams[state["stream"]].do(work)
        return 0


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
        runtime=types.SimpleNamespace(getDeviceCount=lambda: 1),
    )
    RawModule = RawModule

    class add:
        def __new__(cls, *arguments, **options):
            return _on_device(numpy.add)(*arguments, **options)

        at = staticmethod(_on_device(numpy.add.at))

    @staticmethod
    def asarray(value):
        return value if isinstance(value, ndarray) else ndarray(numpy.array(value))

    @staticmethod
    def asnumpy(array):
        return array.host.copy()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _on_device(getattr(numpy, name))


module = _Module("cupy")
