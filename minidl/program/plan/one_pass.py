"""Which steps are done in the same pass over memory as a group, and what is not stored: see OnePass.

Sums of what a group computes are added up beside it, and max pooling and its gradient join it. Then what a
few cheap operations make of one array is not stored for later groups: they read that array, and compute the
same again.
"""

from __future__ import annotations

from typing import TypeGuard

from minidl.primitives.reduction import sum_
from minidl.primitives.windows import scatter_to_maxima_, select_maxima_
from minidl.program.plan.partition import MIN_SHARED_WORK, split_sum
from minidl.program.plan.rows import CHEAP
from minidl.program.program import Group, Instruction, OnePass, PartialSum, Program, Step, Value

#: Longer rows have no accumulators beside them in the first cache.
MAX_COLUMNS = 2048

#: Up to how many cheap operations are done again, so that their result need not be stored.
MAX_AGAIN = 4

#: Shorter rows, with something that is the same for all of them, are taken several at a time.
SHORT = 32

#: How many times smaller a value must be to count as small beside another one.
SMALL = 16

#: The most channels for which something of each element of a window can be kept in the first cache.
MAX_CHANNELS = 512

#: The elements of the largest windows whose places are written out.
MAX_TAPS = 16


def join_passes(program: Program, threads: int, by_columns: set[Value]) -> Program:
    """Join groups with the sums of what they compute, and with max pooling before and after them."""
    joined = _Joining(program, threads, by_columns).program()
    return _compute_again(joined, by_columns)


class _Joining:
    """Which steps are joined to which group.

    Attributes
    ----------
    before, after, sums : by groups, the step that comes before its members, the one after them, and its sums
    """

    def __init__(self, program: Program, threads: int, by_columns: set[Value]):
        self.original, self.threads, self.by_columns = program, threads, by_columns
        self.before: dict[Group, Instruction] = {}
        self.after: dict[Group, Instruction] = {}
        self.sums: dict[Group, list[PartialSum]] = {}
        self.readers: dict[Value, list[Step]] = {}
        for step in program.steps:
            for value in dict.fromkeys(step.inputs):
                self.readers.setdefault(value, []).append(step)
        self.group_of = self._groups()

    def _groups(self) -> dict[Value, Group]:
        """Return, by what they compute, the groups that may be joined: none that writes a new state.

        The threads share the observations of such a pass, of which each must have some.
        """
        assigned = set(self.original.updates.values())
        return {
            member.output: step
            for step in self.original.steps
            if step.operation is Group
            and isinstance(step, Group)
            and len(step.shape) > 1
            and step.shape[0] >= 2 * self.threads
            and assigned.isdisjoint(step.outputs)
            and self.by_columns.isdisjoint([*step.inputs, *step.outputs])
            for member in step.members
        }

    def program(self) -> Program:
        """Return the program with the joined groups in it."""
        steps: list[Step] = []
        for step in self.original.steps:
            steps += self._rest(step) if isinstance(step, Instruction) else [step]
        joined = {*self.before, *self.after, *self.sums, *filter(_has_short_rows, self.group_of.values())}
        gone = {id(step) for step in (*self.before.values(), *self.after.values())}
        steps = [step for step in steps if id(step) not in gone]
        readers = [*steps, *self.before.values()]
        needed = set(self.original.results_needed).union(*(step.inputs for step in readers))
        steps = [self._joined(s, needed) if isinstance(s, Group) and s in joined else s for s in steps]
        original = self.original
        return Program(original.inputs, steps, original.outputs, original.updates)

    def _rest(self, step: Instruction) -> list[Step]:
        """Return what is left of a step, and note with which group the rest of it is joined."""
        group = self.group_of.get(step.inputs[0]) if step.inputs else None
        if step.primitive is sum_ and group is not None and _is_of_columns(step):
            parts = split_sum(step, self.threads, self.by_columns)
            if isinstance(parts[0], PartialSum):
                self.sums.setdefault(group, []).append(parts[0])
                return parts[1:]
        elif step.primitive is select_maxima_ and group is not None and step.inputs[0] is step.inputs[1]:
            windows = [s.attributes["window"] for s in (self.before.get(group),) if s is not None]
            if (
                _covers(step, group.shape)
                and group not in self.after
                and windows in ([], [step.attributes["window"]])
            ):
                self.after[group] = step
        elif step.primitive is scatter_to_maxima_:
            self._place_before(step)
        return [step]

    def _place_before(self, step: Instruction) -> None:
        readers = self.readers.get(step.output, [])
        if len(readers) != 1 or step.output in self.original.results_needed:
            return
        (group,) = readers
        if (
            isinstance(group, Group)
            and self.group_of.get(group.members[0].output) is group
            and _covers(step, group.shape)
            and group not in self.before
            and self.group_of.get(step.inputs[1]) is not group
            and self.by_columns.isdisjoint(step.inputs)
        ):
            self.before[group] = step

    def _joined(self, group: Group, needed: set[Value]) -> OnePass:
        before, after, sums = self.before.get(group), self.after.get(group), self.sums.get(group, [])
        members = [*([before] if before else []), *group.members, *([after] if after else [])]
        written = [value for value in group.outputs if value in needed]
        written += [after.output] if after else []
        return OnePass(members, [*written, *(partial.output for partial in sums)], sums)


def _has_short_rows(group: Group) -> bool:
    """Return whether a group works on short rows, with numbers that are the same for all rows."""
    columns = group.shape[-1]
    inputs = [value for value in group.inputs if value.size == columns and value.shape[-1:] == (columns,)]
    return 1 < columns <= SHORT and bool(inputs) and group.outputs[0].size >= MIN_SHARED_WORK


