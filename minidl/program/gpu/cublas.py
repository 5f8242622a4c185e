"""Matrix products on a GPU by direct calls of cuBLAS.

CuPy refuses every call of cuBLAS while a CUDA graph is captured, and its matmul has no accumulating form.
cuBLAS itself has neither limit. A call through ctypes, with a handle and a workspace of one's own, is all
it takes. NVIDIA's nvmath-python has bindings too, but would be one more dependency, of hundreds of files and
with dependencies of its own, for the six functions that are called here.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy

from minidl.devices import Array
from minidl.program.gpu.gemm_operands import first_matrix, leading_stride
from minidl.program.plan.layout import TRANSPOSED, layout_of

#: Bytes of memory for intermediate results: what NVIDIA recommends for Hopper, and enough for others.
WORKSPACE = 32 << 20

# From cublas_api.h and library_types.h. What is uint16 here is bfloat16: NumPy has no dtype for it.
_DATA_TYPES = {"float16": 2, "float32": 0, "float64": 1, "uint16": 14}
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _COMPUTE_64F = 68, 77, 70
_DEFAULT_ALGORITHM = -1


class CublasError(RuntimeError):
    """A call of cuBLAS failed; the message has its status."""


@cache
def library() -> Any:
    """Return cuBLAS as a ctypes library, or None if it is not found."""
    names = ["libcublas.so.13", "libcublas.so.12", "cublas64_13.dll", "cublas64_12.dll"]
    try:
        from cuda import pathfinder

        names.insert(0, pathfinder.load_nvidia_dynamic_lib("cublas").abs_path or names[0])
    except Exception:  # not installed, or it does not find the library: each version has errors of its own
        pass
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


class Cublas:
    """A handle of cuBLAS with a workspace of its own, for one program on one device.

    Parameters
    ----------
    cupy : the module CuPy
    tf32 : float32 products may round their factors to 10 bits, for the speed of tensor cores
    """

    def __init__(self, cupy: Any, tf32: bool = False):
        self.cupy, self.tf32 = cupy, tf32
        self.stream: int | None = None
        self.workspace = cupy.empty(WORKSPACE, numpy.uint8)
        self.handle = ctypes.c_void_p()
        self._call("cublasCreate_v2", ctypes.byref(self.handle))
        weakref.finalize(self, _on, self.workspace.device, library().cublasDestroy_v2, self.handle)

    def computes(self, out: Array) -> bool:
        """Return whether there are products with a result of this dtype."""
        return out.dtype.kind == "f" and out.dtype.name in _DATA_TYPES

    def gemm(self, a: Array, b: Array, out: Array, add: bool) -> None:
        """Compute ``out = a @ b``, or with ``add`` ``out += a @ b``, on CuPy's current stream.

        All are matrices in a layout of BLAS, ``out`` stored by rows, and of one dtype; or the factors are
        bfloat16, as uint16, and the product is float32.
        """
        self._follow(self.cupy.cuda.get_current_stream().ptr)
        real, compute = self._arithmetic(a)
        kind, kind_of_product = _DATA_TYPES[a.dtype.name], _DATA_TYPES[out.dtype.name]
        # cuBLAS thinks in columns. What is stored by rows is, by columns, the transpose, and the
        # transpose of a product is the product of the transposes, swapped.
        operations, leading = zip(*(_layout(matrix) for matrix in (b, a)), strict=True)
        self._call(
            "cublasGemmEx",
            self.handle,
            *operations,
            *(out.shape[1], out.shape[0], a.shape[1]),
            ctypes.byref(real(1)),
            *(ctypes.c_void_p(b.data.ptr), kind, leading[0]),
            *(ctypes.c_void_p(a.data.ptr), kind, leading[1]),
            ctypes.byref(real(1 if add else 0)),
            *(ctypes.c_void_p(out.data.ptr), kind_of_product, out.shape[1]),
            compute,
            _DEFAULT_ALGORITHM,
        )

    def stacked(self, a: Array, b: Array, out: Array, add: bool = False) -> Callable[[], None]:
        """Return a call that computes ``out = a @ b``, or adds it, for stacks of matrices, on CuPy's stream.

        ``a`` is (..., n, k), ``b`` (..., k, m) and ``out`` (..., n, m); their matrices have layouts of BLAS,
        those of ``out`` stored by rows, and all matrices of a stack the same distance from each other. Rows
        of several matrices of ``out`` may lie in turn. The dtypes are as for gemm().
        """
        leading = out.shape[:-2]
        real, compute = self._arithmetic(a)
        kind, kind_of_product = _DATA_TYPES[a.dtype.name], _DATA_TYPES[out.dtype.name]
        one, beta = real(1), real(1 if add else 0)
        operations, lengths = zip(*(_layout(first_matrix(stack)) for stack in (b, a)), strict=True)
        _, length = _layout(first_matrix(out))
        distances = [ctypes.c_longlong(leading_stride(stack, leading) or 0) for stack in (b, a, out)]
        arguments = (
            self.handle,
            *operations,
            *(out.shape[-1], out.shape[-2], a.shape[-1]),
            ctypes.byref(one),
            *(ctypes.c_void_p(b.data.ptr), kind, lengths[0], distances[0]),
            *(ctypes.c_void_p(a.data.ptr), kind, lengths[1], distances[1]),
            ctypes.byref(beta),
            *(ctypes.c_void_p(out.data.ptr), kind_of_product, length, distances[2]),
            math.prod(leading),
            compute,
            _DEFAULT_ALGORITHM,
        )

        call = partial(self._run_stacked, arguments)
        call.arrays = (a, b, out)  # type: ignore[attr-defined]  # C holds addresses, this holds the memory
        return call

    def _run_stacked(self, arguments: tuple[Any, ...]) -> None:
        self._follow(self.cupy.cuda.get_current_stream().ptr)
        self._call("cublasGemmStridedBatchedEx", *arguments)

    def _arithmetic(self, factor: Array) -> tuple[Any, int]:
        """Return the type of numbers like alpha, and how products are computed, for factors of a dtype."""
        if factor.dtype == numpy.float64:
            return ctypes.c_double, _COMPUTE_64F
        rounds = self.tf32 and factor.dtype == numpy.float32
        return ctypes.c_float, _COMPUTE_32F_FAST_TF32 if rounds else _COMPUTE_32F

    def _follow(self, stream: int) -> None:
        """Work on a stream; setting it resets the workspace."""
        if stream != self.stream:
            self._call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))
            workspace = ctypes.c_void_p(self.workspace.data.ptr)
            self._call("cublasSetWorkspace_v2", self.handle, workspace, ctypes.c_size_t(WORKSPACE))
            self.stream = stream

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(library(), name)(*arguments)
        if status:
            raise CublasError(f"{name} failed with status {status}")


def _on(device: Any, function: Any, handle: ctypes.c_void_p) -> None:
    """Call a function of cuBLAS while the GPU that a handle was created on is the current one."""
    with device:
        function(handle)


def _layout(matrix: Array) -> tuple[int, int]:
    """Return cuBLAS's operation (0: as it is, 1: transposed) and leading dimension, seen by columns."""
    transposed, leading = layout_of(matrix)
    return int(transposed == TRANSPOSED), leading
