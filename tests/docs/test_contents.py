"""docs/contents.md names all that there is to build with; docs/gallery.md all examples and their pictures."""

import re
from pathlib import Path

import pytest

import minidl as dl
from minidl import losses, metrics
from minidl.optimizers.base import BaseOptimizer

ROOT = Path(__file__).parents[2]
CONTENTS = (ROOT / "docs/contents.md").read_text(encoding="utf-8")
GALLERY = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")


def classes(namespace, base):
    found = {
        name: x for name, x in vars(namespace).items() if isinstance(x, type) and name in namespace.__all__
    }
    return {name for name, x in found.items() if issubclass(x, base) and x is not base}


def functions(module):
    return {
        name
        for name, x in vars(module).items()
        if getattr(x, "__module__", "") == module.__name__ and hasattr(dl, name)
    }


KINDS = {
    "layers": classes(dl.layers, dl.Layer),
    "optimizers": classes(dl.optimizers, BaseOptimizer)
    - {"Optimizer", "BaseOptimizer", "FullBatchOptimizer"},
    "losses": functions(losses),
    "metrics": functions(metrics),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_there_is_is_named(kind):
    assert len(KINDS[kind]) > 5
    assert [name for name in sorted(KINDS[kind]) if not re.search(rf"`{name}\b", CONTENTS)] == []


def test_the_operations_are_counted():
    rows = re.findall(r"^\| `", (ROOT / "docs/operations.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"{len(rows)} operations" in CONTENTS


def test_every_example_and_every_picture_is_in_the_gallery():
    shown = (GALLERY, (ROOT / "README.md").read_text(encoding="utf-8"))
    for file in (ROOT / "examples").iterdir():
        if file.suffix == ".py":
            assert f"examples/{file.name}" in GALLERY
        if file.suffix == ".png":
            assert any(f"examples/{file.name}" in page for page in shown)
