"""The C statements of softmax, log_softmax and logsumexp: line by line, while a line is in cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from minidl.program.cpu.c_code import CSource
from minidl.program.cpu.loops import c_type, index, loop, smaller
from minidl.program.cpu.reductions import SUM_RUN
from minidl.program.cpu.statements import fill_statement
from minidl.program.expressions import Unsupported
from minidl.program.plan.strides import Axis, element_strides, merged_axes, walk

#: Largest elements that are found side by side.
LANES = 16


def softmax_statement(
    source: CSource, name: str, x: numpy.ndarray, axis: Sequence[int], out: numpy.ndarray
) -> str:
    """Return the loops of softmax, log_softmax or logsumexp (``name``) over axes.

    Raises
    ------
    Unsupported
        The numbers are no float32 or float64, or the axes are not one line in memory.
    """
    if x.dtype != out.dtype or x.dtype.name not in ("float32", "float64"):
        raise Unsupported(f"{name} of {x.dtype}")
    if x.size == 0:
        return fill_statement(source, out, -numpy.inf) if name == "logsumexp" else ";"
    kind, keep = c_type(x.dtype), [i for i in range(x.ndim) if i not in axis]
    of_x = element_strides(x)
    if name == "logsumexp":
        results = out if out.ndim == len(keep) else out.squeeze(tuple(axis))
        of_out = dict(zip(keep, element_strides(results), strict=True)) | dict.fromkeys(axis, 0)
    else:
        results, of_out = out, dict(enumerate(element_strides(out)))
    kept = walk([x.shape[i] for i in keep], [[of_x[i] for i in keep], [of_out[i] for i in keep]])
    line = merged_axes([Axis(x.shape[i], (of_x[i], of_out[i])) for i in axis]) or [Axis(1, (0, 0))]
    if len(line) > 1:
        raise Unsupported(f"{name} over several axes")
    names = [f"k{i}" for i in range(len(kept))]
    loops = " ".join(loop(k, str(a.length)) for k, a in zip(names, kept, strict=True))
    return (
        f"{{ {kind} *x = {source.address(x)}, *y = {source.address(results)};\n"
        f"    {loops} {{\n"
        f"    {kind} *from = x + {index(names, kept, 0)}, *to = y + {index(names, kept, 1)};\n"
        f"{_line(name, kind, line[0])}    }} }}"
    )


def _line(name: str, kind: str, line: Axis) -> str:
    """Return the statements for one line, from ``from`` to ``to``."""
    n, whole = line.length, line.length // LANES * LANES
    element, result = f"from[c * {line.strides[0]}]", f"to[c * {line.strides[1]}]"
    each = loop("c", str(n))
    keeps = f"{result} = e; " if name == "softmax" else ""
    guard = (
        "t = t - t == t - t ? t : 0;" if name == "logsumexp" else ""
    )  # what is not finite is not subtracted
    independent = "INDEPENDENT"
    last = {
        "softmax": f"{independent} {each} {result} /= total;",
        "log_softmax": f"total = log(total);\n    {independent} {each} {result} = {element} - t - total;",
        "logsumexp": "to[0] = log(total) + t;",
    }[name]
    return (
        f"    {kind} u[{LANES}], t = from[0];\n"
        f"    {loop('l', str(LANES))} u[l] = t;\n"
        f"    {loop('b', str(whole), step=LANES)} {loop('l', str(LANES))}\n"
        f"    u[l] = max(from[(b + l) * {line.strides[0]}], u[l]);\n"
        f"    {loop('c', str(n), str(whole))} t = max({element}, t);\n"
        f"    {loop('l', str(LANES))} t = max(u[l], t);\n"
        f"    {guard} double sum = 0;\n"
        f"    {loop('q', str(n), step=SUM_RUN)} {{ {kind} s = 0;\n"
        f"    #pragma omp simd reduction(+:s)\n"
        f"    {loop('c', smaller(f'q + {SUM_RUN}', n), 'q')} {{\n"
        f"    {kind} e = exp({element} - t); {keeps}s += e; }}\n"
        f"    sum += s; }}\n"
        f"    {kind} total = sum;\n"
        f"    {last}\n"
    )
