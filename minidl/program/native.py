"""Elementwise groups as C: generated from the primitives' expressions, built once, kept in a cache.

The same expressions from which CUDA kernels are generated are valid C. A group becomes one loop: every
array is read once and written once, and everything in between stays in registers. This is an option
(``compile(..., kernels="c")``) for machines with a C compiler; nothing depends on it.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy

from minidl import files
from minidl.program.program import Group, Instruction, Value

_C_TYPES = {
    "float32": "float",
    "float64": "double",
    "int64": "int64_t",
    "int32": "int32_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
}
_FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
_HEADER = """\
#include <stdint.h>
#if defined(__GLIBC__) || defined(__linux__)
/* glibc's libmvec has vector forms of these. */
__attribute__((simd("notinbranch"))) float expf(float);
__attribute__((simd("notinbranch"))) float logf(float);
__attribute__((simd("notinbranch"))) float log1pf(float);
__attribute__((simd("notinbranch"))) float tanhf(float);
__attribute__((simd("notinbranch"))) float powf(float, float);
#endif
#include <tgmath.h>
#undef abs
/* NaN in either operand comes out, as in NumPy. */
#define max(a, b) ((a) != (a) || (a) > (b) ? (a) : (b))
#define min(a, b) ((a) != (a) || (a) < (b) ? (a) : (b))
#define abs(a) ((a) < 0 ? -(a) : (a))
"""


class Unsupported(Exception):
    """A group that the generator does not handle; NumPy runs it instead."""


@cache
def compiler() -> str | None:
    """Return the path of a C compiler, or None."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


class Kernels:
    """The C functions for the groups of one program.

    Parameters
    ----------
    groups : with the arrays their values lie in
    arrays : the array of every value that a group reads or writes outside of itself
    """

    def __init__(self, groups: list[Group], arrays: dict[Value, numpy.ndarray]):
        self.arguments: dict[int, list[Value]] = {}
        sources: list[str] = []
        for group in groups:
            try:
                outside = list(dict.fromkeys([*group.inputs, *group.outputs]))
                sources.append(_function(f"group_{len(sources)}", group, outside, arrays))
                self.arguments[id(group)] = outside
            except Unsupported:
                continue
        self.arrays = arrays
        self.functions: dict[int, Any] = {}
        if sources:
            library = ctypes.CDLL(str(_built(_HEADER + "\n".join(sources))))
            for number, identity in enumerate(self.arguments):
                function = getattr(library, f"group_{number}")
                function.restype = None
                self.functions[identity] = function

    def call(self, group: Group, rows: slice) -> Callable[[], Any] | None:
        """Return a call that computes some rows of a group, or None if it has no C function."""
        function = self.functions.get(id(group))
        if function is None:
            return None
        pointers = [ctypes.c_void_p(self.arrays[value].ctypes.data) for value in self.arguments[id(group)]]
        return partial(function, ctypes.c_int64(rows.start), ctypes.c_int64(rows.stop), *pointers)


def _function(name: str, group: Group, outside: list[Value], arrays: dict[Value, numpy.ndarray]) -> str:
    """Return the C function of a group: a loop over all elements, or over rows and columns."""
    shape = group.members[0].output.shape
    columns = math.prod(shape[1:])
    flat = all(
        arrays[value].size == 1 or (value.shape == shape and arrays[value].flags.c_contiguous)
        for value in outside
    )
    names: dict[Value, str] = {}
    parameters, body = ["int64_t start", "int64_t stop"], []
    stores = {value: f"p{i}[{_position(arrays[value], shape, flat)}]" for i, value in enumerate(outside)}
    inputs = set(group.inputs)
    for i, value in enumerate(outside):
        kind = _c_type(value.dtype)
        parameters.append(f"{'const ' if value not in group.outputs else ''}{kind} *p{i}")
        if value in inputs:
            names[value] = f"v{len(names)}"
            body.append(f"{kind} {names[value]} = {stores[value]};")
    for member in group.members:
        expression = _expression(member, names)
        names[member.output] = f"v{len(names)}"
        body.append(f"{_c_type(member.output.dtype)} {names[member.output]} = {expression};")
    # Stores come last, so that a new state may lie where the old one was read.
    body += [f"{stores[value]} = {names[value]};" for value in group.outputs]
    lines = "\n        ".join(body)
    if flat or columns == 1:
        loops = f"""
    #pragma GCC ivdep
    for (int64_t r = start * {columns}; r < stop * {columns}; r++) {{
        {lines}
    }}"""
    else:
        loops = f"""
    for (int64_t r = start; r < stop; r++) {{
        #pragma GCC ivdep
        for (int64_t c = 0; c < {columns}; c++) {{
        {lines}
        }}
    }}"""
    return f"void {name}({', '.join(parameters)}) {{{loops}\n}}\n"


