"""Draw the packages of minidl and what imports what, from the source: `python docs/architecture.py`.

An arrow points from a package to one that it imports; it is left out where a longer way of arrows leads there
too. Dashed red arrows lead upwards: they are imports inside functions, which happen when those are called.
Packages that import each other when they are loaded share one box.
"""

import argparse
import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "minidl"
WIDTH, HEIGHT, ROW, GAP = 1.9, 0.62, 1.45, 0.45


def module_name(path, root):
    """Return the dotted name of a source file below root: for ("layers", "dense.py"), "layers.dense"."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree, root):
    """Yield (name of a module below root, whether a function imports it) for each import of a source file."""

    def visit(node, called):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue  # read by type checkers only
            if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == root.name:
                base = child.module.split(".")[1:]
                for alias in child.names:
                    path = root.joinpath(*base, alias.name)
                    is_module = path.is_dir() or path.with_suffix(".py").is_file()
                    yield ".".join([*base, alias.name] if is_module else base), called
            elif isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.startswith(f"{root.name}."):
                        yield alias.name.partition(".")[2], called
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, called or inside)

    return visit(tree, False)


def package_graph(root=ROOT, inside=""):
    """Return what a package's children import of each other, when loaded and when called, and their lines."""
    loaded, called, lines = defaultdict(set), defaultdict(set), defaultdict(int)
    prefix = f"{inside}." if inside else ""
    for path in sorted(root.rglob("*.py")):
        module = module_name(path, root)
        if not module.startswith(prefix) or module == inside:
            continue  # the package's own __init__.py is its face, which imports everything
        child = module.removeprefix(prefix).split(".")[0]
        source = path.read_text()
        lines[child] += source.count("\n")
        for name, is_called in imports(ast.parse(source), root):
            if name.startswith(prefix) and name != inside:
                other = name.removeprefix(prefix).split(".")[0]
                if other and other != child:
                    (called if is_called else loaded)[child].add(other)
    imported = set().union(*loaded.values(), *called.values())
    names = [name for name in lines if loaded[name] or called[name] or name in imported]
    return {name: loaded[name] for name in names}, {name: called[name] for name in names}, dict(lines)


def reachable(graph, start):
    """Return all nodes that arrows lead to from a node."""
    seen, waiting = set(), [start]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def condensed(graph):
    """Return the graph with one node, a sorted tuple of names, for those that reach each other."""
    ways = {name: reachable(graph, name) for name in graph}
    box = {name: tuple(sorted({name} | {x for x in ways[name] if name in ways[x]})) for name in graph}
    nodes = sorted(set(box.values()))
    return {node: {box[other] for name in node for other in graph[name]} - {node} for node in nodes}, box


def with_calls(graph, calls):
    """Add the imports inside functions to a graph, and return those that would close a circle instead."""
    upwards = []
    for node, other in sorted(calls):
        if node in reachable(graph, other):
            upwards.append((node, other))
        elif node != other:
            graph[node].add(other)
    return upwards


def reduced(graph):
    """Return the graph without the arrows that a longer way of arrows replaces."""
    return {
        node: {x for x in others if not any(x in reachable(graph, other) for other in others - {x})}
        for node, others in graph.items()
    }


def rows_of(graph):
    """Return the nodes in rows, the lowest first, each above all that it imports."""
    heights = {}

    def height(node):
        if node not in heights:
            heights[node] = 1 + max((height(other) for other in graph[node]), default=-1)
        return heights[node]

    rows = defaultdict(list)
    for node in sorted(graph):
        rows[height(node)].append(node)
    return [rows[i] for i in sorted(rows)]


def places_of(rows, arrows):
    """Return the centre of each node's box; boxes stand near those that they have arrows to."""
    neighbours = defaultdict(set)
    for node, others in arrows.items():
        for other in others:
            neighbours[node].add(other)
            neighbours[other].add(node)
    widest = max(map(len, rows))
    places = {}

    def set_row(y, row):
        for i, node in enumerate(row):
            places[node] = ((i + (widest - len(row)) / 2) * (WIDTH + GAP), y * ROW)

    for y, row in enumerate(rows):
        set_row(y, row)
    for _ in range(8):
        for y, row in enumerate(rows):
            pull = {n: sum(places[x][0] for x in neighbours[n]) / max(1, len(neighbours[n])) for n in row}
            row.sort(key=lambda node: (pull[node], node))
            set_row(y, row)
    return places


def draw(axes, graphs, title):
    """Draw one package's children."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    loaded, called, lines = graphs
    graph, box = condensed(loaded)
    upwards = with_calls(graph, {(box[name], box[x]) for name in called for x in called[name] if x in box})
    arrows = reduced(graph)
    rows = rows_of(graph)
    places = places_of(rows, arrows)
    solid = [(node, other) for node, others in arrows.items() for other in others]
    for pairs, style in ((solid, "-"), (upwards, "--")):
        for node, other in pairs:
            (x, y), (u, v) = places[node], places[other]
            side = -1 if v < y else 1
            bend = 0.0 if abs(y - v) < 1.5 * ROW and y != v else 0.18
            axes.add_patch(
                FancyArrowPatch(
                    (x, y + side * HEIGHT / 2),
                    (u, v - side * HEIGHT / 2),
                    connectionstyle=f"arc3,rad={bend}",
                    arrowstyle="-|>",
                    mutation_scale=11,
                    linewidth=1.1,
                    linestyle=style,
                    color="#7a8794" if style == "-" else "#c0504d",
                    shrinkA=0,
                    shrinkB=1,
                    zorder=1,
                )
            )
    for node, (x, y) in places.items():
        width = WIDTH if len(node) == 1 else 2 * WIDTH
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - HEIGHT / 2),
                width,
                HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor="#e8f0f8" if len(node) == 1 else "#fbeed5",
                edgecolor="#3b5b7a",
                zorder=2,
            )
        )
        count = f"{sum(lines[name] for name in node):,} lines"
        names = ", ".join(node)
        size = min(9, 160 * width / WIDTH / len(names))
        axes.text(x, y + 0.11, names, ha="center", va="center", fontsize=size, zorder=3)
        axes.text(x, y - 0.16, count, ha="center", va="center", fontsize=7, color="#555", zorder=3)
    xs = [x for x, _ in places.values()]
    axes.set_xlim(min(xs) - WIDTH, max(xs) + WIDTH)
    axes.set_ylim(-HEIGHT, (len(rows) - 1) * ROW + HEIGHT)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=12, loc="left")


def main():
    """Draw minidl, and below it minidl.program."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    out = parser.parse_args().out
    figure = Figure(figsize=(12.5, 15), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 2))
    draw(top, package_graph(), "minidl/")
    draw(bottom, package_graph(inside="program"), "minidl/program/")
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    main()
