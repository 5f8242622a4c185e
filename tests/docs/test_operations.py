"""The table of operations in docs is that of the docstrings."""

import importlib.util
from pathlib import Path

import minidl as dl

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SPECIFICATION = importlib.util.spec_from_file_location("operations_page", PAGE.with_suffix(".py"))
operations = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(operations)


def test_the_page_is_current():
    assert operations.page() == PAGE.read_text(), "run `python docs/operations.py`"


def test_every_operation_is_in_it():
    modules = tuple(f"minidl.{name}" for name in operations.FAMILIES.values())
    for name in dir(dl):
        value = getattr(dl, name)
        if getattr(value, "__module__", "").startswith(modules) and not isinstance(value, type):
            assert f"`{value.__name__}`" in PAGE.read_text(), name
