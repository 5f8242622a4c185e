"""Sources become pages without losing a line of code."""

import ast
import re
from pathlib import Path

import pytest

from docs.extensions import literate

ROOT = Path(__file__).parents[2]
FILES = [place[2] for place in literate.PLACE.finditer((ROOT / "docs" / "engine.md").read_text())]


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith("elementwise.py")])
def test_all_code_is_there_and_in_order(file):
    source = (ROOT / file).read_text()
    blocks = re.findall(r"```python\n(.*?)\n```", literate.annotated(source), re.DOTALL)
    shown = [line for line in "\n".join(blocks).splitlines() if line.strip()]
    assert len(shown) > 50
    tree = ast.parse(source)
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            prose |= set(range(node.body[0].lineno - 1, node.body[0].end_lineno))
    lines = source.splitlines()
    code = [line for i, line in enumerate(lines) if i not in prose and line.strip()]
    shown_code = [line for line in shown if line in set(code)]
    assert [line for line in code if not line.lstrip().startswith("#")] == [
        line for line in shown_code if not line.lstrip().startswith("#")
    ]


def test_the_table_has_every_declared_primitive():
    from minidl.primitives import elementwise
    from minidl.primitives.primitive import Primitive

    table = literate.table((ROOT / "minidl/primitives/elementwise.py").read_text())
    names = {value.name for value in vars(elementwise).values() if isinstance(value, Primitive)}
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == names
    assert "| `exp` | `g * out` | `exp(x)` |" in table


def test_a_small_source():
    source = '"""About it."""\n\n# --- first part ---\n\n\ndef f(x):\n    """Return x."""\n    return x\n'
    text = literate.annotated(source)
    assert (
        text == "About it.\n\n### First part\n\n**f.** Return x.\n\n```python\ndef f(x):\n    return x\n```"
    )
