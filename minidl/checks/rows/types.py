"""The types of outputs and gradients, in float32, float64 and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from minidl import devices
from minidl.checks.gradients import check_gradients
from minidl.checks.layer_run import LayerRun, Problem, Skip
from minidl.checks.rows.values import difference, near
from minidl.tensor import Tensor


def output_types(run: LayerRun) -> None:
    """output types"""
    _check_types(run, run.observations())


def _check_types(run: LayerRun, inputs: Sequence[Tensor]) -> None:
    dtypes = {x.dtype for x in (*inputs, *run.layer.parameters()) if x.dtype.kind == "f"}
    device = inputs[0].device
    for training in (False, True):
        for i, y in enumerate(run.outputs(inputs, training)):
            if y.device != device:
                raise Problem(f"output {i} is on {y.device}, the inputs on {device}: forward moves data")
            if y.dtype.kind == "f" and dtypes and y.dtype not in dtypes:
                given = " and ".join(map(str, dtypes))
                raise Problem(
                    f"output {i} is {y.dtype} where inputs and Parameters are {given}: forward brings in "
                    "a NumPy array or Tensor of another dtype, or converts to a fixed one; take x.dtype"
                )


def float32(run: LayerRun) -> None:
    """float32"""
    _in_dtype(run, "float32")


def float64(run: LayerRun) -> None:
    """float64"""
    _in_dtype(run, "float64")


def _in_dtype(run: LayerRun, dtype: str) -> None:
    inputs = run.observations(dtype=dtype)
    run.layer.astype(dtype)
    _check_types(run, inputs)
    try:
        run.gradients(inputs)
    except (Problem, Skip):
        raise
    except Exception:
        raise Skip("outputs keep the dtype; backward fails, see the gradients") from None


def gpu(run: LayerRun) -> None:
    """GPU"""
    problem = devices.gpu_problem()
    if problem is not None:
        raise Skip(f"no GPU: {problem.partition(';')[0]}")
    expected = run.arrays(run.observations())
    run.layer.to("gpu")
    inputs = [x.to("gpu") for x in run.observations()]
    outputs = run.outputs(inputs)  # first, because the check of types trains, which changes the state
    _check_types(run, inputs)
    for i, (y, value) in enumerate(zip(outputs, expected, strict=True)):
        run.compared += value.size
        if not near(y.numpy(), value, 1e-3):
            raise Problem(f"output {i} differs from the CPU's by {difference(y.numpy(), value):.2g}")
    run.gradients(inputs)
    run.layer.train()
    run.reset(inputs)
    if run.has_gradients(inputs) and not run.wrong_gradients:
        check_gradients(run.layer, *inputs, **(run.options | {"sample": run.options["sample"] or 8}))
