"""In which order a row of Rows is computed: in stages, each a walk along the row.

What a stage sums up is known after it, and used in the next one. A value that a later stage needs again is
read where it was stored, computed again if that is cheap, or kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from minidl.primitives import elementwise as e
from minidl.program.program import Instruction, Rows, Value

#: What is computed again rather than kept, up to so many of them in a chain. All others cost more than that.
CHEAP = {
    *(e.add, e.subtract, e.multiply, e.negative, e.maximum, e.minimum, e.relu, e.where_, e.cast),
    *(e.equal, e.less, e.greater),
}
MAX_CHEAP = 2


class Stages:
    """The stages of Rows.

    Parameters
    ----------
    rows : the step
    whole : its inputs that differ along a row; of all others there is one number for each row

    Attributes
    ----------
    whole : all values that differ along a row
    level : of each of these the stage in which it can be computed first; of one number for a row the stage
        after which it is known, -1 if that is before all stages
    needed : of each value that differs along a row the stages in which it is needed
    kept : values that a later stage needs, and that are neither stored nor cheap
    """

    def __init__(self, rows: Rows, whole: Collection[Value]):
        self.rows = rows
        self.outputs = set(rows.outputs)
        self.whole = set(whole)
        self.whole |= {m.output for m in rows.members if m.is_elementwise and m.output.shape == rows.shape}
        self.level = self._levels()
        self._cheap = self._chains()
        self.needed = self._needed()
        self.kept = {
            value
            for value, stages in self.needed.items()
            if len(stages) > 1 and value not in self.outputs and not self._again(value)
        }

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of the stages, in their order."""
        reductions = {self.level[m.output] for m in self.rows.members if not m.is_elementwise}
        return iter(sorted(reductions.union(*self.needed.values())))

    def computes(self, value: Value, stage: int) -> bool:
        """Return whether a stage computes a value that differs along a row, and does not read it again."""
        stages = self.needed.get(value, set())
        return stage in stages and (stage == min(stages) or self._again(value))

    def is_first(self, value: Value, stage: int) -> bool:
        """Return whether a stage is the first one that needs a value: it stores and keeps it."""
        return stage == min(self.needed[value])

    def reductions(self, stage: int) -> list[Instruction]:
        """Return the reductions of a stage."""
        members = (member for member in self.rows.members if not member.is_elementwise)
        return [member for member in members if self.level[member.output] == stage]

    def of_each_row(self, stage: int) -> Iterator[Instruction]:
        """Yield what is computed once for each row, of what is known after a stage; reductions too."""
        for member in self.rows.members:
            if member.output not in self.whole and self.level[member.output] == stage:
                yield member

    def reads(self, value: Value, stage: int) -> bool:
        """Return whether something that a stage computes reads a value."""
        readers = (member for member in self.rows.members if value in member.inputs)
        return any(
            self.computes(member.output, stage)
            or (not member.is_elementwise and self.level[member.output] == stage)
            for member in readers
        )

    def _levels(self) -> dict[Value, int]:
        level = {value: 0 if value in self.whole else -1 for value in self.rows.inputs}
        for member in self.rows.members:
            is_whole = member.output in self.whole
            read = [level[value] + (is_whole and value not in self.whole) for value in member.inputs]
            level[member.output] = max([*read, 0 if is_whole or not member.is_elementwise else -1])
        return level

    def _chains(self) -> set[Value]:
        """Return the values of which few cheap operations lead from memory to them.

        They must have the same bits whenever they are computed. A sum of a product has not, as compilers make
        one instruction of both, or two.
        """
        length: dict[Value, int] = {}
        products: set[Value] = set()
        for member in self.rows.members:
            value, read = member.output, [v for v in dict.fromkeys(member.inputs) if v in self.whole]
            is_cheap = member.primitive in CHEAP
            if member.primitive in (e.add, e.subtract) and not products.isdisjoint(member.inputs):
                is_cheap = False
            if member.primitive is e.multiply or (is_cheap and not products.isdisjoint(member.inputs)):
                products.add(value)
            length[value] = 1 + sum(length.get(v, 0) for v in read) if is_cheap else MAX_CHEAP + 1
            if value in self.outputs:
                length[value] = 0
        return {value for value, count in length.items() if count <= MAX_CHEAP}

    def _again(self, value: Value) -> bool:
        """Return whether a value is computed again, in each stage in which it is needed."""
        return value not in self.outputs and value in self._cheap

    def _needed(self) -> dict[Value, set[int]]:
        """Return which stages need values, after deciding in which ones each is computed."""
        needed: dict[Value, set[int]] = {m.output: set() for m in self.rows.members if m.output in self.whole}
        for member in reversed(self.rows.members):
            value = member.output
            if value in self.whole:
                if value in self.outputs and not needed[value]:
                    needed[value].add(self.level[value])
                computed = sorted(needed[value])[: None if self._again(value) else 1]
            else:
                computed = [] if member.is_elementwise else [self.level[value]]
            for read in member.inputs:
                if read in needed:
                    needed[read].update(computed)
        return needed
