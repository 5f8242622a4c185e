"""The C statements of Rows: loops over the rows, and in each row a loop for each stage (see plan/rows.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy

from minidl.primitives.reduction import max_, sum_
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import c_type, index, loop, smaller, stored_type
from minidl.program.cpu.reductions import SUM_RUN
from minidl.program.cpu.statements import FLOATS_ONLY
from minidl.program.expressions import Unsupported, expression
from minidl.program.plan.rows import Stages
from minidl.program.plan.strides import broadcast_strides, walk
from minidl.program.program import Instruction, Rows, Value

#: More bytes are not kept on a thread's stack.
MAX_KEPT = 512 << 10


def rows_statement(
    source: CSource, rows: Rows, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
) -> str:
    """Return the loops over rows, and over the elements of each: see lowering.Statement."""
    if 0 in shape:
        return ";"
    return _Code(source, rows, places, shape).text()


class _Code:
    """The code of one block of Rows, as it is being written."""

    def __init__(
        self, source: CSource, rows: Rows, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
    ):
        self.source, self.rows, self.places = source, rows, places
        self.length = shape[-1]
        strides = [broadcast_strides(array, shape) for array in places.values()]
        self.outer = walk(shape[:-1], [steps[:-1] for steps in strides])
        self.step = dict(zip(places, (steps[-1] for steps in strides), strict=True))
        whole = [value for value in rows.inputs if self.step[value]]
        self.stages = Stages(rows, whole)
        if sum(value.dtype.itemsize for value in self.stages.kept) * self.length > MAX_KEPT:
            raise Unsupported("rows of which too much has to be kept")
        self.computed = dict.fromkeys(member.output for member in rows.members)
        self.number = {value: i for i, value in enumerate(dict.fromkeys([*places, *self.computed]))}
        self.counts = {value for value in rows.inputs if self.step[value] == 1 and _counts(value)}
        self.names: dict[Value, str] = {}  # of what is known in all stages: one number for each row

    def text(self) -> str:
        names = [f"i{k}" for k in range(len(self.outer))]
        lines = [
            f"{stored_type(value.dtype)} *q{self.number[value]} = {self.source.address(array)};"
            for value, array in self.places.items()
        ]
        kept = (value for value in self.number if value in self.stages.kept)
        lines += [f"{c_type(value.dtype)} b{self.number[value]}[{self.length}];" for value in kept]
        lines += [loop(name, str(axis.length)) for name, axis in zip(names, self.outer, strict=True)]
        lines += ["{"]
        lines += [
            f"{stored_type(value.dtype)} *r{self.number[value]} = q{self.number[value]} + "
            f"{index(names, self.outer, i)};"
            for i, value in enumerate(self.places)
        ]
        for value in self.rows.inputs:
            if value not in self.stages.whole:
                lines.append(self._declared(value, f"*r{self.number[value]}"))
                self.names[value] = f"v{self.number[value]}"
        lines += self._of_each_row(-1)
        for stage in self.stages:
            lines += [*self._stage(stage), *self._of_each_row(stage)]
        return "{ " + "\n    ".join(lines) + " } }"

    def _declared(self, value: Value, written: str) -> str:
        kind = c_type(value.dtype) if value in self.computed else stored_type(value.dtype)
        return f"{kind} v{self.number[value]} = {written};"

    def _of_each_row(self, stage: int) -> Iterator[str]:
        """Yield what is computed once for each row, of what is known after a stage."""
        for member in self.stages.of_each_row(stage):
            value = member.output
            if member.is_elementwise:
                yield self._declared(value, self._expression(member, self.names))
            self.names[value] = f"v{self.number[value]}"
            if value in self.stages.outputs:
                yield f"*r{self.number[value]} = v{self.number[value]};"

    def _stage(self, stage: int) -> list[str]:
        """Return a loop over a row that computes, stores and reduces."""
        names, body = dict(self.names), []
        for value in self.rows.inputs:
            if value in self.stages.whole and self.stages.reads(value, stage):
                body.append(self._declared(value, self._element(value)))
                names[value] = f"v{self.number[value]}"
        for member in self.rows.members:
            value, number = member.output, self.number[member.output]
            if stage not in self.stages.needed.get(value, ()):
                continue
            names[value] = f"v{number}"
            place = f"b{number}[c]" if value in self.stages.kept else ""
            if value in self.stages.outputs:
                place = self._element(value)
            computes = self.stages.computes(value, stage)
            body.append(self._declared(value, self._expression(member, names) if computes else place))
            if place and self.stages.is_first(value, stage):
                body.append(f"{place} = v{number};")
        reductions = [
            _Reduction(member, self.number[member.output], names[member.inputs[0]])
            for member in self.stages.reductions(stage)
        ]
        return _loop_with_reductions(self.length, body, reductions)

    def _element(self, value: Value) -> str:
        if value in self.counts:
            return f"({c_type(value.dtype)}) c"
        step = self.step[value]
        return f"r{self.number[value]}[{'c' if step == 1 else f'c * {step}'}]"

    def _expression(self, member: Instruction, names: dict[Value, str]) -> str:
        if member.primitive in FLOATS_ONLY and member.output.dtype.kind != "f":
            raise Unsupported
        return expression(member, names, c_type)


def _counts(value: Value) -> bool:
    """Return whether a value is the constant 0, 1, 2, ..., which need not be read from memory."""
    if value.kind != "constant" or value.dtype.kind not in "iu" or len(value.shape) != 1:
        return False
    return numpy.array_equal(value.array, numpy.arange(value.size))


class _Reduction:
    """The code of one reduction in a loop, of which there are runs if the row is long.

    Floats are compared by their ranks, which are integers: compilers have vector instructions for the largest
    of these, but not for the largest of floats of which some may be NaN.
    """

    def __init__(self, member: Instruction, number: int, element: str):
        of, to = member.inputs[0].dtype, member.output.dtype
        if (of.kind == "f") != (to.kind == "f") or to.kind == "b":
            raise Unsupported(f"{member.name} of {of} as {to}")
        self.is_sum, self.element = member.primitive is sum_, element
        self.result, self.total, self.run = f"v{number}", f"t{number}", f"u{number}"
        self.kind = c_type(to)
        self.operator = "+" if self.is_sum else member.name
        self.is_ranked = not self.is_sum and to.kind == "f"
        self.compared = f"rank_of_{self.kind}" if self.is_ranked else self.kind
        self.comparison = ">" if member.primitive is max_ else "<"
        limits = numpy.iinfo(f"i{to.itemsize}" if to.kind == "f" else to)
        worst, best = (limits.min, limits.max) if member.primitive is max_ else (limits.max, limits.min)
        self.worst, self.rank_of_nan = f"({self.compared}) {worst:#x}u", f"{best:#x}u"

    def before(self) -> str:
        if self.is_sum:
            return f"{'double' if self.kind == 'float' else self.kind} {self.total} = 0;"
        return f"{self.compared} {self.total} = {self.worst};"

    def begin(self) -> str:
        kind, first = (self.kind, "0") if self.is_sum else (self.compared, self.total)
        return f"{kind} {self.run} = {first};"

    def each(self) -> str:
        if self.is_sum:
            return f"{self.run} += {self.element};"
        name, written = f"k{self.run}", self.element
        if self.is_ranked:
            written = f"{written} != {written} ? {self.rank_of_nan} : rank_{self.kind}({written})"
        compared = f"{name} {self.comparison} {self.run} ? {name} : {self.run}"
        return f"{self.compared} {name} = {written}; {self.run} = {compared};"

    def end(self) -> str:
        return f"{self.total} {'+=' if self.is_sum else '='} {self.run};"

    def after(self) -> str:
        written = f"{self.kind}_of_rank({self.total})" if self.is_ranked else self.total
        return f"{self.kind} {self.result} = {written};"


def _loop_with_reductions(length: int, body: Sequence[str], reductions: Sequence[_Reduction]) -> list[str]:
    if not reductions:
        return ["INDEPENDENT", f"{loop('c', str(length))} {{", *(f"    {line}" for line in body), "}"]
    clauses = " ".join(f"reduction({r.operator}:{r.run})" for r in reductions)
    in_runs = length > SUM_RUN
    begin, end = ("q", smaller(f"q + {SUM_RUN}", length)) if in_runs else ("0", str(length))
    return [
        *(r.before() for r in reductions),
        *([loop("q", str(length), step=SUM_RUN)] if in_runs else []),
        "{",
        *(r.begin() for r in reductions),
        f"#pragma omp simd {clauses}",
        f"{loop('c', end, begin)} {{",
        *(f"    {line}" for line in body),
        *(f"    {r.each()}" for r in reductions),
        "}",
        *(r.end() for r in reductions),
        "}",
        *(r.after() for r in reductions),
    ]
