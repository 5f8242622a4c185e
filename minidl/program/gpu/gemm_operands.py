"""Getting matrix products ready for cuBLAS: what it cannot read where it lies is copied first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy

from minidl.devices import Array
from minidl.program.gpu.kernels.elementwise import copy_kernel
from minidl.program.gpu.kernels.source import Kernel
from minidl.program.plan.layout import layout_fits
from minidl.program.plan.strides import broadcast_strides, merged

#: Gives memory of a shape and dtype.
Empty = Callable[[Sequence[int], numpy.dtype], Array]


class Factors:
    """The factors of products, as cuBLAS can read them: of the right dtype, and in a layout it knows.

    ``copies`` are the kernels to run beforehand: factors that are broadcast, strided or of another dtype
    are copied into memory from ``empty``.
    """

    def __init__(self, empty: Empty):
        self.empty = empty
        self.copies: list[Kernel] = []

    def matrix(self, factor: Array, dtype: numpy.dtype) -> Array:
        """Return a matrix that can be a factor of a product of this dtype."""
        return factor if factor.dtype == dtype and layout_fits(factor) else self.copied(factor, dtype)

    def stack(self, factor: Array, dtype: numpy.dtype, leading: tuple[int, ...]) -> Array:
        """Return a stack of matrices, or one matrix for all, for a product with these leading axes."""
        if factor.dtype == dtype and stack_fits(factor, leading):
            return factor
        # One that is broadcast along some axes, but not along others, has to be written out.
        is_mixed = 1 < math.prod(factor.shape[:-2]) < math.prod(leading)
        return self.copied(factor, dtype, leading if is_mixed else None)

    def copied(self, factor: Array, dtype: numpy.dtype, leading: tuple[int, ...] | None = None) -> Array:
        """Return a contiguous copy, broadcast to leading axes if these are given."""
        shape = factor.shape if leading is None else (*leading, *factor.shape[-2:])
        copy = self.empty(shape, dtype)
        self.copies.append(copy_kernel(copy, factor))
        return copy


def leading_stride(factor: Array, leading: tuple[int, ...]) -> int | None:
    """Return the distance, in elements, between the matrices of a stack that is broadcast to leading axes.

    It is 0 for one matrix that serves all, and None if there is no single distance.
    """
    strides = broadcast_strides(factor, (*leading, *factor.shape[-2:]))[:-2]
    lengths, distances = merged(leading, strides)
    if math.prod(lengths) <= 1 or not any(distances):
        return 0
    return distances[0] if len(lengths) == 1 and distances[0] > 0 else None


def stack_fits(factor: Array, leading: tuple[int, ...]) -> bool:
    """Return whether cuBLAS can read a stack of matrices where it lies."""
    return leading_stride(factor, leading) is not None and layout_fits(first_matrix(factor))


def first_matrix(factor: Array) -> Array:
    """Return the first matrix of a stack."""
    return factor[(0,) * (factor.ndim - 2)]


def as_matrices(a: Array, b: Array, out: Array) -> tuple[Array, Array, Array] | None:
    """Return a product of stacks as one of matrices, if all of ``a`` are multiplied by one ``b``."""
    if leading_stride(b, out.shape[:-2]) or leading_stride(b, out.shape[:-2]) is None:
        return None
    if not (a.flags.c_contiguous and a.shape[:-1] == out.shape[:-1]):
        return None
    return a.reshape(-1, a.shape[-1]), first_matrix(b), out.reshape(-1, out.shape[-1])
