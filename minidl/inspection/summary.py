"""The summary of a network: a table of its layers with outputs, parameters and operations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minidl.layers.layer import Layer
from minidl.program.reports.listing import flops
from minidl.tables import table
from minidl.tensor import Parameter

if TYPE_CHECKING:
    from minidl.inspection.trace import LayerCall, NetworkTrace


@dataclass
class SummaryRow:
    """One line of a summary: a Layer, or operations that a Layer does between those inside it.

    Parameters and operations are those of the Layer itself, without those of Layers inside.
    """

    depth: int
    name: str
    title: str
    outputs: str = ""
    parameters: int = 0
    flops: int = 0
    shared: bool = False


@dataclass
class Summary:
    """A table of the Layers of a network; print it.

    Attributes
    ----------
    rows : one for each Layer, and for operations between Layers
    parameters, parameter_bytes : of the whole network, shared ones counted once
    flops : floating-point operations of the forward pass for one observation, or None
    activation_bytes : memory of all results of that pass, or None
    """

    rows: list[SummaryRow] = field(default_factory=list)
    parameters: int = 0
    parameter_bytes: int = 0
    flops: int | None = None
    activation_bytes: int | None = None

    def __str__(self) -> str:
        ran = self.flops is not None
        unit, scale = _flop_unit(self.flops or 0)
        mark = " *" if any(row.shared for row in self.rows) else ""
        no_mark = " " * len(mark)
        header = ["layer", *(["output"] if ran else []), f"parameters{no_mark}", *([unit] if ran else [])]
        rows = []
        for row in self.rows:
            name = f"{row.name}: " if row.name else ""
            parameters = f"{row.parameters:,}{mark if row.shared else no_mark}" if row.parameters else ""
            cells = ["  " * row.depth + name + row.title, parameters]
            if ran:
                cells = [cells[0], row.outputs, parameters, f"{row.flops / scale:.3f}" if row.flops else ""]
            rows.append(cells)
        text = table(header, rows, align="lr")
        return f"{text}\n{'-' * max(map(len, text.splitlines()))}\n{self._totals()}"

    def _totals(self) -> str:
        text = f"{self.parameters:,} parameters, {_size(self.parameter_bytes)}"
        if self.flops is not None and self.activation_bytes is not None:
            unit, scale = _flop_unit(self.flops)
            text += (
                f"; for each observation {self.flops / scale:.3g} {unit} forward and "
                f"{_size(self.activation_bytes)} of results"
            )
        if any(row.shared for row in self.rows):
            text += "\n* used in more than one place, counted once"
        return text

    __repr__ = __str__


def summarize(network: Layer, inputs: tuple[Any, ...]) -> Summary:
    """Return the Summary of a network; without inputs, it has what is known without running the network."""
    from minidl.inspection.trace import trace

    traced = trace(network, inputs) if inputs else None
    parameters = network.parameters()
    summary = Summary(
        parameters=sum(p.size for p in parameters), parameter_bytes=sum(p.data.nbytes for p in parameters)
    )
    _RowBuilder(network, traced, summary.rows).add(network, "", "", 0)
    if traced is not None:
        steps = [step for call in traced.root.calls() for step in call.instructions]
        summary.flops = sum(map(flops, steps))
        summary.activation_bytes = sum(s.output.nbytes for s in steps if s.primitive.kind != "view")
    return summary


class _RowBuilder:
    """Builds the rows of a Summary: Layers in the order in which they run, unused ones last."""

    def __init__(self, network: Layer, traced: NetworkTrace | None, rows: list[SummaryRow]):
        self.traced = traced
        self.rows = rows
        self.seen: dict[int, str] = {}
        self.counted: set[int] = set()
        self.shared = _shared(network, traced)
        self.calls: dict[int, list[LayerCall]] = {}
        for call in traced.root.calls() if traced else ():
            self.calls.setdefault(id(call.layer), []).append(call)

    def add(self, layer: Layer, name: str, path: str, depth: int) -> None:
        """Add the row of a Layer and those of the Layers inside; a shared one points to its first row."""
        row = SummaryRow(depth, name, f"{type(layer).__name__}({layer.extra_repr()})")
        self.rows.append(row)
        if id(layer) in self.seen:
            row.title = f"the same as {self.seen[id(layer)]}"
            return
        self.seen[id(layer)] = path or "the whole network"
        own = [p for p in _own(layer) if id(p) not in self.counted]
        self.counted.update(map(id, own))
        row.parameters = sum(p.size for p in own)
        row.shared = any(id(p) in self.shared for p in own)
        children = list(layer.named_children())
        calls = self.calls.get(id(layer), [])
        if self.traced is not None:
            row.outputs = ", ".join(_shape(v.shape) for v in calls[-1].outputs) if calls else "not used"
        if not children:
            row.flops = sum(flops(step) for call in calls for step in call.instructions)
        for part in self._parts(calls, depth + 1) if children else ():
            if isinstance(part, SummaryRow):
                self.rows.append(part)
                continue
            place = next((i for i, (_, child) in enumerate(children) if child is part), None)
            if place is not None:
                self._add_child(children.pop(place), path, depth)
        for child in children:
            self._add_child(child, path, depth)

    def _add_child(self, child: tuple[str, Layer], path: str, depth: int) -> None:
        name, layer = child
        self.add(layer, name, f"{path}.{name}" if path else name, depth + 1)

    def _parts(self, calls: list[LayerCall], depth: int) -> list[SummaryRow | Layer]:
        """Return the Layers that the calls of a Layer use, in order, and rows of the operations between them.

        The same operations in several places are one row.
        """
        assert self.traced is not None or not calls
        parts: dict[Any, SummaryRow | Layer] = {}
        for number, part in enumerate(part for call in calls for part in call.parts()):
            if isinstance(part, list):
                outputs = _shape(part[-1].output.shape)
                formula = self.traced.formula(part)  # type: ignore[union-attr]
                if formula:
                    row = parts.setdefault((formula, outputs), SummaryRow(depth, "", formula, outputs))
                    row.flops += sum(map(flops, part))  # type: ignore[union-attr]
            else:
                parts[number] = part.layer
        return list(parts.values())


def _own(layer: Layer) -> list[Parameter]:
    """Return the Parameters of a Layer that are not inside one of its Layers."""
    inside = {id(p) for _, child in layer.named_children() for p in child.parameters()}
    return [p for p in layer.parameters() if id(p) not in inside]


def _shared(network: Layer, traced: NetworkTrace | None) -> set[int]:
    """Return the ids of Parameters that several Layers hold or, according to the trace, use."""
    holders: dict[int, int] = {}
    layers = [network, *(layer for _, layer in network.named_layers())]
    for layer in layers:
        for parameter in _own(layer):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    users: dict[int, int] = {}
    if traced is not None:
        for call in traced.root.calls():
            read = {
                value for step in call.instructions for value in step.inputs if value in traced.parameters
            }
            for value in read:
                users[id(value.tensor)] = users.get(id(value.tensor), 0) + 1
    return {i for counts in (holders, users) for i, count in counts.items() if count > 1}


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:])) or "scalar"


def _flop_unit(count: int) -> tuple[str, float]:
    return next((u, s) for u, s in (("Gflop", 1e9), ("Mflop", 1e6), ("kflop", 1e3)) if count >= s or s == 1e3)


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
