"""The C statements of Rows: each row is reduced, and what depends on that is computed, while it is in cache.

A row is gone over in stages. What a stage sums up is known after it, and used in the next one. A value that
a later stage needs again is read where it was stored, computed again if that is cheap, or kept in a buffer
that is as long as the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy

from minidl.primitives import elementwise as e
from minidl.primitives.reduction import max_, sum_
from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import c_type, index, loop, smaller, stored_type
from minidl.program.cpu.reductions import SUM_RUN
from minidl.program.cpu.statements import FLOATS_ONLY
from minidl.program.expressions import Unsupported, expression
from minidl.program.plan.strides import broadcast_strides, walk
from minidl.program.program import Instruction, Rows, Value

#: What is computed again rather than kept, up to so many of them in a chain. All others cost more than that.
CHEAP = {e.add, e.subtract, e.multiply, e.negative, e.maximum, e.minimum, e.relu, e.where_, e.cast}
MAX_CHEAP = 2


def rows_statement(
    source: CSource, rows: Rows, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
) -> str:
    """Return the loops over rows, and over the elements of each; ``shape`` is that of a block of the rows.

    ``places`` has the array, or the block of it, of every value that is read or written in memory.

    Raises
    ------
    Unsupported
        There is no code for some member or dtype.
    """
    if 0 in shape:
        return ";"
    return _Code(source, rows, places, shape).text()


class _Code:
    """The code of one block of Rows, as it is being written.

    Attributes
    ----------
    level : of each value of whole rows the stage in which it can be computed first; of one number for a row
        the stage after which it is known, -1 if that is before all stages
    stages : of each value of whole rows those stages in which it is needed
    """

    def __init__(
        self, source: CSource, rows: Rows, places: dict[Value, numpy.ndarray], shape: tuple[int, ...]
    ):
        self.source, self.rows, self.places = source, rows, places
        self.length = shape[-1]
        strides = [broadcast_strides(array, shape) for array in places.values()]
        self.outer = walk(shape[:-1], [steps[:-1] for steps in strides])
        self.step = dict(zip(places, (steps[-1] for steps in strides), strict=True))
        self.outputs = set(rows.outputs)
        self.inside = {member.output: member for member in rows.members}
        self.inputs = [value for value in places if value not in self.inside]
        self.names: dict[Value, str] = {}  # of what is known in all stages: one number for each row
        self.number = {value: i for i, value in enumerate([*places, *self.inside])}
        self.whole = {value for value in self.inputs if self.step[value]}
        self.whole |= {m.output for m in rows.members if m.is_elementwise and m.output.shape == rows.shape}
        self.level = self._levels()
        self.cost = self._costs()
        self.stages = self._needed()
        self.kept = {value for value in self.stages if self._is_kept(value)}

    # --- what is computed when --------------------------------------------------------------------

    def _levels(self) -> dict[Value, int]:
        level = {value: 0 if value in self.whole else -1 for value in self.inputs}
        for member in self.rows.members:
            read = [level[v] + (member.output in self.whole and v not in self.whole) for v in member.inputs]
            is_in_stage = member.output in self.whole or not member.is_elementwise
            level[member.output] = max([*read, 0 if is_in_stage else -1])
        return level

    def _needed(self) -> dict[Value, set[int]]:
        """Return in which stages values of whole rows are needed, after deciding where each is computed."""
        needed: dict[Value, set[int]] = {value: set() for value in self.inside if value in self.whole}
        for member in reversed(self.rows.members):
            value = member.output
            if value in self.whole:
                if value in self.outputs and not needed[value]:
                    needed[value].add(self.level[value])
                computed = sorted(needed[value])[: None if self._is_cheap(value) else 1]
            else:
                computed = [] if member.is_elementwise else [self.level[value]]
            for read in member.inputs:
                if read in needed:
                    needed[read].update(computed)
        return needed

    def _costs(self) -> dict[Value, int]:
        """Return how many cheap operations lie between values and what is in memory; all others cost more."""
        cost: dict[Value, int] = {}
        for member in self.rows.members:
            read = sum(cost.get(value, 0) for value in dict.fromkeys(member.inputs) if value in self.whole)
            cost[member.output] = 1 + read if member.primitive in CHEAP else MAX_CHEAP + 1
            if member.output in self.outputs:
                cost[member.output] = 0
        return cost

    def _is_cheap(self, value: Value) -> bool:
        """Return whether a value is computed again, in each stage in which it is needed."""
        return value not in self.outputs and self.cost[value] <= MAX_CHEAP

    def _is_kept(self, value: Value) -> bool:
        return len(self.stages[value]) > 1 and value not in self.outputs and not self._is_cheap(value)

    # --- the code ---------------------------------------------------------------------------------

    def text(self) -> str:
        names = [f"i{k}" for k in range(len(self.outer))]
        lines = [
            f"{stored_type(value.dtype)} *q{self.number[value]} = {self.source.address(array)};"
            for value, array in self.places.items()
        ]
        lines += [f"{c_type(value.dtype)} b{self.number[value]}[{self.length}];" for value in self.kept]
        lines += [loop(name, str(axis.length)) for name, axis in zip(names, self.outer, strict=True)]
        lines += ["{"]
        lines += [
            f"{stored_type(value.dtype)} *r{self.number[value]} = q{self.number[value]} + "
            f"{index(names, self.outer, i)};"
            for i, value in enumerate(self.places)
        ]
        for value in self.inputs:
            if value not in self.whole:
                lines.append(self._declared(value, f"*r{self.number[value]}"))
                self.names[value] = f"v{self.number[value]}"
        lines += self._of_each_row(-1)
        stages = {self.level[m.output] for m in self.rows.members if not m.is_elementwise}
        stages |= set().union(*self.stages.values())
        for stage in sorted(stages):
            lines += [*self._stage(stage), *self._of_each_row(stage)]
        return "{ " + "\n    ".join(lines) + " } }"

    def _declared(self, value: Value, written: str) -> str:
        kind = c_type(value.dtype) if value in self.inside else stored_type(value.dtype)
        return f"{kind} v{self.number[value]} = {written};"

    def _of_each_row(self, stage: int) -> Iterator[str]:
        """Yield what is computed once for each row, of what is known after a stage."""
        for member in self.rows.members:
            value = member.output
            if value in self.whole or self.level[value] != stage:
                continue
            if member.is_elementwise:
                yield self._declared(value, self._expression(member, self.names))
            self.names[value] = f"v{self.number[value]}"
            if value in self.outputs:
                yield f"*r{self.number[value]} = v{self.number[value]};"

    def _stage(self, stage: int) -> list[str]:
        """Return a loop over a row that computes, stores and reduces."""
        names, body = dict(self.names), []
        for value in self.inputs:
            if value in self.whole and any(value in reader.inputs for reader in self._readers(stage)):
                body.append(self._declared(value, self._element(value)))
                names[value] = f"v{self.number[value]}"
        for member in self.rows.members:
            value = member.output
            if stage not in self.stages.get(value, ()):
                continue
            number = self.number[value]
            names[value] = f"v{number}"
            is_first = stage == min(self.stages[value])
            if self._computes(value, stage):
                body.append(self._declared(value, self._expression(member, names)))
            else:
                stored = f"b{number}[c]" if value in self.kept else self._element(value)
                body.append(self._declared(value, stored))
            if is_first and value in self.kept:
                body.append(f"b{number}[c] = v{number};")
            if is_first and value in self.outputs:
                body.append(f"{self._element(value)} = v{number};")
        reductions = [
            _Reduction(member, self.number[member.output], names[member.inputs[0]])
            for member in self.rows.members
            if not member.is_elementwise and self.level[member.output] == stage
        ]
        return _loop_with_reductions(self.length, body, reductions)

    def _computes(self, value: Value, stage: int) -> bool:
        """Return whether a stage computes a value of whole rows, and does not just read it again."""
        stages = self.stages.get(value, set())
        return stage in stages and (stage == min(stages) or self._is_cheap(value))

    def _readers(self, stage: int) -> Iterator[Instruction]:
        """Yield the members that read whole rows in a stage."""
        for member in self.rows.members:
            is_reduced = not member.is_elementwise and self.level[member.output] == stage
            if is_reduced or self._computes(member.output, stage):
                yield member

    def _element(self, value: Value) -> str:
        step = self.step[value]
        return f"r{self.number[value]}[{'c' if step == 1 else f'c * {step}'}]"

    def _expression(self, member: Instruction, names: dict[Value, str]) -> str:
        if member.primitive in FLOATS_ONLY and member.output.dtype.kind != "f":
            raise Unsupported
        return expression(member, names, c_type)


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
