"""The examples in docstrings give what they say they give."""

import doctest
import importlib.util
import inspect
import pkgutil

import pytest

import minidl

#: Modules that need an optional package, and which.
OPTIONAL = {"minidl.sklearn": "sklearn"}
MODULES = [
    name
    for name in ("minidl", *(module.name for module in pkgutil.walk_packages(minidl.__path__, "minidl.")))
    if name not in OPTIONAL or importlib.util.find_spec(OPTIONAL[name])
]


class Finder(doctest.DocTestFinder):
    """Finds examples of functions that are called through a function around them, as public ones are."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


EXAMPLES = {
    found.name: found
    for name in MODULES
    for found in Finder().find(importlib.import_module(name))
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