def _position(array: numpy.ndarray, shape: tuple[int, ...], flat: bool) -> str:
    """Return the index expression of an element in row r and column c of the group's shape."""
    if array.size == 1:
        return "0"
    if flat:
        return "r"
    full = numpy.broadcast_to(array, shape) if array.shape != shape else array
    if any(stride % array.itemsize for stride in full.strides):
        raise Unsupported
    strides = [stride // array.itemsize for stride in full.strides]
    if len(shape) > 2:  # the axes behind the first must be walked as one
        for axis in range(1, len(shape) - 1):
            if shape[axis] > 1 and strides[axis] != strides[axis + 1] * shape[axis + 1]:
                raise Unsupported
    return f"r * {strides[0]}" if math.prod(shape[1:]) == 1 else f"r * {strides[0]} + c * {strides[-1]}"


def _expression(member: Instruction, names: dict[Value, str]) -> str:
    """Return a member's expression with its arguments' names put in, and its attributes as numbers."""
    template = member.primitive.cuda
    if template is None:
        raise Unsupported
    kind = _c_type(member.output.dtype)
    attributes = {
        name: _c_type(numpy.dtype(value)) if name == "dtype" else f"(({kind}) {float(value)!r})"
        for name, value in member.attributes.items()
    }
    if member.name == "cast" and member.output.dtype.kind == "b":
        template = "x != 0"
    parameters = list(inspect.signature(member.primitive.forward).parameters)[1:]
    arguments = dict(zip(parameters, (names[value] for value in member.inputs), strict=False))
    filled = template.format(**attributes) if attributes else template
    return re.sub(r"[A-Za-z_]\w*", lambda match: arguments.get(match.group(), match.group()), filled)


def _c_type(dtype: numpy.dtype) -> str:
    if dtype.name not in _C_TYPES:
        raise Unsupported
    return _C_TYPES[dtype.name]


def _built(source: str) -> Path:
    """Return the shared library of a source, from the cache or built now."""
    program = compiler()
    if program is None:
        raise RuntimeError(
            "kernels='c' needs a C compiler (cc, gcc or clang) on the PATH; kernels='numpy' needs none"
        )
    key = hashlib.sha256("\0".join([source, program, *_FLAGS, _processor()]).encode()).hexdigest()[:24]
    folder = files.cache_folder()
    library = folder / f"kernels-{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with files.replacing(library) as temporary:
        written = temporary.with_suffix(".c")
        try:
            written.write_text(source)
            link = ["-lmvec", "-lm"] if os.uname().sysname == "Linux" else []
            subprocess.run(
                [program, *_FLAGS, str(written), "-o", str(temporary), *link],
                check=True,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"the C compiler refused a generated kernel:\n{error.stderr}") from error
        finally:
            written.unlink(missing_ok=True)
    return library


@cache
def _processor() -> str:
    """Return what tells processors apart, because the code is made for the one it is built on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return " ".join(os.uname())
    return "".join(line for line in lines[:30] if line.startswith(("model name", "flags")))
