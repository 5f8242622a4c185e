"""The measurements for docs/interop.md run, and its page names tests that are there."""

import re
from pathlib import Path

import pytest

import minidl as dl

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


def test_a_row_of_the_table():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed (the extra `interop`)")
    from docs import interop

    x = dl.random.normal((8, 3), generator=dl.Generator(0)).numpy()
    row = interop.measure("small", dl.Network([dl.Dense(3, 2, seed=0)]), x)
    name, rows, difference, *_ = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, rows) == ("small", "8")
    assert float(difference) < 1e-5


def test_the_page_names_files_that_are_there():
    links = re.findall(r"\]\((\.\./[^)]+)\)", PAGE.read_text())
    assert len(links) > 10
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
