"""Write operations.md, the table of all operations, from their docstrings: ``python docs/operations.py``."""

import importlib
from pathlib import Path
from types import FunctionType, ModuleType

import minidl
from minidl.primitives.primitive import Primitive

#: The families of operations: a heading, and the module that has them.
FAMILIES = {
    "Arithmetic, exponentials, comparisons, choices": "primitives.elementwise",
    "More functions of elements": "primitives.mathematics",
    "Logic, bits, tests of numbers": "primitives.logic",
    "Activations": "primitives.activations",
    "Reductions": "primitives.reduction",
    "Running sums": "primitives.cumulative",
    "Sorting": "primitives.sorting",
    "Shape, joining, arrangement": "primitives.shape",
    "Indexing, diagonals, triangles": "primitives.indexing",
    "Products": "primitives.linear_algebra",
    "Einstein summation": "primitives.einsum",
    "Square matrices and norms (`minidl.linalg`)": "linalg",
    "Convolution": "primitives.convolution",
    "Windows and pooling": "primitives.windows",
    "Normalisation": "primitives.normalization",
    "Attention": "primitives.attention",
    "Tensors from nothing": "creation",
    "Random numbers (`minidl.random`)": "random.drawing",
    "Gradients": "autodiff",
    "Derivatives of functions": "derivatives",
    "Losses": "losses",
}

INTRODUCTION = """\
# Operations

They have NumPy's names, keywords and meaning, take Tensors, arrays and lists, and give Tensors.
`numpy.f(tensor)` is ours, too; what is not here NumPy computes, if no gradient is asked for. What has a
gradient has gradients of any order, on the CPU and on GPUs, plain and compiled. This page is written by
`python docs/operations.py` from the docstrings.
"""


def page() -> str:
    """Return the page as it should be."""
    sections, listed = [INTRODUCTION], set()
    for heading, name in FAMILIES.items():
        module = importlib.import_module(f"minidl.{name}")
        prefix = {"linalg": "linalg.", "random.drawing": "random."}.get(name, "")
        namespace = getattr(minidl, prefix[:-1]) if prefix else minidl
        rows = []
        for function in sorted(dir(namespace) if namespace is minidl else namespace.__all__):
            value = getattr(namespace, function)
            ours = getattr(module, function, None)
            if value is ours and value not in listed and belongs(value, module):
                if prefix != "linalg.":  # whose functions may stand elsewhere as well
                    listed.add(value)
                rows.append(f"| `{prefix}{function}` | {first_sentence(value)} |")
        sections.append(
            "\n".join([f"## {heading}\n", "| operation | what it does |", "| --- | --- |", *rows, ""])
        )
    return "\n".join(sections)


def belongs(value: object, module: ModuleType) -> bool:
    """Return whether an operation stands in the module that declares it, and not in one that imports it."""
    if isinstance(value, Primitive):
        return True  # which says nothing of its module, but the first that has it declares it
    return isinstance(value, FunctionType) and module.__name__ in (value.__module__, "minidl.linalg")


def first_sentence(function: object) -> str:
    """Return the first line of a docstring, without its full stop, safe in a table."""
    return (function.__doc__ or "").strip().splitlines()[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page())