def _is_of_columns(step: Instruction) -> bool:
    """Return whether a sum is one of columns, or of everything, and of floats."""
    (x,), axis = step.inputs, step.attributes["axis"]
    last = len(x.shape) - 1
    return (
        last > 0
        and axis in (tuple(range(last)), tuple(range(last + 1)))
        and x.shape[last] <= MAX_COLUMNS
        and x.dtype == step.output.dtype
        and x.dtype.kind == "f"
    )


def _covers(step: Instruction, shape: tuple[int, ...]) -> bool:
    """Return whether windows over arrays of a shape lie side by side, and leave nothing out."""
    window, stride = step.attributes["window"], step.attributes["stride"]
    x, taps = step.inputs[1], 1
    for length, stride_, whole in zip(window, stride, x.shape[1:-1], strict=True):
        if length != stride_ or whole % length:
            return False
        taps *= length
    same_dtype = all(
        value.dtype == x.dtype and value.dtype.kind == "f" for value in (*step.inputs, step.output)
    )
    if x.shape[-1] > MAX_CHANNELS:
        return False
    return x.shape == shape and taps <= MAX_TAPS and same_dtype and x.size > 0


def _compute_again(program: Program, by_columns: set[Value]) -> Program:
    """Let groups compute for themselves what earlier groups would have to store for them alone."""
    groups = {id(step): step for step in program.steps if _is_group(step)}  # in their present form
    readers: dict[Value, list[int]] = {}
    for step in program.steps:
        for value in dict.fromkeys(step.inputs):
            readers.setdefault(value, []).append(id(step))
    kept = {*program.results_needed, *by_columns}
    steps: list[Step] = []
    for step in program.steps:
        group = groups.get(id(step))
        if group is None:
            steps.append(step)
            continue
        for value in group.outputs:
            others = {key: groups.get(key) for key in readers.get(value, [])}
            members = _members_again(group, value, len(others)) if value not in kept else []
            if not members or not all(other and other.shape == value.shape for other in others.values()):
                continue
            for key, other in others.items():
                assert other is not None
                groups[key] = _with_members(other, members, value)
                for read in groups[key].inputs:
                    if key not in readers.setdefault(read, []):
                        readers[read].append(key)
            group = _of_outputs(group, [v for v in group.outputs if v is not value])
        if group.outputs:
            steps.append(group)
    return Program(program.inputs, steps, program.outputs, program.updates)


def _is_group(step: Step) -> TypeGuard[Group]:
    return step.operation in (Group, OnePass)


def _members_again(group: Group, value: Value, readers: int) -> list[Instruction]:
    """Return the members that make a large value of one array as large, or [] if they cost too much.

    Cheap ones may be computed again, a few of them. Others may be computed for one reader instead, if the
    group needs them for nothing else: so a derivative that is known with the result, as that of GELU, is not
    kept for the backward pass.
    """
    producer = {member.output: member for member in group.members}
    found: list[Instruction] = []
    arrays: set[Value] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        member = producer.get(current)
        if member is None:
            if current.size * SMALL > value.size:
                arrays.add(current)
        elif member not in found:
            found.append(member)
            waiting += member.inputs
    (array, *more) = arrays or {value}
    if (
        value not in producer
        or value.shape != group.shape
        or value.size < MIN_SHARED_WORK
        or more
        or array.shape != value.shape
        or array.dtype.itemsize > value.dtype.itemsize
    ):
        return []
    left = _of_outputs(group, [v for v in group.outputs if v is not value]).members
    again = found if readers > 1 else [member for member in found if member in left]
    if len(again) > MAX_AGAIN or any(member.primitive not in CHEAP for member in again):
        return []
    return [member for member in group.members if member in found]


def _with_members(step: Group, members: list[Instruction], value: Value) -> Group:
    """Return a group that computes a value by these members, instead of reading it."""
    same: dict[Value, Value] = {}
    first: list[Instruction] = []
    known = {(m.primitive, *m.inputs, *map(str, m.attributes.items())): m.output for m in step.members}
    for member in members:
        inputs = [same.get(read, read) for read in member.inputs]
        key = (member.primitive, *inputs, *map(str, member.attributes.items()))
        if key in known:
            same[member.output] = known[key]
            continue
        output = Value(member.output.shape, member.output.dtype)
        first.append(Instruction(member.primitive, inputs, member.attributes, output, member.phase))
        same[member.output] = output
    rest = [
        Instruction(
            m.primitive,
            [same.get(v, v) if v is value else v for v in m.inputs],
            m.attributes,
            m.output,
            m.phase,
        )
        for m in step.members
    ]
    again = set(same.values())
    before = [member for member in rest if member.output in again]
    behind = [member for member in rest if member.output not in again]
    return _like(step, [*before, *first, *behind], step.outputs)


def _of_outputs(group: Group, outputs: list[Value]) -> Group:
    """Return a group that stores other results, without the members that it does not need for these."""
    needed = set(outputs).union(*(partial.inputs for partial in getattr(group, "sums", [])))
    members: list[Instruction] = []
    for member in reversed(group.members):
        if member.output in needed:
            needed.update(member.inputs)
            members.append(member)
    return _like(group, members[::-1], outputs)


def _like(group: Group, members: list[Instruction], outputs: list[Value]) -> Group:
    return OnePass(members, outputs, group.sums) if isinstance(group, OnePass) else Group(members, outputs)
