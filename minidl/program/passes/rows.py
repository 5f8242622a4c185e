"""The pass that puts reductions along the last axis together with what is elementwise around them.

Softmax, layer normalisation, cross-entropy and their gradients reduce a row to a number, and then do
something with each element of the row and that number. Row by row, it is in the cache all the while.
"""

from __future__ import annotations

import heapq
import itertools

from minidl.primitives.reduction import max_, min_, sum_
from minidl.program.program import Group, Instruction, Program, Rows, Step, Value

REDUCTIONS = (sum_, max_, min_)

#: Longer rows are not in the first cache together with what is computed from them.
MAX_LENGTH = 16_384

Shape = tuple[int, ...]


def fuse_rows(program: Program) -> Program:
    """Join each reduction along the last axis with the groups that it reads or that read it, in turn.

    Steps are joined unless one of them would wait for the others by way of a step that is not among them.
    """
    graph = _Graph(program)
    for step in program.steps:
        if isinstance(step, Instruction) and is_row_reduction(step) and step not in graph.joined:
            members = graph.around(step)
            if any(isinstance(s, Group) and s.shape == step.inputs[0].shape for s in members):
                graph.joined |= dict.fromkeys(members, members)
    return graph.program() if graph.joined else program


def is_row_reduction(step: Step) -> bool:
    """Return whether a step reduces rows to one number each, and keeps the axis."""
    if not isinstance(step, Instruction) or step.primitive not in REDUCTIONS:
        return False
    shape = step.inputs[0].shape
    last = len(shape) - 1
    return (
        last > 0
        and step.attributes["axis"] == (last,)
        and step.attributes["keepdims"]
        and step.outputs[0].dtype.kind in "fiu"  # bools have no least or greatest value to begin with
        and 1 < shape[last] <= MAX_LENGTH
        and step.inputs[0].size > 0
        and step.phase != "update"
    )


class _Graph:
    """Which steps wait for which, and which have been joined."""

    def __init__(self, program: Program):
        self.original = program
        self.joined: dict[Step, list[Step]] = {}
        self.position = {step: i for i, step in enumerate(program.steps)}
        self.producer = {value: step for step in program.steps for value in step.outputs}
        self.readers: dict[Value, list[Step]] = {}
        self.before: dict[Step, list[Step]] = {}
        self.after: dict[Step, list[Step]] = {step: [] for step in program.steps}
        draws = [step for step in program.steps if step.is_ordered]
        earlier_draw = {later: earlier for earlier, later in itertools.pairwise(draws)}
        for step in program.steps:
            for value in dict.fromkeys(step.inputs):
                self.readers.setdefault(value, []).append(step)
            before = [self.producer[value] for value in step.inputs if value in self.producer]
            before += [earlier_draw[step]] if step in earlier_draw else []  # the order of draws is kept
            self.before[step] = list(dict.fromkeys(before))
            for other in self.before[step]:
                self.after[other].append(step)

    def around(self, reduction: Instruction) -> list[Step]:
        """Return the steps that are to be joined with a reduction, and it, in the order of the program."""
        rows = reduction.inputs[0].shape
        members: set[Step] = set()
        waiting: list[Step] = [reduction]
        while waiting:
            step = waiting.pop()
            fits = step not in members and step not in self.joined and _is_of_rows(step, rows)
            if fits and not self._waits_for_itself(members | {step}):
                members.add(step)
                siblings = (self.readers[value] for value in step.inputs if value.shape == rows)
                waiting += [*itertools.chain(*siblings), *self.after[step], *self.before[step]]
        return sorted(members, key=self.position.__getitem__)

    def _waits_for_itself(self, members: set[Step]) -> bool:
        """Return whether some members wait for others by way of steps, joined or not, that are none."""
        last = max(self.position[step] for step in members)
        waiting = [after for step in members for after in self.after[step] if after not in members]
        seen: set[Step] = set()
        while waiting:
            step = waiting.pop()
            if step in members:
                return True
            if step not in seen and (step in self.joined or self.position[step] < last):
                together = self.joined.get(step, [step])
                seen.update(together)
                waiting += [after for other in together for after in self.after[other] if after not in seen]
        return False

    def program(self) -> Program:
        """Return the program with the joined steps as Rows, in an order in which it can be computed."""
        needed = set(self.original.results_needed)
        nodes = {step: self.joined.get(step, [step]) for step in self.original.steps}
        # Nodes stand here for the last of their steps.
        missing: dict[Step, set[Step]] = {}
        after: dict[Step, list[Step]] = {}
        for step, node in nodes.items():
            before = {nodes[other][-1] for other in self.before[step]} - {node[-1]}
            for other in before - missing.setdefault(node[-1], set()):
                after.setdefault(other, []).append(node[-1])
            missing[node[-1]] |= before
        ready = [self.position[step] for step, others in missing.items() if not others]
        heapq.heapify(ready)
        steps: list[Step] = []
        while ready:
            last = self.original.steps[heapq.heappop(ready)]
            steps.append(self._joined(nodes[last], needed) if last in self.joined else last)
            for step in after.get(last, ()):
                missing[step].remove(last)
                if not missing[step]:
                    heapq.heappush(ready, self.position[step])
        return Program(self.original.inputs, steps, self.original.outputs, self.original.updates)

    def _joined(self, steps: list[Step], needed: set[Value]) -> Rows:
        inside = set(steps)
        members = [
            member
            for step in steps
            for member in (step.members if isinstance(step, Group) else [step])
            if isinstance(member, Instruction)
        ]
        outputs = [
            value
            for step in steps
            for value in step.outputs
            if value in needed or any(reader not in inside for reader in self.readers.get(value, []))
        ]
        return Rows(members, outputs)


def _is_of_rows(step: Step, rows: Shape) -> bool:
    """Return whether a step reduces rows of a shape, or computes their elements or one number for each."""
    if isinstance(step, Group):
        return step.shape in (rows, (*rows[:-1], 1)) and all(m.phase != "update" for m in step.members)
    return is_row_reduction(step) and step.inputs[0].shape == rows
