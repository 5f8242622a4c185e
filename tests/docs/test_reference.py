"""Every public name stands on exactly one page of the reference, and can be shown there."""

import importlib
import inspect
from collections import Counter
from pathlib import Path

import pytest

import minidl as dl
from docs.extensions import reference

PAGES = sorted((Path(__file__).parents[2] / "docs" / "reference").glob("*.md"))
NAMES = Counter(name for page in PAGES for name in reference.names_in(page.read_text()))
MODULES = ("checks", "data", "distributed", "interop", "linalg", "random")
#: Modules, which have no entry of their own.
ARE_MODULES = {
    "data",
    "devices",
    "distributed",
    "initializers",
    "interop",
    "linalg",
    "random",
    "schedules",
    "sklearn",
}


def test_every_public_name_stands_on_exactly_one_page():
    twice = {name for name, count in NAMES.items() if count > 1}
    assert not twice
    missing = {name for name in dir(dl) if f"minidl.{name}" not in NAMES} - ARE_MODULES - {"__version__"}
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_names_of_modules_stand_there_or_as_names_of_minidl(module):
    names = importlib.import_module(f"minidl.{module}").__all__
    places = {n: (f"minidl.{module}.{n}" in NAMES) + at_the_top(n, module) for n in names}
    assert places == dict.fromkeys(names, 1)


def at_the_top(name, module):
    """Whether a name of a module is one of minidl, too, and not another one that is called the same."""
    if f"minidl.{name}" not in NAMES:
        return False
    ours, theirs = getattr(dl, name), reference.find(f"minidl.{module}", name)
    return inspect.unwrap(ours) is inspect.unwrap(theirs)


def test_schedules_and_initializers_stand_there():
    for module in (dl.schedules, dl.initializers):
        own = [name for name, value in vars(module).items() if is_own(name, value, module)]
        assert len(own) > 5
        shown = module.__name__.replace("optimizers.", "")
        assert not {n for n in own if f"{shown}.{n}" not in NAMES}


def is_own(name, value, module):
    hidden = name.startswith("_") or name == "initial_parameter"  # which layers call
    return not hidden and getattr(value, "__module__", "") == module.__name__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_entry_has_a_signature_and_a_docstring(page, monkeypatch):
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")  # as importing scikit-learn does, and leaves it
    for full in reference.names_in(page.read_text()):
        module, _, name = full.rpartition(".")
        if module == "minidl.sklearn":
            pytest.importorskip("sklearn")
        text = reference.entry(module, name)
        assert f":: {name}" in text or f".{name}" in text
        assert " at 0x" not in text
        assert reference.docstring(reference.find(module, name)), full


def test_only_backticks_mean_something():
    assert reference.safe("|x| is *args, `a*b`, x_ and x_y") == r"\|x\| is \*args, `a*b`, x\_ and x_y"
