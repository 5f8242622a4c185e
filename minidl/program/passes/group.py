"""The pass that puts elementwise instructions together, so that their data stay in cache."""

from __future__ import annotations

import itertools

from minidl.program.program import Group, Instruction, Program, Step, Value


def group_elementwise(program: Program) -> Program:
    """Form groups of elementwise instructions of one shape.

    Each instruction starts as a group of its own, which is merged with the groups of its producers
    and of its fellow readers, unless the merged group would wait for something that waits for it.
    """
    graph = _Graph(program)
    for step in program.steps:
        if isinstance(step, Instruction) and step.is_elementwise:
            graph.open_group(step)
            for other in graph.neighbours(step):
                group = graph.node(step)
                assert isinstance(group, Group)
                if not graph.waits(group, other) and not graph.waits(other, group):
                    graph.merge(other, group)
    return graph.program()


class _Graph:
    """The steps as nodes, where a group is one node; which node computes and reads each value."""

    def __init__(self, program: Program):
        self.original = program
        self.node_of: dict[int, Step] = {id(step): step for step in program.steps}
        self.producer = {value: step for step in program.steps for value in step.outputs}
        self.position = {id(step): i for i, step in enumerate(program.steps)}
        self.readers: dict[Value, list[Step]] = {}
        draws = [step for step in program.steps if step.generator is not None]
        self.draw_before = {id(later): earlier for earlier, later in itertools.pairwise(draws)}
        for step in program.steps:
            for value in step.inputs:
                self.readers.setdefault(value, []).append(step)

    def node(self, step: Step) -> Step:
        return self.node_of[id(step)]

    def neighbours(self, step: Instruction) -> list[Group]:
        """Return the other groups of its shape that make or read its inputs, latest first."""
        nodes: dict[int, Group] = {}
        for value in step.inputs:
            related = [self.producer[value]] if value in self.producer else []
            if value.shape == step.output.shape:
                related += self.readers[value]
            for other in related:
                node = self.node(other)
                same_shape = isinstance(node, Group) and node.shape == step.output.shape
                if same_shape and node is not self.node(step):
                    nodes[id(node)] = node  # type: ignore[assignment]
        return list(reversed(nodes.values()))

    def inputs_of(self, node: Step) -> list[Step]:
        producers = [self.node(self.producer[v]) for v in node.inputs if v in self.producer]
        if id(node) in self.draw_before:  # random numbers are drawn in the order of the program
            producers.append(self.draw_before[id(node)])
        return [producer for producer in producers if producer is not node]

    def waits(self, group: Group, other: Group) -> bool:
        """Return whether a group waits for another by way of a third step."""
        waiting = [node for node in self.inputs_of(group) if node is not other]
        seen: set[int] = set()
        while waiting:
            node = waiting.pop()
            if node is other:
                return True
            if id(node) not in seen:
                seen.add(id(node))
                waiting.extend(self.inputs_of(node))
        return False

    def merge(self, group: Group, other: Group) -> None:
        """Move the members of the second group into the first."""
        group.members = sorted(group.members + other.members, key=lambda member: self.position[id(member)])
        for member in other.members:
            self.node_of[id(member)] = group

    def open_group(self, step: Instruction) -> None:
        self.node_of[id(step)] = Group([step])

    def program(self) -> Program:
        """Return the program with the groups in it, in an order in which it can be computed."""
        needed = set(self.original.results_needed)
        ordered: list[Step] = []
        done: set[int] = set()
        for step in self.original.steps:
            waiting = [self.node(step)]
            while waiting:
                node = waiting[-1]
                missing = [n for n in self.inputs_of(node) if id(n) not in done]
                if id(node) in done or missing:
                    waiting.extend(missing) if id(node) not in done else waiting.pop()
                    continue
                done.add(id(node))
                ordered.append(node)
                waiting.pop()
        for node in ordered:
            if isinstance(node, Group):
                inside = set(map(id, node.members))
                node.outputs = [
                    m.output
                    for m in node.members
                    if m.output in needed or any(id(r) not in inside for r in self.readers.get(m.output, []))
                ]
        return Program(self.original.inputs, ordered, self.original.outputs, self.original.updates)
