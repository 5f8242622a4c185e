"""Sources as pages: a line `<!-- source: minidl/autodiff.py -->` of a page becomes that file.

Docstrings of modules, functions and classes and the comments between them become text, the rest code, in
the order of the file. `<!-- table: minidl/primitives/elementwise.py -->` becomes the table of the primitives
that a file declares: each with its derivatives and the C expression, as they stand in the source.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests need no Sphinx
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"^<!-- (source|table): (\S+) -->$", re.MULTILINE)


def with_sources(text: str) -> str:
    """Return a page with the files that it asks for."""
    make = {"source": annotated, "table": table}
    return PLACE.sub(lambda place: make[place[1]]((ROOT / place[2]).read_text()), text)


def annotated(source: str) -> str:
    """Return a source as MyST: text from docstrings and comments, code as it is."""
    lines, tree = source.splitlines(), ast.parse(source)
    page: list[str] = []
    end = 0
    for node in tree.body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        page += between(lines[end : first - 1])
        end = node.end_lineno or first
        if node is tree.body[0] and ast.get_docstring(tree):
            page.append(prose(ast.get_docstring(tree) or ""))
        elif isinstance(node, ast.ClassDef) and end - first > 60:
            page += large_class(node, lines, first)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            page += definition(node, lines, first, end)
        else:
            page.append(code(lines[first - 1 : end]))
    return joined(page)


def definition(node: ast.FunctionDef | ast.ClassDef, lines: list[str], first: int, end: int) -> list[str]:
    """Return the docstring of a function or class as text, and then its code without it."""
    page = []
    without = range(0)
    text = ast.get_docstring(node)
    if text and len(node.body) > 1:
        page.append(f"**{node.name}.** {prose(text)}")
        without = range(node.body[0].lineno - 1, node.body[0].end_lineno or 0)
    page.append(code([lines[i] for i in range(first - 1, end) if i not in without]))
    return page


def large_class(node: ast.ClassDef, lines: list[str], first: int) -> list[str]:
    """Return a class in the parts into which comments such as `# --- operators ---` divide it."""
    start = (node.body[0].end_lineno or 0) if ast.get_docstring(node) else node.lineno
    page = [f"**{node.name}.** {prose(ast.get_docstring(node) or '')}", code(lines[first - 1 : node.lineno])]
    part: list[str] = []
    for line in lines[start : node.end_lineno]:
        if heading := re.match(r"\s*# --- (.*?) -+$", line):
            page += [code(part), f"### {heading[1].capitalize()}"]
            part = []
        else:
            part.append(line)
    return [*page, code(part)]


def between(lines: list[str]) -> list[str]:
    """Return comments that stand between definitions: headings, and text."""
    page = []
    for block in "\n".join(lines).split("\n\n"):
        comment = [
            line.removeprefix("#").lstrip(": ").rstrip() for line in block.splitlines() if line.strip()
        ]
        if comment and (heading := re.match(r"--- (.*?) -+$", comment[0])):
            page.append(f"### {heading[1].capitalize()}")
        elif comment:
            page.append(prose(" ".join(comment)))
    return page


def prose(text: str) -> str:
    """Return text of a docstring as Markdown, its sections of parameters as lists."""
    text = re.sub(r"\n(\w+)\n-+\n", r"\n**\1**\n\n", text.replace("``", "`"))
    text = re.sub(r"^(\w+(?:, \w+)*) : ", r"- `\1`: ", text, flags=re.MULTILINE)
    return re.sub(r"^(\w+Error)$", r"- `\1`", text, flags=re.MULTILINE).replace("<", "&lt;")


def code(lines: list[str]) -> str:
    """Return lines as a block of Python, or nothing if they are empty."""
    text = "\n".join(lines).strip("\n")
    return f"```python\n{text}\n```" if text.strip() else ""


def joined(page: list[str]) -> str:
    """Return a page of its pieces, with neighbouring blocks of code as one."""
    return "\n\n".join(piece for piece in page if piece).replace("\n```\n\n```python\n", "\n")


def table(source: str) -> str:
    """Return the primitives that a source declares, with their rules as they are written."""
    rows = ["| primitive | its derivatives, for each input | in C and CUDA |", "| --- | --- | --- |"]
    for call in ast.walk(ast.parse(source)):
        options = {k.arg: k.value for k in call.keywords} if isinstance(call, ast.Call) else {}
        if not isinstance(call, ast.Call) or not {"gradients", "expression"} <= options.keys():
            continue
        rules = options["gradients"]
        assert isinstance(rules, ast.Tuple), "elementwise primitives have a rule for each input"
        name, expression = ast.literal_eval(call.args[0]), ast.literal_eval(options["expression"])
        derivatives = "<br>".join(cell(rule(r)) for r in rules.elts)
        rows.append(f"| {cell(name)} | {derivatives} | {cell(expression)} |")
    return "\n".join(rows)


def rule(node: ast.expr) -> str:
    """Return a gradient rule as an equation, such as `dx = g * cos(x)`."""
    if not isinstance(node, ast.Lambda):
        return "none"
    return ast.unparse(node.body)


def cell(text: str) -> str:
    """Return code for a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`" if text != "none" else "none"


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    content[0] = with_sources(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
