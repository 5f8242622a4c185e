"""Loss and metrics over all mini-batches of a data set."""

from __future__ import annotations

from typing import Any

from minidl import devices
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.tensor import Tensor
from minidl.training.bars import with_bar
from minidl.training.exclusive import using
from minidl.training.loaders import Loader
from minidl.training.metric_averages import MetricAverages, PendingFigures
from minidl.training.steps import CompiledSteps


def evaluate(
    steps: CompiledSteps, loader: Loader, verbose: bool = False, compiled_size: int | None = None
) -> dict[str, float]:
    """Return the loss and the metrics over the mini-batches of a loader, in evaluation mode.

    A `Metric` is averaged over the mini-batches; another function gets all predictions at once. With
    ``compiled_size``, only mini-batches of this size use a compiled step: others are too rare for one.
    """
    averaged = {name: metric for name, metric in steps.metrics.items() if isinstance(metric, Metric)}
    averages = MetricAverages(averaged)
    kept: list[tuple[Any, ...]] = []
    pending = PendingFigures()
    with using(steps.network, "evaluate"), steps.network.evaluating():
        batches = steps.uploaded(loader.epoch(1))
        for inputs, targets, *weights in with_bar(batches, loader.steps, "evaluating", verbose):
            is_rare = compiled_size is not None and len(targets[0]) != compiled_size
            step = steps.plain_evaluation_step if is_rare else steps.evaluation_step
            loss, observed, outputs = step(inputs, targets, *weights)
            pending.append(len(targets[0]), [loss, *observed])
            if outputs:
                kept.append((*(x.data for x in outputs), *targets))
            if pending.are_due():
                _add(pending, averages)
    _add(pending, averages)
    figures = averages.figures()
    if kept:
        whole = {name: metric for name, metric in steps.metrics.items() if name not in averaged}
        figures |= _of_all_predictions(whole, kept)
    return {name: figures[name] for name in ("loss", *steps.metrics)}


def _add(pending: PendingFigures, averages: MetricAverages) -> None:
    for observations, means in pending.fetch():
        averages.add(observations, means)


def _of_all_predictions(metrics: dict[str, Any], kept: list[tuple[Any, ...]]) -> dict[str, float]:
    """Return the figures of metrics that take the predictions and targets of all mini-batches at once."""
    xp = devices.array_module(kept[0][0])
    with devices.current(kept[0][0]):
        everything = [Tensor(xp.concatenate(parts)) for parts in zip(*kept, strict=True)]
    with no_grad():
        return {name: metric(*everything).item() for name, metric in metrics.items()}
