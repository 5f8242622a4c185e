"""Convolutions on a GPU: windows packed by a generated kernel, block by block, and products by cuBLAS.

A block's windows are the rows of a matrix for each group of channels. The convolution multiplies them by the
weights; the gradient of the weights adds up the products of all blocks, in their order; the gradient of the
input is computed the other way round: the product gives windows, which a kernel adds up where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from minidl.devices import Array
from minidl.primitives.convolution import conv_, conv_input_
from minidl.program.gpu.cublas import Cublas
from minidl.program.gpu.gemm_operands import Empty, Factors
from minidl.program.gpu.kernels.elementwise import copy_kernel, fill_kernel
from minidl.program.gpu.kernels.source import Kernel
from minidl.program.gpu.kernels.windows import fold_kernel, pack_kernel
from minidl.program.gpu.launches import Launch
from minidl.program.gpu.scratch import WithScratch, block_length, blocks_of
from minidl.program.plan.convolution import Block, Form
from minidl.program.program import Instruction, Value


class Convolution:
    """Makes the calls of one convolution.

    Parameters
    ----------
    step : one of the three forms
    arrays : of every value
    cublas : the handle of cuBLAS
    empty : gives memory, which has to be kept, for copies of what is not contiguous
    """

    def __init__(self, step: Instruction, arrays: Mapping[Value, Array], cublas: Cublas, empty: Empty):
        self.step, self.cublas = step, cublas
        self.form = Form.of(step)
        self.factors = Factors(empty)
        self.scratch = [arrays[v] for v in step.scratch] if isinstance(step, WithScratch) else []
        self.inputs, self.out = [arrays[value] for value in step.inputs], arrays[step.output]

    def calls(self) -> Iterator[Launch]:
        """Yield the launches and the products."""
        if any(array.size == 0 for array in self.inputs):
            yield self._launch(fill_kernel(self.out, 0))
            return
        of_block, *others = self._parts()
        if self.factors.copies:
            yield Launch([self.step], captured=True, kernels=self.factors.copies)
        for number, block in enumerate(blocks_of(self.step, self.form)):
            yield from of_block(block, number > 0)
        for kernel in others:
            yield self._launch(kernel)

    def _parts(self) -> list[Any]:
        """Return what makes the calls of a block, and the kernels to launch in the end."""
        first, second = self.inputs
        if self.step.primitive is conv_:
            weights = self._weights(self._contiguous(second))
            return [partial(self._conv, self._images(first), weights)]
        if self.step.primitive is conv_input_:
            weights = self._weights(self._contiguous(second)).transpose((0, 2, 1))
            return [partial(self._conv_input, self._contiguous(first), weights)]
        total = self.scratch[1].reshape(self.out.shape) if len(self.scratch) > 1 else self.out
        call = partial(self._conv_weight, self._images(first), self._contiguous(second), self._weights(total))
        return [call] if total.dtype == self.out.dtype else [call, copy_kernel(self.out, total)]

    # --- the three forms --------------------------------------------------------------------------

    def _conv(self, x: Array, weights: Array, block: Block, later: bool) -> Iterator[Launch]:
        packed, launches = self._packed(x, block)
        yield from launches
        yield self._product(packed, weights, self._windows(self.out, block), False)

    def _conv_weight(self, x: Array, g: Array, total: Array, block: Block, later: bool) -> Iterator[Launch]:
        packed, launches = self._packed(x, block)
        yield from launches
        yield self._product(packed.transpose((0, 2, 1)), self._windows(g, block), total, later)

    def _conv_input(self, g: Array, weights: Array, block: Block, later: bool) -> Iterator[Launch]:
        form, band = self.form, self.out[block.images, block.band]
        if form.is_pointwise:
            result = self._by_groups(band, form.inside)
            yield self._product(self._windows(g, block), weights, result, False)
            return
        count = block_length(form, block)
        if count == 0:  # no window reaches this part
            yield self._launch(fill_kernel(band, 0))
            return
        packed = self._matrices(count)
        yield self._product(self._windows(g, block), weights, packed, False)
        shape = self._shape(block)
        windows = packed.reshape(shape).transpose((*range(1, len(shape) - 1), 0, len(shape) - 1))
        first = (block.band.start, block.rows.start) if self._is_part(block) else None
        yield self._launch(fold_kernel(windows, band, form.stride, form.before, form.dilation, first))

    # --- matrices ---------------------------------------------------------------------------------

    def _packed(self, x: Array, block: Block) -> tuple[Array, list[Launch]]:
        """Return the windows of a block, (groups, windows, elements), and the launch that packs them."""
        form = self.form
        if form.is_pointwise:
            return self._by_groups(x[block.images, block.rows], form.inside), []
        packed = self._matrices(block_length(form, block))
        first = block.rows.start if self._is_part(block) else None
        columns = packed.reshape(self._shape(block))
        kernel = pack_kernel(x[block.images], columns, form.stride, form.before, form.dilation, first)
        return packed, [self._launch(kernel)]

    def _matrices(self, count: int) -> Array:
        """Return memory for a number of windows, (groups, windows, elements)."""
        form = self.form
        return self.scratch[0][: form.groups * count * form.size].reshape(form.groups, count, form.size)

    def _shape(self, block: Block) -> tuple[int, ...]:
        """Return the shape of the windows of a block: (groups, images, *counts, *window, channels)."""
        form, rows = self.form, block.rows.stop - block.rows.start
        images = block.images.stop - block.images.start
        return (form.groups, images, rows, *form.counts[1:], *form.window, form.inside)

    def _is_part(self, block: Block) -> bool:
        """Return whether a block is a part of one image."""
        form = self.form
        whole = slice(0, form.counts[0]), slice(0, form.lengths[0])
        return (block.rows, block.band) != whole

    def _windows(self, y: Array, block: Block) -> Array:
        """Return the results of a block's windows, (groups, windows, channels), as a view."""
        return self._by_groups(y[block.images, block.rows], self.form.outside)

    def _by_groups(self, y: Array, channels: int) -> Array:
        """Return contiguous (..., groups * channels) as matrices (groups, rows, channels): a view."""
        assert y.flags.c_contiguous, "a copy would have what was there while planning"
        matrices = y.reshape(math.prod(y.shape[:-1]), self.form.groups, channels)
        return matrices.transpose((1, 0, 2))

    def _weights(self, w: Array) -> Array:
        """Return contiguous weights as matrices (groups, elements of a window, channels): a view."""
        return w.reshape(self.form.size, self.form.groups, self.form.outside).transpose((1, 0, 2))

    def _images(self, x: Array) -> Array:
        """Return images that can be packed, or need not be."""
        return self._contiguous(x) if self.form.is_pointwise else x

    def _contiguous(self, array: Array) -> Array:
        """Return an array, or a copy of it, that is contiguous."""
        return array if array.flags.c_contiguous else self.factors.copied(array, array.dtype)

    # --- calls ------------------------------------------------------------------------------------

    def _launch(self, kernel: Kernel) -> Launch:
        return Launch([self.step], captured=True, kernels=[kernel])

    def _product(self, a: Array, b: Array, out: Array, add: bool) -> Launch:
        """Return the call that computes ``out = a @ b`` (or adds it) for each group."""
        run: Callable[[], Any]
        if len(out) == 1:
            run = partial(self.cublas.gemm, a[0], b[0], out[0], add)
        else:
            run = self.cublas.stacked(a, b, out, add)
        return Launch([self.step], run, captured=True)


def is_computed(step: Instruction, cublas: Cublas | None, arrays: Mapping[Value, Array]) -> bool:
    """Return whether a convolution can be computed here: by cuBLAS, and in one dtype."""
    dtypes = {arrays[value].dtype for value in (*step.inputs, step.output)}
    out = arrays[step.output]
    return cublas is not None and cublas.computes(out) and dtypes == {out.dtype}
