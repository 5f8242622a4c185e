"""How the zoo is written down: a right layer is a factory; a mistake is an edit of the source of one.

A factory takes a seed and returns a layer. ``@right(shape)`` notes the shape of one observation, or an
example input, and options of check_layer. The classes between one factory and the next belong to the next.
"""

import ast
import importlib
import itertools
import linecache
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy

import minidl as dl

_mutants = itertools.count()


@dataclass
class Case:
    shape: object
    options: dict = field(default_factory=dict)


def right(shape, **options):
    def keep(factory):
        factory.case = Case(shape, options)
        return factory

    return keep


def weight(rng, *shape):
    """Return a Parameter of typical size."""
    fan_in = int(numpy.prod(shape[:-1])) or 1
    return dl.Parameter(rng.normal(size=shape).astype("float32") / numpy.sqrt(fan_in).astype("float32"))


@cache
def modules():
    """Return the modules of the zoo by name."""
    folder = Path(__file__).parent
    names = [m.name for m in pkgutil.iter_modules([str(folder)]) if m.name not in ("registry", "mistakes")]
    return {name: importlib.import_module(f"tests.checks.zoo.{name}") for name in names}


@cache
def layers():
    """Return every factory by name."""
    found = {}
    for module in modules().values():
        for name, factory in vars(module).items():
            if hasattr(factory, "case") and factory.__module__ == module.__name__:
                assert name not in found, f"two layers named {name}"
                found[name] = factory
    return found


@cache
def _blocks(path):
    """Return the lines of each factory of a file, and of the classes that belong to it."""
    text = Path(path).read_text()
    blocks, start = {}, None
    for node in ast.parse(text).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        start = first if start is None else start
        is_factory = isinstance(node, ast.FunctionDef) and any(
            getattr(getattr(d, "func", None), "id", "") == "right" for d in node.decorator_list
        )
        if is_factory:
            blocks[node.name] = (start - 1, node.end_lineno)
            start = None
    return text, blocks


def mutant(name, old, new):
    """Return the factory of a layer after an edit: ``old``, which is there once, becomes ``new``."""
    module = importlib.import_module(layers()[name].__module__)
    text, blocks = _blocks(module.__file__)
    lines = text.splitlines(keepends=True)
    start, end = blocks[name]
    block = "".join(lines[start:end])
    assert block.count(old) == 1, f"{name}: {old!r} is there {block.count(old)} times"
    source = "".join(lines[:start]) + block.replace(old, new) + "".join(lines[end:])
    filename = f"{name}_mutant_{next(_mutants)}.py"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = {"__name__": f"mutant.{name}", "__file__": filename}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[name]
