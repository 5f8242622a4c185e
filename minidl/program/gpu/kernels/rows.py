"""The kernels of Rows: some threads take a row together, in stages (see plan/rows.py).

They compute the same bits in every run: each thread adds up its own elements in their order, and the threads
of a row are combined in one order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy

from minidl.devices import Array
from minidl.primitives.reduction import max_, min_, sum_
from minidl.program.expressions import Unsupported
from minidl.program.gpu.kernels.elementwise import literal, rounded, written_out
from minidl.program.gpu.kernels.source import THREADS, Kernel, index_type, load, offset, register_type, store
from minidl.program.plan.rows import Stages
from minidl.program.plan.strides import broadcast_strides
from minidl.program.program import Instruction, Rows, Value

#: By which function a reduction combines two numbers.
COMBINED = {sum_: "total", max_: "larger", min_: "smaller"}


def rows_kernel(rows: Rows, places: dict[Value, Array]) -> Kernel:
    """Return the kernel of Rows.

    ``places`` has the array of every value that is read or written in memory. Constants of one element that
    are not in it stand in the code as numbers.

    Raises
    ------
    Unsupported
        A member has no expression, or a dtype that CUDA does not have.
    """
    return _Code(rows, places).kernel()


class _Code:
    """The code of a kernel, as it is being written."""

    def __init__(self, rows: Rows, places: dict[Value, Array]):
        self.rows, self.places = rows, places
        *outer, self.length = rows.shape
        strides = [broadcast_strides(array, rows.shape) for array in places.values()]
        self.index = index_type(rows.shape, strides)
        self.count = math.prod(outer)
        self.across = min(THREADS, 1 << (self.length - 1).bit_length())
        self.own = -(-self.length // self.across)  # how many elements of a row a thread has
        self.offsets = {
            value: (offset("row", outer, steps[:-1]), steps[-1])
            for value, steps in zip(places, strides, strict=True)
        }
        whole = [value for value in rows.inputs if value in places and self.offsets[value][1]]
        self.stages = Stages(rows, whole)
        self.array = {value: f"a{i}" for i, value in enumerate(places)}
        computed = (member.output for member in rows.members)
        self.number = {value: i for i, value in enumerate(dict.fromkeys([*places, *computed]))}
        self.names: dict[Value, str] = {}  # of what is known in all stages: one number for each row

    def kernel(self) -> Kernel:
        along = THREADS // self.across
        lines = [
            f"int r = thread % {self.across};",
            f"{self.index} number = block * ({self.index}) {along} + thread / {self.across};",
            # Threads without a row compute what others do, as all of a block wait for each other.
            f"{self.index} row = number < {self.count} ? number : {self.count - 1};",
        ]
        for value in self.rows.inputs:
            if value not in self.places:
                self.names[value] = literal(value)
            elif value not in self.stages.whole:
                lines.append(self._declared(value, load(self._element(value), value.dtype)))
                self.names[value] = f"v{self.number[value]}"
        kept = (value for value in self.number if value in self.stages.kept)
        lines += [f"{register_type(v.dtype)} b{self.number[v]}[{self.own}];" for v in kept]
        lines += self._of_each_row(-1)
        for stage in self.stages:
            lines += [*self._stage(stage), *self._of_each_row(stage)]
        code = "".join(f"    {line}\n" for line in lines)
        name = " ".join(member.name for member in self.rows.members[:4])
        return Kernel(name, code, list(self.places.values()), -(-self.count // along))

    def _element(self, value: Value) -> str:
        start, step = self.offsets[value]
        return f"{self.array[value]}[{start}{f' + c * {step}' if step else ''}]"

    def _declared(self, value: Value, written: str) -> str:
        return f"{register_type(value.dtype)} v{self.number[value]} = {written};"

    def _stored(self, value: Value, condition: str) -> str:
        written = store(f"v{self.number[value]}", self.places[value].dtype)
        return f"if ({condition}) {self._element(value)} = {written};"

    def _of_each_row(self, stage: int) -> Iterator[str]:
        """Yield what is computed once for each row, of what is known after a stage."""
        for member in self.stages.of_each_row(stage):
            value = member.output
            if member.is_elementwise:
                yield self._declared(value, written_out(member, self.names))
            self.names[value] = f"v{self.number[value]}"
            if value in self.stages.outputs:
                yield self._stored(value, f"r == 0 && number < {self.count}")

    def _stage(self, stage: int) -> Iterator[str]:
        """Yield a loop over a row that computes, stores and reduces."""
        reductions = self.stages.reductions(stage)
        for member in reductions:
            yield f"{register_type(member.output.dtype)} u{self.number[member.output]} = {_first(member)};"
        yield f"for (int c = r, own = 0; c < {self.length}; c += {self.across}, own++) {{"
        names = dict(self.names)
        for value in self.rows.inputs:
            if value in self.stages.whole and self.stages.reads(value, stage):
                yield "    " + self._declared(value, load(self._element(value), value.dtype))
                names[value] = f"v{self.number[value]}"
        for member in self.rows.members:
            value, number = member.output, self.number[member.output]
            if stage not in self.stages.needed.get(value, ()):
                continue
            names[value] = f"v{number}"
            place = f"b{number}[own]"
            if value in self.stages.outputs:
                place = load(self._element(value), value.dtype)
            written = written_out(member, names) if self.stages.computes(value, stage) else place
            yield "    " + self._declared(value, written)
            if self.stages.is_first(value, stage) and value in self.stages.outputs:
                yield "    " + self._stored(value, f"number < {self.count}")
            elif self.stages.is_first(value, stage) and value in self.stages.kept:
                yield f"    {place} = v{number};"
        for member in reductions:
            total, kind = f"u{self.number[member.output]}", register_type(member.output.dtype)
            element = f"({kind}) {names[member.inputs[0]]}"
            yield f"    {total} = {COMBINED[member.primitive]}<{kind}>({total}, {element});"
        yield "}"
        for member in reductions:
            value, kind = member.output, register_type(member.output.dtype)
            number, function = self.number[value], f"{COMBINED[member.primitive]}<{kind}>"
            yield f"{kind} *w{number} = ({kind} *) shared;"
            yield f"combine({function}, w{number}, u{number}, thread, 1, {self.across}, r)"
            yield "__syncthreads();"
            yield self._declared(value, rounded(f"w{number}[thread - r]", value.dtype))


def _first(member: Instruction) -> str:
    """Return what a reduction begins with, which changes nothing."""
    dtype = member.output.dtype
    if dtype.kind not in "fiu":
        raise Unsupported(f"{member.name} as {dtype}")
    if member.primitive is sum_:
        return "0"
    is_largest = member.primitive is max_
    if dtype.kind == "f":
        return "-(1e308 * 10)" if is_largest else "1e308 * 10"
    limits = numpy.iinfo(dtype)
    return f"({register_type(dtype)}) {limits.min if is_largest else limits.max:#x}"
