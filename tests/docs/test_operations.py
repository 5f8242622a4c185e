"""The table of operations in docs is that of the docstrings."""

import importlib.util
from pathlib import Path
from types import FunctionType

import minidl as dl
from minidl.primitives.primitive import Primitive

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SPECIFICATION = importlib.util.spec_from_file_location("operations_page", PAGE.with_suffix(".py"))
operations = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(operations)


def test_the_page_is_current():
    assert operations.page() == PAGE.read_text(), "run `python docs/operations.py`"


def test_every_operation_is_in_it():
    text, modules = PAGE.read_text(), {f"minidl.{name}" for name in operations.FAMILIES.values()}
    values = {name: getattr(dl, name) for name in dir(dl) if name != "abs"}  # which is `absolute`
    names = [name for name, value in values.items() if isinstance(value, Primitive)]
    names += [n for n, v in values.items() if isinstance(v, FunctionType) and v.__module__ in modules]
    assert len(names) > 150
    assert not [name for name in names if f"| `{name}` |" not in text]
