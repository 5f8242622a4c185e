"""The page on checks: its rows are those of the report, and minidl judges every case of its table rightly."""

import importlib.util
import sys
from pathlib import Path

import pytest

from minidl.checks.rows.table import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"
SPECIFICATION = importlib.util.spec_from_file_location("checks_page", PAGE.with_suffix(".py"))
checks = importlib.util.module_from_spec(SPECIFICATION)
sys.modules["checks_page"] = checks  # dataclasses look their module up
SPECIFICATION.loader.exec_module(checks)


def test_every_row_is_on_the_page():
    text = PAGE.read_text()
    assert not [row.title for row in ROWS if row.title not in text]


def test_every_case_is_on_the_page():
    text = PAGE.read_text()
    assert not [case.what for case in checks.CASES if f": {case.what} |" not in text]


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: case.what)
def test_minidl_judges_rightly(case):
    assert (checks.by_minidl(case) is None) == case.is_right


@pytest.mark.oracle
def test_torch_judges_as_the_page_says():
    pytest.importorskip("torch")
    wrong = sum((checks.by_torch(case) is None) != case.is_right for case in checks.CASES)
    assert f"torch gradcheck {wrong}" in PAGE.read_text()
