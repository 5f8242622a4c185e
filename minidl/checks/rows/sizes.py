"""Whether a layer computes, for one observation and for several, and the sizes of its outputs."""

from __future__ import annotations

from minidl.checks.layer_run import SEVERAL, LayerRun, Problem
from minidl.checks.rows.values import listed
from minidl.tensor import Tensor


def one_observation(run: LayerRun) -> None:
    """one observation"""
    _computes(run, 1)


def several_observations(run: LayerRun) -> None:
    """several observations"""
    run.several()
    _computes(run, SEVERAL)


def _computes(run: LayerRun, observations: int) -> None:
    for training in (False, True):
        inputs = run.examples.batch(observations)
        try:
            run.outputs(inputs, training)
        except Problem:
            raise
        except Exception as error:
            shapes = " and ".join(str(x.shape) for x in inputs)
            mode = "training" if training else "evaluation"
            raise Problem(f"inputs of shape {shapes} in {mode}: {type(error).__name__}: {error}") from error


def output_sizes(run: LayerRun) -> str | None:
    """output sizes"""
    one = run.outputs(run.examples.batch(1))
    several = run.outputs(run.observations())
    run.rewind()  # now with the larger batch first
    run.outputs(run.observations())
    again = [y.shape for y in run.outputs(run.examples.batch(1))]
    if again != [y.shape for y in one]:
        raise Problem(
            f"one observation gives {listed([y.shape for y in one])}, and {listed(again)} after a larger "
            "batch: forward keeps a size from an earlier call"
        )
    for observations, outputs in ((1, one), (SEVERAL, several)):
        trained = [y.shape for y in run.outputs(run.examples.batch(observations), training=True)]
        predicted = [y.shape for y in outputs]
        common = min(len(predicted), len(trained))  # an auxiliary output may be there in one mode alone
        if predicted[:common] != trained[:common]:
            raise Problem(f"{listed(predicted)} in evaluation, {listed(trained)} in training")
    axis = run.axis
    if axis is None:
        return None
    if len(one) != len(several):
        raise Problem(f"{len(one)} output(s) for one observation, {len(several)} for several")
    single = []
    for i, (alone, together) in enumerate(zip(one, several, strict=True)):
        if len(several) > 1 and is_penalty(together, alone):
            single.append(i)
            continue
        for observations, y in ((1, alone), (SEVERAL, together)):
            if len(y.shape) <= axis or y.shape[axis] != observations:
                raise Problem(
                    f"{observations} observation(s) give output {i} of shape {y.shape}: axis {axis} "
                    f"must have length {observations}"
                )
    shapes = [
        [_without(y.shape, axis) for i, y in enumerate(outputs) if i not in single]
        for outputs in (one, several)
    ]
    if shapes[0] != shapes[1]:
        raise Problem(f"each observation gives {listed(shapes[0])} alone, {listed(shapes[1])} in a batch")
    return f"output {', '.join(map(str, single))}: one for the whole batch" if single else None


def is_penalty(together: Tensor, alone: Tensor) -> bool:
    """Return whether an output beside others belongs to the whole batch: a penalty, or statistics."""
    return together.shape == alone.shape and (together.ndim == 0 or not together.requires_grad)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
