"""The plot of a network: Layers as nested boxes, data flowing down, lines between shared weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

from minidl.inspection.trace import LayerCall, NetworkTrace, trace
from minidl.layers.layer import Layer
from minidl.program.program import Instruction, Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY, BOX = "#222222", "#8a8a8a", "#f4f6f8"
#: Colours of shared parameters (the bright scheme of Paul Tol, made for colour-blind readers).
SHARED = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
MIN_WIDTH, HEIGHT, GAP, INDENT, TITLE = 5.2, 0.52, 0.5, 0.22, 0.36
PILL, PILL_GAP = 0.34, 0.2  # of inputs and outputs
SCALE = 0.95  # inches
MAX_LABEL = 80  # characters


@dataclass(eq=False)
class Node:
    """A box without boxes inside: a Layer, operations of an outer Layer, an input or an output.

    Attributes
    ----------
    path : the calls of the Layers around it; empty for inputs and outputs
    call : of the Layer that it is
    parameters : the Parameters that it uses by their names, each with its text, such as ``weight.T``
    sources : the numbers of the nodes that it reads from, each with a value that it reads
    top, bottom, left, right : where it is drawn
    """

    label: str
    path: list[LayerCall]
    steps: list[Instruction] = field(default_factory=list)
    call: LayerCall | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    sources: dict[int, Value] = field(default_factory=dict)
    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0


def plot_network(network: Layer, inputs: tuple[Any, ...], path: str | PathLike[str] | None = None) -> Figure:
    """Return a figure of a network, and write it to a file if ``path`` is given."""
    if not inputs:
        raise TypeError("plot() needs the shape of one observation, for example network.plot((28, 28, 1))")
    figure = _Drawing(trace(network, inputs)).figure
    if path is not None:
        from minidl.figures import write

        write(figure, path, dpi=130)
    return figure


# --- what is plotted ----------------------------------------------------------------------------------


def nodes_of(traced: NetworkTrace) -> tuple[list[Node], dict[Value, int]]:
    """Return the nodes in the order in which they run, and for each value the number of its node.

    Inputs have the numbers -1, -2, ...
    """
    nodes: list[Node] = []
    _collect(traced.root, [], nodes, traced)
    made: dict[Value, int] = {value: -1 - i for i, (_, value) in enumerate(traced.inputs)}
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
        if node.call is not None:  # what it returns unchanged comes from it now
            made |= dict.fromkeys(node.call.outputs, number)
    return nodes, made


def _collect(call: LayerCall, path: list[LayerCall], nodes: list[Node], traced: NetworkTrace) -> None:
    inner = any(isinstance(item, LayerCall) for item in call.items)
    if not inner and path:
        title = f"{type(call.layer).__name__}({call.layer.extra_repr()})"
        nodes.append(Node(_shortened(title), path, call.instructions, call))
        return
    for part in call.parts():
        if isinstance(part, LayerCall):
            _collect(part, [*path, call], nodes, traced)
        elif traced.formula(part):
            nodes.append(Node(traced.formula(part), [*path, call], part))
        elif nodes:
            nodes[-1].steps += part  # views alone are no box of their own


def end_nodes(kind: str, named: list[tuple[str, Value]]) -> list[Node]:
    """Return a node for each input or output, with its name if there are several."""
    return [
        Node(f"{kind}{f' {name}' if len(named) > 1 else ''}  {_shape(value.shape)}", [])
        for name, value in named
    ]


def nested_lanes(spans: dict[Any, tuple[float, float]]) -> dict[Any, int]:
    """Return a lane for each span so that none covers another, short ones in the inner lanes."""
    lanes: dict[Any, int] = {}
    for key, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        overlapping = {
            lane for other, lane in lanes.items() if spans[other][0] <= last and first <= spans[other][1]
        }
        lanes[key] = max(overlapping, default=-1) + 1
    return {key: lanes[key] for key in spans}


# --- where it is drawn --------------------------------------------------------------------------------


def place(nodes: list[Node]) -> float:
    """Set the heights of nodes; return where the Layers around the last one end."""
    position, before = 0.0, []  # type: float, list[LayerCall]
    for node in nodes:
        common = _common(before, node.path)
        position += 0.18 * (len(before) - common) + TITLE * (len(node.path) - common)
        node.top, node.bottom = position, position + HEIGHT
        position += HEIGHT + GAP
        before = node.path
    return position - GAP + 0.18 * len(before)


def width_of(nodes: list[Node], ends: list[Node]) -> float:
    """Return the width that fits the labels of all nodes and the titles of the Layers around them."""
    widths = [MIN_WIDTH, *(_text_width(node.label, 9) + 0.6 for node in ends)]
    for node in nodes:
        widths.append(_text_width(node.label, 9.5) + 0.3 + 2 * _left(node))
        for depth, call in enumerate(node.path):
            widths.append(_text_width(_title(call), 8.5, "bold") + 0.3 + 2 * (INDENT * depth - 0.3))
    return max(widths)


class _Drawing:
    """Draws the figure of a network.

    One unit is `SCALE` inches, the vertical axis points down. From left to right: the lanes that join shared
    Parameters, the texts of Parameters, the nodes, the lanes of data that passes other nodes by.
    """

    def __init__(self, traced: NetworkTrace):
        from minidl.figures import Figure

        self.nodes, made = nodes_of(traced)
        inputs, outputs = end_nodes("input", traced.inputs), end_nodes("output", traced.outputs)
        # The input that the first node reads, and the output of the last one, are next to it.
        first = min((-1 - n for n in (self.nodes[0].sources if self.nodes else ()) if n < 0), default=0)
        last = next((i for i, (_, v) in enumerate(traced.outputs) if made.get(v) == len(self.nodes) - 1), 0)
        self.inputs = [*inputs[first + 1 :][::-1], *inputs[:first][::-1], *inputs[first : first + 1]]
        self.outputs = [*outputs[last : last + 1], *outputs[:last], *outputs[last + 1 :]]
        self.rows = [*self.inputs, *self.nodes, *self.outputs]
        self._place()
        by_number = dict(enumerate(self.nodes)) | {-1 - i: node for i, node in enumerate(inputs)}
        self.flows = [(by_number[n], node, v) for node in self.nodes for n, v in node.sources.items()]
        ends = zip(outputs, traced.outputs, strict=True)
        self.flows += [(by_number[made[v]], node, v) for node, (_, v) in ends if v in made]
        uses = self._uses()
        texts = max((_text_width(text, 7.5, "bold") for _, _, text, _ in uses), default=0.0)
        self.lane_start = -0.95 - texts
        self.lanes = self._parameter_lanes(uses)
        data_lanes = self._data_lanes()
        left = self.lane_start - 0.1 * max(self.lanes.values(), default=0) - 0.35
        right = self.width + 0.75 + 0.34 * max(data_lanes.values(), default=0)
        top, bottom = self.rows[0].top - 0.25, self.rows[-1].bottom + (0.5 if self.lanes else 0.25)
        self.figure = Figure(figsize=(SCALE * (right - left), SCALE * (bottom - top)))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(left, right)
        self.axes.set_ylim(bottom, top)
        self.axes.axis("off")
        self._draw_layers()
        self._draw_flows(data_lanes)
        self._draw_nodes()
        self._draw_parameters(uses)

    def _place(self) -> None:
        bottom = max(place(self.nodes), 0.0)
        self.width = width_of(self.nodes, [*self.inputs, *self.outputs])
        self.middle = self.width / 2
        for node in self.nodes:
            node.left, node.right = _left(node), self.width - _left(node)
        for i, node in enumerate(reversed(self.inputs)):
            node.bottom = -0.32 - i * (PILL + PILL_GAP)
            node.top = node.bottom - PILL
        for i, node in enumerate(self.outputs):
            node.top = bottom + 0.36 + i * (PILL + PILL_GAP)
            node.bottom = node.top + PILL
        for node in (*self.inputs, *self.outputs):
            half = _text_width(node.label, 9) / 2 + 0.15
            node.left, node.right = self.middle - half, self.middle + half

    # --- boxes ------------------------------------------------------------------------------------

    def _box(self, left: float, top: float, right: float, bottom: float, radius: float, **style: Any) -> None:
        from matplotlib.patches import FancyBboxPatch

        shape = f"round,pad=0,rounding_size={radius}"
        box = FancyBboxPatch((left, top), right - left, bottom - top, boxstyle=shape, **style)
        self.axes.add_patch(box)

    def _draw_layers(self) -> None:
        """Draw a frame around the nodes inside each Layer, outer ones first."""
        spans: dict[int, list[Any]] = {}
        for node in self.nodes:
            for depth, call in enumerate(node.path):
                inner = len(node.path) - 1 - depth
                span = spans.setdefault(id(call), [call, depth, node.top - TITLE * (inner + 1), node.bottom])
                span[3] = max(span[3], node.bottom + 0.12 * inner)
        for call, depth, top, bottom in sorted(spans.values(), key=lambda span: span[1]):
            left = INDENT * depth - 0.3
            style = {"facecolor": BOX, "edgecolor": "#c9d1d9", "linewidth": 1, "zorder": depth}
            self._box(left, top, self.width - left, bottom + 0.14, 0.08, **style)
            box = {"facecolor": BOX, "edgecolor": "none", "pad": 1}
            text: dict[str, Any] = {"fontsize": 8.5, "fontweight": "bold", "color": GREY, "bbox": box}
            self.axes.text(left + 0.12, top + 0.17, _title(call), va="center", zorder=24, **text)

    def _draw_nodes(self) -> None:
        for node in self.rows:
            style = {"facecolor": "white", "edgecolor": INK, "linewidth": 1.1, "zorder": 21}
            size, radius = 9.5, 0.08
            if not node.path:
                style, size, radius = style | {"edgecolor": GREY}, 9, PILL / 2
            self._box(node.left, node.top, node.right, node.bottom, radius, **style)
            place = (self.middle, (node.top + node.bottom) / 2)
            self.axes.text(*place, node.label, ha="center", va="center", fontsize=size, color=INK, zorder=22)

    # --- data -------------------------------------------------------------------------------------

    def _is_next(self, source: Node, target: Node) -> bool:
        return self.rows.index(target) == self.rows.index(source) + 1

    def _data_lanes(self) -> dict[int, int]:
        """Return the lane of each flow, by its number, that passes other nodes by."""
        return nested_lanes(
            {
                i: (source.bottom, target.top)
                for i, (source, target, _) in enumerate(self.flows)
                if not self._is_next(source, target)
            }
        )

    def _draw_flows(self, lanes: dict[int, int]) -> None:
        """Draw arrows with the shapes of what flows; those that pass other nodes by go around them."""
        arriving: dict[int, list[int]] = {}
        for i in sorted(lanes, key=lanes.__getitem__):
            arriving.setdefault(id(self.flows[i][1]), []).append(i)
        for i, (source, target, value) in enumerate(self.flows):
            if i not in lanes:
                self._arrow(source, target, _shape(value.shape))
                continue
            others = arriving[id(target)]
            # Inner lanes arrive below outer ones if they come from above, so that they do not cross.
            share = (len(others) - others.index(i)) / (len(others) + 1)
            height = target.bottom - target.top
            end = target.top + height * (share if not target.path else 0.55 * share)
            start = source.bottom - 0.25 * (source.bottom - source.top)
            self._around(
                (source.right, start), (target.right, end), self._data_lane(lanes[i]), _shape(value.shape)
            )

    def _data_lane(self, lane: int) -> float:
        return self.width + 0.45 + 0.34 * lane

    def _arrow(self, source: Node, target: Node, text: str) -> None:
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
        ends = (self.middle, target.top), (self.middle, source.bottom)
        self.axes.annotate("", *ends, arrowprops=style, zorder=23)
        if source.path and target.path:  # inputs and outputs show their own shapes
            common = _common(source.path, target.path)
            frames_end = source.bottom + 0.12 * (len(source.path) - common)
            frames_begin = target.top - TITLE * (len(target.path) - common)
            place = (self.middle + 0.12, (frames_end + frames_begin) / 2)
            self.axes.text(*place, text, fontsize=8, va="center", color=GREY, zorder=23)

    def _around(self, start: tuple[float, float], end: tuple[float, float], x: float, text: str) -> None:
        """Draw a flow that passes some nodes by, in a lane to the right of all."""
        heights = [start[1], start[1], end[1], end[1]]
        self.axes.plot([start[0], x, x, end[0]], heights, color=GREY, linewidth=1, zorder=19)
        style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1, "shrinkA": 0, "shrinkB": 0}
        self.axes.annotate("", end, (end[0] + 0.2, end[1]), arrowprops=style, zorder=20)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        look: dict[str, Any] = {"fontsize": 8, "color": GREY, "bbox": box, "rotation": 90}
        self.axes.text(x, (start[1] + end[1]) / 2, text, ha="center", va="center", zorder=25, **look)

    # --- Parameters -------------------------------------------------------------------------------

    def _uses(self) -> list[tuple[Node, str, str, float]]:
        """Return for each use of a Parameter its node, its name, its text, and at which height it is."""
        return [
            (node, name, text, node.top + HEIGHT * (i + 0.5) / len(node.parameters))
            for node in self.nodes
            for i, (name, text) in enumerate(node.parameters.items())
        ]

    def _parameter_lanes(self, uses: list[tuple[Node, str, str, float]]) -> dict[str, int]:
        """Return the lane of each Parameter that is used more than once."""
        heights: dict[str, list[float]] = {}
        for _, name, _, height in uses:
            heights.setdefault(name, []).append(height)
        self.spans = {name: (min(ys), max(ys)) for name, ys in heights.items() if len(ys) > 1}
        return nested_lanes(self.spans)

    def _draw_parameters(self, uses: list[tuple[Node, str, str, float]]) -> None:
        """Write next to each node which Parameters it uses, and join those that are used more than once."""
        colors = {name: SHARED[i % len(SHARED)] for i, name in enumerate(self.lanes)}
        places = {name: self.lane_start - 0.1 * lane for name, lane in self.lanes.items()}
        for node, name, text, height in uses:
            color, weight = (colors[name], "bold") if name in places else (GREY, "normal")
            style: dict[str, Any] = {"fontsize": 7.5, "color": color, "fontweight": weight, "zorder": 24}
            self.axes.text(-0.55, height, text, ha="right", va="center", **style)
            line: dict[str, Any] = {"color": color, "linewidth": 0.7, "alpha": 0.6, "zorder": 18}
            self.axes.plot([-0.5, node.left], [height, height], **line)
            if name in places:
                ends = [places[name], -0.66 - _text_width(text, 7.5, "bold")]
                self.axes.plot(ends, [height, height], color=color, linewidth=1.3, zorder=17)
        for name, x in places.items():
            line = {"linestyle": (0, (3, 2)), "color": colors[name], "linewidth": 1.3, "zorder": 17}
            self.axes.plot([x, x], self.spans[name], **line)
        if places:
            note = "joined by a dashed line: the same Parameter"
            corner = (self.axes.get_xlim()[0] + 0.1, self.axes.get_ylim()[0] - 0.12)
            self.axes.text(*corner, note, fontsize=7.5, color=GREY, va="bottom")


def _left(node: Node) -> float:
    """Return where a node begins; it ends as far from the other side."""
    return 0.3 + INDENT * (len(node.path) - 1)


def _common(one: list[LayerCall], other: list[LayerCall]) -> int:
    """Return how many calls two paths have in common."""
    return sum(a is b for a, b in zip(one, other, strict=False))


def _title(call: LayerCall) -> str:
    return f"{call.name}: {type(call.layer).__name__}" if call.name else type(call.layer).__name__


def _text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a text in units of the figure."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    path = TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight))
    return float(path.get_extents().width / 72 / SCALE)


def _shortened(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}..."


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:])) or "scalar"
