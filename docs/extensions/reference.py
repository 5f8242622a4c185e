"""The reference: pages name what they explain, and the docstrings are the explanation.

A page in docs/reference has blocks like

    ```{names} minidl.data
    digits
    batches
    ```

Each name becomes its signature and its docstring. tests/docs/test_reference.py sees to it that every public
name stands in exactly one block.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import TYPE_CHECKING, Any

from minidl.primitives.primitive import Primitive

if TYPE_CHECKING:  # the tests need no Sphinx
    from sphinx.application import Sphinx

BLOCK = re.compile(r"^```\{names\} (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "Examples")
#: Methods that many classes have and one explains.
ONCE = {"extra_repr", "update", "state_dict", "load_state_dict"}


def names_in(text: str) -> list[str]:
    """Return the names that a page explains, each with its module."""
    return [f"{block[1]}.{name}" for block in BLOCK.finditer(text) for name in block[2].split()]


def with_entries(text: str) -> str:
    """Return a page with the signature and docstring of each name in place of the blocks."""
    return BLOCK.sub(lambda block: "\n".join(entry(block[1], name) for name in block[2].split()), text)


def entry(module: str, name: str) -> str:
    """Return what the reference says of a public name, in MyST."""
    value = find(module, name)
    qualified = name if module == "minidl" else f"{module.removeprefix('minidl.')}.{name}"
    if inspect.isclass(value):
        lines = class_entry(qualified, value)
    else:
        lines = [f".. py:function:: {qualified}{signature(value)}", ""]
        lines += indented(docstring(value))
    return "\n".join(["```{eval-rst}", ".. py:currentmodule:: minidl", "", *lines, "```", ""])


def find(module: str, name: str) -> Any:
    """Return what a name means in a module, or in what minidl shows as one (`minidl.schedules`)."""
    minidl = importlib.import_module("minidl")
    place = getattr(minidl, module.removeprefix("minidl."), None) if module != "minidl" else minidl
    return getattr(place or importlib.import_module(module), name)


def class_entry(qualified: str, kind: type) -> list[str]:
    """Return a class, its docstring, and its own public methods and properties."""
    word = "exception" if issubclass(kind, BaseException) else "class"
    arguments = "" if word == "exception" else signature(kind)
    lines = [f".. py:{word}:: {qualified}{arguments}", "", *indented(docstring(kind))]
    public = vars(importlib.import_module("minidl")).values()
    bases = [base.__name__ for base in kind.__bases__ if any(base is value for value in public)]
    if bases:
        lines += ["", f"   Is a {', '.join(f'`{base}`' for base in bases)}."]
    for name, member in vars(kind).items():
        if name.startswith("_") or not getattr(member, "__doc__", None):
            continue
        if isinstance(member, property):
            lines += ["", f"   .. py:property:: {name}", "", *indented(docstring(member), 6)]
        elif callable(member) or isinstance(member, (classmethod, staticmethod)):
            if name in ONCE and kind.__name__ not in ("Layer", "Optimizer"):
                continue
            function = getattr(kind, name)
            lines += ["", f"   .. py:method:: {name}{signature(function, bound=True)}", ""]
            lines += indented(docstring(function), 6)
    return lines


def signature(value: Any, bound: bool = False) -> str:
    """Return the arguments of a function, a class or a primitive, with their defaults, without types."""
    if isinstance(value, Primitive):
        names = [n for n in inspect.signature(value.forward).parameters if n not in ("xp", "out")]
        return f"({', '.join(names)})"
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    parameters = list(found.parameters.values())
    if bound and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    text = str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<(?:function|class|primitive) '?([\w.]+)'?[^>]*>", r"\1", text)
    return re.sub(r"<[^>]*>", "...", text)


def docstring(value: Any) -> list[str]:
    """Return a docstring as lines of reStructuredText, its sections as lists."""
    lines = inspect.cleandoc(value.__doc__ or "").splitlines()
    result: list[str] = []
    section = ""
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line in SECTIONS and set(below) == {"-"}:
            section = line
            result += ["", f"**{line}**", ""]
        elif section and line and set(line) == {"-"} and result and result[-1] == "":
            continue
        elif section in ("Parameters", "Attributes") and line and not line.startswith(" "):
            name, _, text = line.partition(" : ")
            result += ["", f"* ``{name}``{': ' if text else ''}{safe(text)}"]
        elif section == "Raises" and line and not line.startswith(" "):
            result += ["", f"* ``{line}``:"]
        elif section and line.startswith(" "):
            result.append(f"  {safe(line.strip())}")
        elif line.startswith(("    ", ">>>")):
            result.append(line)
        else:
            result.append(safe(line))
    return result


def safe(text: str) -> str:
    """Return text of a docstring in which only backticks have a meaning."""
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|\\])|(?<=\w)_(?=\W|$)", lambda m: "\\" + m[0], part)
        for part in parts
    )


def indented(lines: list[str], by: int = 3) -> list[str]:
    """Return lines moved to the right."""
    return [" " * by + line if line else "" for line in lines]


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname.startswith("reference/"):
        content[0] = with_entries(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to call."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
