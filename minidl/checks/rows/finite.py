"""Whether ordinary inputs give finite outputs and gradients."""

from __future__ import annotations

import numpy

from minidl.checks.layer_run import LayerRun, Problem
from minidl.checks.not_finite import in_forward


def finite_outputs(run: LayerRun) -> str | None:
    """outputs are finite"""
    infinite = 0
    for moved in (False, True):
        if moved:
            run.advance()
        for training in (False, True):
            for observations, stream in ((4, 0), (1, 1)):
                inputs = run.examples.batch(observations, stream)
                for i, y in enumerate(run.arrays(inputs, training)):
                    run.compared += y.size
                    if y.dtype.kind != "f":
                        continue
                    bad = ~numpy.isfinite(y)
                    if not bad.any():
                        continue
                    # Infinities that forward writes by itself are a mask; those of an overflow are none.
                    trace, _ = run.trace(inputs, training)
                    reason = in_forward(trace)
                    if reason is None and numpy.isnan(y).any():
                        reason = in_forward(trace, only_nan=True)
                    if numpy.isnan(y).any() or reason is not None:
                        place = tuple(int(k) for k in numpy.argwhere(bad)[0])
                        mode = "training" if training else "evaluation"
                        always = numpy.isnan(y).all(axis=0).any() if y.ndim > 1 else False
                        raise Problem(
                            f"output {i} is {y[place]} at {place} for {observations} ordinary "
                            "observation(s) in "
                            f"{mode}{', in every observation' if always else ''}"
                            + (f": {reason}" if reason else "")
                        )
                    infinite += int(bad.sum())
                if run.axis is None:
                    break
    return f"{infinite} numbers are infinite, as forward writes them" if infinite else None
