"""Whether the Parameters that forward uses are listed, and are Parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from minidl.checks.layer_run import LayerRun, Problem
from minidl.checks.rows.values import listed
from minidl.tensor import Parameter, Tensor


def parameters_found(run: LayerRun) -> str | None:
    """every Parameter is found"""
    started = Tensor(numpy.empty(0)).created_at
    known = {id(p) for p in run.layer.parameters()}
    names = {id(x): name for name, x in run.layer.named_tensors()}
    for training in (True, False):
        leaves = _leaves_behind(run.outputs(run.observations(), training))
        hidden = [p for p in leaves if isinstance(p, Parameter) and id(p) not in known]
        if hidden:
            raise Problem(
                f"forward uses {len(hidden)} Parameter(s) that parameters() does not list, of shape "
                f"{listed([p.shape for p in hidden])}: keep them as attributes, or in lists, tuples or "
                "dicts of "
                "them, and make them in __init__"
            )
        for x in leaves:
            if not isinstance(x, Parameter) and x.created_at < started:
                raise Problem(
                    f"{names.get(id(x), 'a Tensor')} of shape {x.shape} requires a gradient, but is no "
                    "Parameter, so no optimizer trains it: make it with dl.Parameter(...)"
                )
    return f"{len(known)} found" if known else "there are none"


def _leaves_behind(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the leaves from which results were computed."""
    seen: dict[int, Tensor] = {}
    waiting = list(outputs)
    while waiting:
        x = waiting.pop()
        if id(x) not in seen and x.requires_grad:
            seen[id(x)] = x
            waiting.extend(x.inputs or ())
    return [x for x in seen.values() if x.primitive is None]
