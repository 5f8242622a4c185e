"""The pass that puts elementwise instructions together, so that their data stay in cache."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from minidl.program.program import Group, Instruction, Program, Step, Value


def group_elementwise(program: Program) -> Program:
    """Form groups of elementwise instructions of one shape.

    Each instruction starts as a group of its own, which is merged with the groups of its producers
    and of its fellow readers, unless the merged group would wait for something that waits for it.
    """
    graph = _Graph(program)
    for step in program.steps:
        graph.add(step)
        if isinstance(step, Instruction) and step.is_elementwise:
            for other in graph.neighbours(step):
                node = graph.node(step)
                if not graph.waits(node, other) and not graph.waits(other, node):
                    graph.merge(other, node)
    return graph.program()


@dataclass(eq=False)
class _Node:
    """One step, or a group of elementwise steps, with its place in the graph.

    What a node waits for is a set of groups, kept as the bits of a number, so that it is known without a walk
    through the graph. A merged group keeps the bits of its parts; any of them stands for it.
    """

    members: list[Step]
    shape: tuple[int, ...] | None = None  # of a group
    bits: int = 0
    before: int = 0  # the bits of all groups that it waits for
    producers: list[Step] = field(default_factory=list)
    readers: list[Step] = field(default_factory=list)  # those that have been added to the graph


class _Graph:
    """The steps as nodes, where a group is one node; which node computes and reads each value."""

    def __init__(self, program: Program):
        self.original = program
        self.nodes: dict[int, _Node] = {}
        self.producer = {value: step for step in program.steps for value in step.outputs}
        self.position = {id(step): i for i, step in enumerate(program.steps)}
        self.readers: dict[Value, list[Step]] = {}
        self.needed = set(program.results_needed)
        self.bits_used = 0
        ordered = [step for step in program.steps if step.is_ordered]
        self.ordered_before = {id(later): earlier for earlier, later in itertools.pairwise(ordered)}

    def node(self, step: Step) -> _Node:
        return self.nodes[id(step)]

    def add(self, step: Step) -> None:
        """Add a step, whose producers are in the graph, as a node."""
        node = self.nodes[id(step)] = _Node([step], producers=self.producers_of(step))
        if step.is_elementwise:
            node.shape, node.bits = step.outputs[0].shape, 1 << self.bits_used
            self.bits_used += 1
        for producer in node.producers:
            self.node(producer).readers.append(step)
            node.before |= self.node(producer).before | self.node(producer).bits
        for value in dict.fromkeys(step.inputs):
            self.readers.setdefault(value, []).append(step)

    def producers_of(self, step: Step) -> list[Step]:
        producers = [self.producer[value] for value in step.inputs if value in self.producer]
        if id(step) in self.ordered_before:  # draws and messages stay in the order of the program
            producers.append(self.ordered_before[id(step)])
        return producers

    def neighbours(self, step: Instruction) -> list[_Node]:
        """Return the other groups of its shape that make or read its inputs, latest first."""
        nodes: dict[int, _Node] = {}
        for value in step.inputs:
            related = [self.producer[value]] if value in self.producer else []
            if value.shape == step.output.shape:
                related += self.readers[value]
            for other in related:
                node = self.node(other)
                if node.shape == step.output.shape and node is not self.node(step):
                    nodes[id(node)] = node
        return list(reversed(nodes.values()))

    def waits(self, node: _Node, other: _Node) -> bool:
        """Return whether a group waits for another by way of a third node."""
        if not node.before & other.bits:
            return False
        thirds = (self.node(producer) for producer in node.producers)
        return any(third.before & other.bits for third in thirds if third is not node and third is not other)

    def merge(self, node: _Node, other: _Node) -> None:
        """Make one group of two."""
        if len(node.members) < len(other.members):
            node, other = other, node
        behind_node, behind_other = other.before & ~node.before, node.before & ~other.before
        for step in other.members:
            self.nodes[id(step)] = node
        is_new = other.bits == 1 << (self.bits_used - 1) and not other.readers
        self.bits_used -= is_new  # a number that nobody has seen is used again
        bits = node.bits if is_new else node.bits | other.bits
        before = (node.before | other.before) & ~bits
        readers = (node.readers, behind_node & ~bits), (other.readers, behind_other & ~bits)
        node.bits, node.before = bits, before
        for steps, news in readers:
            if news:
                self._let_wait([self.node(step) for step in steps], news, node)
        node.members += other.members
        node.producers = [p for p in (*node.producers, *other.producers) if self.node(p) is not node]
        node.readers = [r for r in (*node.readers, *other.readers) if self.node(r) is not node]

    def _let_wait(self, nodes: list[_Node], groups: int, merged: _Node) -> None:
        """Note that nodes, and those behind them, wait for more groups than before."""
        while nodes:
            node = nodes.pop()
            if node is not merged and groups & ~node.before:
                node.before |= groups
                nodes.extend(map(self.node, node.readers))

    def program(self) -> Program:
        """Return the program with the groups in it, in an order in which it can be computed."""
        nodes = {id(node): node for node in self.nodes.values()}
        steps = {key: self._step(node) for key, node in nodes.items()}
        before = {key: self._nodes_before(step) for key, step in steps.items()}
        ordered: list[Step] = []
        done: set[int] = set()
        for step in self.original.steps:
            waiting = [self.node(step)]
            while waiting:
                node = waiting[-1]
                missing = [other for other in before[id(node)] if id(other) not in done]
                if id(node) in done or missing:
                    waiting.extend(missing) if id(node) not in done else waiting.pop()
                    continue
                done.add(id(node))
                ordered.append(steps[id(node)])
                waiting.pop()
        return Program(self.original.inputs, ordered, self.original.outputs, self.original.updates)

    def _step(self, node: _Node) -> Step:
        """Return a node as a step of the program."""
        if node.shape is None:
            return node.members[0]
        inside = {id(member) for member in node.members}
        members = sorted(node.members, key=lambda member: self.position[id(member)])
        group = Group([member for member in members if isinstance(member, Instruction)])
        group.outputs = [
            member.output
            for member in group.members
            if member.output in self.needed
            or any(id(reader) not in inside for reader in self.readers.get(member.output, []))
        ]
        return group

    def _nodes_before(self, step: Step) -> list[_Node]:
        """Return the nodes whose results a step of the new program reads."""
        return [self.node(producer) for producer in self.producers_of(step)]
