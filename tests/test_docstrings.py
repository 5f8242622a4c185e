"""The examples in docstrings give what they say they give."""

import doctest
import importlib
import pkgutil

import pytest

import minidl

MODULES = ["minidl", *(module.name for module in pkgutil.walk_packages(minidl.__path__, "minidl."))]
EXAMPLES = {
    found.name: found
    for name in MODULES
    for found in doctest.DocTestFinder().find(importlib.import_module(name))
    if found.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name):
    printed = []
    EXAMPLES[name].globs["__name__"] = "__main__"  # for a user types them, and compile() takes them as such
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    results = runner.run(EXAMPLES[name], out=printed.append, clear_globs=False)
    assert results.attempted
    assert not results.failed, "".join(printed)


def test_the_examples_are_found():
    assert {"minidl.training.trainer.Trainer", "minidl.layers.layer.Layer"} <= set(EXAMPLES)
