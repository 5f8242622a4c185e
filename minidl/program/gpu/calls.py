"""The steps without kernels of their own as calls of cuBLAS or CuPy: the table CALLS.

Whatever is not in it is one call of its primitive's forward with CuPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from minidl.devices import Array
from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.linear_algebra import matmul_
from minidl.primitives.windows import scatter_to_maxima_
from minidl.program.gpu.convolution import Convolution, is_computed
from minidl.program.gpu.cublas import Cublas
from minidl.program.gpu.gemm_operands import Empty, Factors, as_matrices
from minidl.program.gpu.kernels.elementwise import fill_kernel
from minidl.program.gpu.kernels.windows import gather_from_maxima_kernel, number_of_maxima_kernel
from minidl.program.gpu.launches import Launch
from minidl.program.gpu.scratch import WithScratch
from minidl.program.lowered.rounding import are_packed, as_factors
from minidl.program.plan.tasks import Task
from minidl.program.program import (
    AdvanceSum,
    BeginSum,
    EndSum,
    Gemm,
    Group,
    Instruction,
    Operation,
    Rows,
    Value,
)


class LibraryCalls:
    """Makes the calls of cuBLAS, or of CuPy where cuBLAS is not found or does not serve.

    Parameters
    ----------
    cupy : the module CuPy
    cublas : the handle of cuBLAS, or None
    arrays : of every value
    empty : gives memory, which has to be kept, for copies of what cuBLAS cannot read where it lies
    """

    def __init__(self, cupy: Any, cublas: Cublas | None, arrays: Mapping[Value, Array], empty: Empty):
        self.cupy, self.cublas, self.arrays, self.empty = cupy, cublas, arrays, empty

    def of(self, task: Task) -> Iterator[Launch]:
        """Yield the calls for a step, and before them the launch of what makes copies for cuBLAS."""
        return CALLS.get(task.operation, LibraryCalls._forward)(self, task)

    def multiply(self, a: Array, b: Array, out: Array, add: bool) -> None:
        """Compute ``out = a @ b``, or with ``add`` ``out += a @ b``, as well as it can be done here."""
        if self.cublas is not None:
            self.cublas.gemm(a, b, out, add)
        else:
            self._matmul(a, b, out, add)

    def _forward(self, step: Instruction) -> Iterator[Launch]:
        inputs, out = [self.arrays[value] for value in step.inputs], self.arrays[step.output]
        forward = partial(step.primitive.forward, self.cupy, *inputs, **step.attributes)
        yield Launch([step], partial(forward, out=out))

    def _gemm(self, gemm: Gemm) -> Iterator[Launch]:
        out = self.arrays[gemm.output]
        terms = [(self.arrays[a], self.arrays[b]) for a, b in gemm.terms if a.size and b.size]
        if not terms:
            yield Launch([gemm], captured=True, kernels=[fill_kernel(out, 0)])
        elif self.cublas is not None and self.cublas.computes(out):
            factors = Factors(self.empty)
            dtypes = [a.dtype if are_packed(a, b, out.dtype) else out.dtype for a, b in terms]
            terms = [
                (factors.matrix(a, dtype), factors.matrix(b, dtype))
                for (a, b), dtype in zip(terms, dtypes, strict=True)
            ]
            yield from _copies(gemm, factors)
            yield Launch([gemm], partial(_add_up, self.cublas.gemm, terms, out), captured=True)
        else:
            yield Launch([gemm], partial(_add_up, self._matmul, terms, out))

    def _stacked(self, step: Instruction) -> Iterator[Launch]:
        """Yield the calls for a product of stacks of matrices."""
        out = self.arrays[step.output]
        if self.cublas is None or not self.cublas.computes(out):
            yield from self._forward(step)
            return
        a, b = (self.arrays[value] for value in step.inputs)
        if not a.size or not b.size:
            yield Launch([step], captured=True, kernels=[fill_kernel(out, 0)])
            return
        factors, matrices = Factors(self.empty), as_matrices(a, b, out)
        run: Callable[[], Any]
        if matrices is not None:
            left, right = (factors.matrix(matrix, out.dtype) for matrix in matrices[:2])
            run = partial(self.cublas.gemm, left, right, matrices[2], False)
        else:
            a, b = (factors.stack(stack, out.dtype, out.shape[:-2]) for stack in (a, b))
            run = self.cublas.stacked(a, b, out)
        yield from _copies(step, factors)
        yield Launch([step], run, captured=True)

    def _convolution(self, step: Instruction) -> Iterator[Launch]:
        if self.cublas is None or not is_computed(step, self.cublas, self.arrays):
            yield from self._forward(step)
        else:
            yield from Convolution(step, self.arrays, self.cublas, self.empty).calls()

    def _scatter_to_maxima(self, step: Instruction) -> Iterator[Launch]:
        """Yield two launches where windows overlap: what is largest in each is found once."""
        (g, x), out = [self.arrays[value] for value in step.inputs], self.arrays[step.output]
        if not isinstance(step, WithScratch):
            yield from self._forward(step)
            return
        chosen, where = self.arrays[step.scratch[0]].reshape(g.shape), step.attributes
        for kernel in (
            number_of_maxima_kernel(x, where["window"], where["stride"], chosen),
            gather_from_maxima_kernel(g, chosen, where["window"], where["stride"], out),
        ):
            yield Launch([step], captured=True, kernels=[kernel])

    def _begin_sum(self, step: BeginSum) -> Iterator[Launch]:
        yield Launch([step], partial(step.run, [self.arrays[value] for value in step.values]))

    def _advance_sum(self, step: AdvanceSum) -> Iterator[Launch]:
        yield from ()  # NCCL needs no help, and a call would split the CUDA graph

    def _end_sum(self, step: EndSum) -> Iterator[Launch]:
        yield Launch([step], step.message.end)

    def _members(self, group: Group) -> Iterator[Launch]:
        """Yield the call that computes a group without a kernel, member by member."""
        yield Launch([group], partial(self._run_members, group))

    def _run_members(self, group: Group) -> None:
        known = dict(self.arrays)
        for member in group.members:
            inputs = [known[value] for value in member.inputs]
            out = known.get(member.output)
            result = member.primitive.forward(self.cupy, *inputs, out=out, **member.attributes)
            known[member.output] = result

    def _matmul(self, a: Array, b: Array, out: Array, add: bool) -> None:
        a, b = as_factors(self.cupy, a, b, out.dtype)
        if add:
            self.cupy.add(out, self.cupy.matmul(a, b), out=out)
        else:
            self.cupy.matmul(a, b, out=out)


#: The calls of steps that are more than one call of a primitive's forward.
CALLS: dict[Operation, Callable[[LibraryCalls, Any], Iterator[Launch]]] = {
    Gemm: LibraryCalls._gemm,
    Group: LibraryCalls._members,
    Rows: LibraryCalls._members,
    matmul_: LibraryCalls._stacked,
    conv_: LibraryCalls._convolution,
    conv_input_: LibraryCalls._convolution,
    conv_weight_: LibraryCalls._convolution,
    scatter_to_maxima_: LibraryCalls._scatter_to_maxima,
    BeginSum: LibraryCalls._begin_sum,
    AdvanceSum: LibraryCalls._advance_sum,
    EndSum: LibraryCalls._end_sum,
}


def _copies(step: Task, factors: Factors) -> Iterator[Launch]:
    if factors.copies:
        yield Launch([step], captured=True, kernels=factors.copies)


def _add_up(
    multiply: Callable[[Array, Array, Array, bool], None], factors: list[tuple[Array, Array]], out: Array
) -> None:
    """Compute a sum of matrix products in one array."""
    for i, (a, b) in enumerate(factors):
        multiply(a, b, out, i > 0)
