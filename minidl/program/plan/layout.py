"""Which matrices are stored feature-major: one row in memory for each feature, instead of each observation.

OpenBLAS computes a product with few rows much faster if its result is stored that way, up to twice as
fast for a batch of 32, and its threads then share the work by features, so that no thread has to read
the whole of a weight. Nothing else changes: shapes are the same, only strides differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy

from minidl.primitives.indexing import slice_
from minidl.primitives.shape import concatenate_
from minidl.program.program import Gemm, Group, Operation, Program, Rows, Step, Value

AS_IS, TRANSPOSED = 111, 112  # of CBLAS
GEMM_DTYPES = (numpy.dtype("float32"), numpy.dtype("float64"))

#: How BLAS sees a matrix: as it is or transposed, and the distance between its rows.
Layout = tuple[int, int]


def feature_major(program: Program, max_rows: int) -> set[Value]:
    """Return the inputs and results to be stored by columns: those of at most ``max_rows`` rows.

    It pays for products of few rows; elementwise groups follow what they read. What becomes the new value of
    a state is stored by rows, as the state is, and what it is computed from; and so is what is computed row
    by row, has more axes in other steps, or is cut along its columns or put together: the steps of a
    recurrence with gates are then shared by rows, and no thread waits for another.
    """
    assigned = set(program.updates.values())
    by_rows = {v for step in program.steps if isinstance(step, Rows) for v in (*step.inputs, *step.outputs)}
    # Elementwise work on more axes would walk across the columns.
    by_rows |= {step.inputs[0] for step in program.steps if step.is_view and len(step.outputs[0].shape) > 2}
    by_rows |= {v for step in program.steps if step.operation is concatenate_ for v in step.inputs}
    by_rows |= {s.inputs[0] for s in program.steps if s.operation is slice_ and _cuts_columns(s)}
    by_rows |= assigned
    for step in reversed(program.steps):
        if isinstance(step, Group) and not by_rows.isdisjoint(step.outputs):
            by_rows |= {value for value in step.inputs if value.shape == step.shape}

    def is_flat(value: Value) -> bool:
        rows, columns = value.shape if len(value.shape) == 2 else (0, 0)
        return 1 < rows <= max_rows and rows < columns and value not in by_rows

    chosen: set[Value] = set()
    for step in program.steps:
        if step.operation in _BY_COLUMNS and assigned.isdisjoint(step.outputs):
            chosen |= set(filter(is_flat, _BY_COLUMNS[step.operation](step, chosen)))
    return chosen


def _cuts_columns(step: Step) -> bool:
    """Return whether a slice takes a part of a matrix's columns."""
    (source,), (part,) = step.inputs, step.outputs
    return len(source.shape) == len(part.shape) == 2 and part.shape[1] < source.shape[1]


def _around_gemm(gemm: Gemm, chosen: set[Value]) -> Iterable[Value]:
    return [gemm.output, *(a for a, _ in gemm.terms if a.kind == "input")]


def _around_group(group: Group, chosen: set[Value]) -> Iterable[Value]:
    if not any(value in chosen for value in group.inputs if value.shape == group.shape):
        return []
    return [*group.outputs, *(value for value in group.inputs if value.kind == "input")]


#: Which inputs and results of a step should be stored by columns, given those chosen before it.
_BY_COLUMNS: dict[Operation, Callable[[Any, set[Value]], Iterable[Value]]] = {
    Gemm: _around_gemm,
    Group: _around_group,
}


def empty(value: Value, buffer: numpy.ndarray, by_columns: bool) -> numpy.ndarray:
    """Return an array for a value in a buffer of bytes, stored by rows or by columns."""
    flat = buffer[: value.nbytes].view(value.dtype)
    return flat.reshape(value.shape[::-1]).T if by_columns else flat.reshape(value.shape)


def major_axis(array: numpy.ndarray) -> int:
    """Return the axis along which an array is partitioned: the one of the largest stride, not of one element.

    It is the first one of more than one element, but for matrices stored by columns.
    """
    by_columns = array.ndim == 2 and array.shape[0] > 1 and array.strides[0] < array.strides[1]
    return 1 if by_columns else next((i for i, length in enumerate(array.shape) if length != 1), 0)


def layout_of(matrix: numpy.ndarray) -> Layout:
    """Return how BLAS sees a matrix: transposed or not, and the distance between its rows."""
    row, column = (stride // matrix.itemsize for stride in matrix.strides)
    rows, columns = matrix.shape
    if column == 1 and (row >= max(columns, 1) or rows <= 1):
        return AS_IS, max(row, columns, 1)
    return TRANSPOSED, max(column, rows, 1)


def blas_takes(matrix: numpy.ndarray) -> bool:
    """Return whether a matrix has a dtype and memory layout that gemm takes without a copy."""
    return matrix.dtype in GEMM_DTYPES and layout_fits(matrix)


def layout_fits(matrix: numpy.ndarray) -> bool:
    """Return whether BLAS can see an array as a matrix, as it is or transposed."""
    if matrix.ndim != 2 or matrix.size == 0:
        return False
    row, column = (stride // matrix.itemsize for stride in matrix.strides)
    if any(stride % matrix.itemsize for stride in matrix.strides) or row < 1 or column < 1:
        return False
    return (column == 1 and row >= matrix.shape[1]) or (row == 1 and column >= matrix.shape[0])


def is_same_place(array: numpy.ndarray, other: numpy.ndarray) -> bool:
    """Return whether two arrays of one shape are the same elements in memory."""
    same = array.__array_interface__["data"][0] == other.__array_interface__["data"][0]
    return same and array.strides == other.strides and array.dtype == other.dtype
