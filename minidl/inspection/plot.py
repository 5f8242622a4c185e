"""The plot of a network: Layers as nested boxes, data flowing down, lines between shared weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl import files
from minidl.inspection.trace import LayerCall, NetworkTrace, trace
from minidl.layers.layer import Layer
from minidl.program.program import Instruction, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, BOX = "#222222", "#8a8a8a", "#f4f6f8"
#: Colours of shared parameters (the bright scheme of Paul Tol, made for colour-blind readers).
SHARED = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
WIDTH, HEIGHT, GAP, INDENT = 5.2, 0.52, 0.5, 0.22
SCALE = 0.95  # inches


@dataclass(eq=False)
class Node:
    """A box without boxes inside: a Layer, or what an outer Layer computes between others."""

    label: str
    path: list[LayerCall]
    steps: list[Instruction] = field(default_factory=list)
    call: LayerCall | None = None  # of the Layer that it is
    parameters: dict[str, str] = field(default_factory=dict)  # dotted name: how it is written
    sources: dict[int, Value] = field(default_factory=dict)  # number of the node before: what comes from it
    top: float = 0.0

    @property
    def left(self) -> float:
        """Where it begins; it ends as far from the other side."""
        return 0.3 + INDENT * (len(self.path) - 1)

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.top + HEIGHT


def plot_network(network: Layer, inputs: tuple[Any, ...], path: str | PathLike[str] | None = None) -> Figure:
    """Return a figure of a network, and write it to a file if ``path`` is given."""
    from matplotlib.figure import Figure

    if not inputs:
        raise TypeError("plot() needs the shape of one observation, for example network.plot((28, 28, 1))")
    traced = trace(network, inputs)
    nodes, made = nodes_of(traced)
    bottom = _place(nodes)
    lanes = _lanes(nodes)
    left, right = _lane_place(max(lanes.values(), default=0)) - 0.35, WIDTH + 1.5
    figure = Figure(figsize=(SCALE * (right - left), SCALE * (bottom + 1.75)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(left, right)
    axes.set_ylim(bottom + 1.1, -0.65)
    axes.axis("off")
    _draw_layers(axes, nodes)
    _draw_flow(axes, nodes, made, traced, bottom)
    _draw_nodes(axes, nodes)
    _draw_parameters(axes, nodes, lanes)
    if path is not None:
        with files.replacing(path) as temporary:
            figure.savefig(temporary, dpi=130, format=Path(path).suffix.lstrip(".") or "png")
    return figure


# --- what is plotted ----------------------------------------------------------------------------------


def nodes_of(traced: NetworkTrace) -> tuple[list[Node], dict[Value, int]]:
    """Return the boxes in the order in which they run, and for each value the box that it comes from.

    Inputs come from box -1.
    """
    nodes: list[Node] = []
    _collect(traced.root, [], nodes, traced)
    made: dict[Value, int] = dict.fromkeys(traced.inputs, -1)
    names = dict(traced.parameters)  # of Parameters and their transposes
    for number, node in enumerate(nodes):
        if node.call is not None:
            node.sources |= {made[value]: value for value in node.call.inputs if value in made}
        for step in node.steps:
            for value in step.inputs:
                if value in names:
                    if step.output in traced.texts:
                        names[step.output] = names[value]
                    else:
                        node.parameters[names[value]] = traced.texts[value]
                elif value in made and made[value] != number:
                    node.sources[made[value]] = value
            if step.output not in names:
                made[step.output] = number
        if node.call is not None:  # what it passes on unchanged comes from it now
            made |= dict.fromkeys(node.call.outputs, number)
    return nodes, made


def _collect(call: LayerCall, path: list[LayerCall], nodes: list[Node], traced: NetworkTrace) -> None:
    inner = any(isinstance(item, LayerCall) for item in call.items)
    if not inner and path:
        title = f"{type(call.layer).__name__}({call.layer.extra_repr()})"
        nodes.append(Node(title, path, call.instructions, call))
        return
    for part in call.parts():
        if isinstance(part, LayerCall):
            _collect(part, [*path, call], nodes, traced)
        elif traced.formula(part):
            nodes.append(Node(traced.formula(part), [*path, call], part))
        elif nodes:
            nodes[-1].steps += part  # views alone are no box of their own


def _place(nodes: list[Node]) -> float:
    """Set how far down each box stands; return where the last one ends."""
    position, before = 0.0, []  # type: float, list[LayerCall]
    for node in nodes:
        common = sum(a is b for a, b in zip(before, node.path, strict=False))
        position += 0.18 * (len(before) - common) + 0.36 * (len(node.path) - common)
        node.top = position
        position += HEIGHT + GAP
        before = node.path
    return position - GAP + 0.18 * len(before)


# --- drawing ------------------------------------------------------------------------------------------


def _box(axes: Axes, left: float, top: float, right: float, bottom: float, **style: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=shape, **style))


def _draw_layers(axes: Axes, nodes: list[Node]) -> None:
    """Draw the boxes of Layers that have boxes inside, outer ones first."""
    spans: dict[int, list[Any]] = {}
    for node in nodes:
        for depth, call in enumerate(node.path):
            inner = len(node.path) - 1 - depth
            span = spans.setdefault(id(call), [call, depth, node.top, inner, node.top + HEIGHT])
            span[4] = max(span[4], node.top + HEIGHT + 0.12 * inner)
    for call, depth, first, inner, bottom in sorted(spans.values(), key=lambda span: span[1]):
        left = -0.3 + INDENT * depth
        top = first - 0.36 * (inner + 1)
        shade = {"facecolor": BOX, "edgecolor": "#c9d1d9", "linewidth": 1, "zorder": depth}
        _box(axes, left, top, WIDTH - left, bottom + 0.14, **shade)
        name = f"{call.name}: " if call.name else ""
        axes.text(
            left + 0.12,
            top + 0.17,
            f"{name}{type(call.layer).__name__}",
            fontsize=8.5,
            va="center",
            color=GREY,
            fontweight="bold",
            zorder=20,
        )


def _draw_nodes(axes: Axes, nodes: list[Node]) -> None:
    for node in nodes:
        style = {"facecolor": "white", "edgecolor": INK, "linewidth": 1.1, "zorder": 21}
        _box(axes, node.left, node.top, WIDTH - node.left, node.bottom, **style)
        middle = (WIDTH / 2, (node.top + node.bottom) / 2)
        axes.text(*middle, node.label, ha="center", va="center", fontsize=9.5, color=INK, zorder=22)


def _draw_flow(
    axes: Axes, nodes: list[Node], made: dict[Value, int], traced: NetworkTrace, bottom: float
) -> None:
    """Draw arrows with the shapes of what flows; those that pass other boxes go around them."""
    ends = {-1: -0.32, len(nodes): bottom + 0.45} | {i: node.bottom for i, node in enumerate(nodes)}
    for names, values, height, side in (
        ("input", traced.inputs, -0.36, "bottom"),
        ("output", traced.outputs, bottom + 0.49, "top"),
    ):
        text = f"{names}  {' and '.join(_shape(value.shape) for value in values)}"
        axes.text(WIDTH / 2, height, text, ha="center", va=side, fontsize=9, color=INK)
    flows = [(source, i, value) for i, node in enumerate(nodes) for source, value in node.sources.items()]
    flows += [(made[value], len(nodes), value) for value in traced.outputs if value in made]
    lanes: list[int] = []  # up to which box each lane on the right is taken
    for source, target, value in sorted(flows, key=lambda flow: (flow[0], flow[1])):
        if source == target - 1:
            tip = nodes[target].top if target < len(nodes) else ends[target]
            _arrow(axes, ends[source], tip, _shape(value.shape) if 0 <= source < len(nodes) - 1 else "")
            continue
        lane = next((i for i, taken in enumerate(lanes) if taken <= source), len(lanes))
        lanes[lane : lane + 1] = [target]
        x = WIDTH + 0.45 + 0.34 * lane
        start = (
            (WIDTH - nodes[source].left, nodes[source].bottom - 0.13) if source >= 0 else (WIDTH / 2, -0.2)
        )
        into = nodes[target] if target < len(nodes) else None
        end_x, end_y = (WIDTH - into.left, into.top + 0.15) if into else (WIDTH / 2, bottom + 0.3)
        _around(axes, start, (end_x, end_y), x, _shape(value.shape), into is not None)


def _arrow(axes: Axes, start: float, end: float, text: str) -> None:
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (WIDTH / 2, end), (WIDTH / 2, start), arrowprops=style, zorder=23)
    axes.text(WIDTH / 2 + 0.12, (start + end) / 2, text, fontsize=8, va="center", color=GREY, zorder=23)


def _around(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], x: float, text: str, head: bool
) -> None:
    """Draw what passes some boxes by, on a lane to the right of all."""
    axes.plot(
        [start[0], x, x, end[0]], [start[1], start[1], end[1], end[1]], color=GREY, linewidth=1, zorder=19
    )
    if head:
        style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, (end[0] + 0.2, end[1]), arrowprops=style, zorder=20)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    middle = (x, (start[1] + end[1]) / 2)
    axes.text(*middle, text, fontsize=8, va="center", ha="center", color=GREY, bbox=box, zorder=25)


def _uses(nodes: list[Node]) -> list[tuple[Node, str, str, float]]:
    """Return for each use of a Parameter its box, its name, how it is written, and at which height."""
    return [
        (node, name, _short(text), node.top + HEIGHT * (i + 0.5) / len(node.parameters))
        for node in nodes
        for i, (name, text) in enumerate(node.parameters.items())
    ]


def _draw_parameters(axes: Axes, nodes: list[Node], lanes: dict[str, int]) -> None:
    """Write beside each box which Parameters it uses, and join the places of those used more than once."""
    colors = {name: SHARED[i % len(SHARED)] for i, name in enumerate(lanes)}
    heights: dict[str, list[float]] = {}
    for node, name, text, height in _uses(nodes):
        heights.setdefault(name, []).append(height)
        color, weight = (colors[name], "bold") if name in lanes else (GREY, "normal")
        style: dict[str, Any] = {"fontsize": 7.5, "color": color, "fontweight": weight, "zorder": 24}
        axes.text(-0.55, height, text, ha="right", va="center", **style)
        axes.plot([-0.5, node.left], [height, height], color=color, linewidth=0.7, alpha=0.6, zorder=18)
        if name in lanes:
            ends = [_lane_place(lanes[name]), -0.66 - _width(text)]
            axes.plot(ends, [height, height], color=color, linewidth=1.3, zorder=17)
    for name, lane in lanes.items():
        x = [_lane_place(lane)] * 2
        y = [min(heights[name]), max(heights[name])]
        axes.plot(x, y, linestyle=(0, (3, 2)), color=colors[name], linewidth=1.3, zorder=17)
    if lanes:
        note = "joined by a dashed line: the same Parameter"
        axes.text(-2.6, axes.get_ylim()[0] - 0.12, note, fontsize=7.5, color=GREY, va="bottom")


def _lane_place(lane: int) -> float:
    return -2.3 - 0.1 * lane


def _lanes(nodes: list[Node]) -> dict[str, int]:
    """Return the lane of each Parameter used more than once: none on each other, short ones inside."""
    heights: dict[str, list[float]] = {}
    for _, name, _, height in _uses(nodes):
        heights.setdefault(name, []).append(height)
    spans = {name: (min(places), max(places)) for name, places in heights.items() if len(places) > 1}
    lanes: dict[str, int] = {}
    for name, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        beside = {
            lane for other, lane in lanes.items() if spans[other][0] <= last and first <= spans[other][1]
        }
        lanes[name] = max(beside, default=-1) + 1
    return {name: lanes[name] for name in spans}


def _width(text: str) -> float:
    """Return the width of the name of a shared Parameter."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return (
        TextPath((0, 0), text, size=7.5, prop=FontProperties(weight="bold")).get_extents().width / 72 / SCALE
    )


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"...{name[-21:]}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:])) or "scalar"
