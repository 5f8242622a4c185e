"""What forward does with its inputs: it must not overwrite them, nor mix observations in evaluation."""

from __future__ import annotations

import numpy

from minidl.checks.layer_run import SEVERAL, LayerRun, Problem, Skip
from minidl.checks.rows.sizes import is_penalty
from minidl.checks.rows.values import difference, near
from minidl.tensor import tensor


def inputs_left_alone(run: LayerRun) -> None:
    """inputs are left alone"""
    for training in (False, True):
        inputs = run.observations()
        before = [x.numpy() for x in inputs]
        run.outputs(inputs, training)
        for i, (x, values) in enumerate(zip(inputs, before, strict=True)):
            run.compared += values.size
            if not numpy.array_equal(x.numpy(), values, equal_nan=x.dtype.kind == "f"):
                raise Problem(
                    f"forward overwrites its input {i}: compute a new array (x * 2, not x.data *= 2)"
                )


def independence(run: LayerRun) -> None:
    """observations are independent in evaluation"""
    axis = run.several()
    run.layer.astype("float64")
    inputs = run.observations(dtype="float64")
    together = run.outputs(inputs)
    for place in range(SEVERAL):
        part = [tensor(numpy.take(x.numpy(), [place], axis), device=x.device) for x in inputs]
        for i, (y, alone) in enumerate(zip(together, run.outputs(part), strict=True)):
            if len(together) > 1 and is_penalty(y, alone):
                continue
            here = numpy.take(y.numpy(), [place], axis)
            if here.shape != alone.shape:
                raise Skip("output sizes do not follow the observations")
            run.compared += here.size
            if not near(here, alone.numpy(), 1e-8):
                raise Problem(
                    f"output {i} of observation {place} differs by "
                    f"{difference(here, alone.numpy()):.2g} from "
                    f"what it is without the other {SEVERAL - 1}: something is computed over the batch (a "
                    f"mean, a softmax along axis {axis}), or a place in the batch is fixed"
                )
