"""Loss and metrics over all mini-batches of a data set."""

from __future__ import annotations

from itertools import islice, zip_longest
from typing import Any

import numpy

from minidl import devices
from minidl.distributed.communicators import Communicator
from minidl.metrics import Metric
from minidl.mode import no_grad
from minidl.random.generator import default_generator
from minidl.tensor import Tensor
from minidl.training.bars import with_bar
from minidl.training.exclusive import using
from minidl.training.loaders import Loader
from minidl.training.metric_averages import MetricAverages, PendingFigures
from minidl.training.ranks import must_see_all
from minidl.training.steps import CompiledSteps


def evaluate(
    steps: CompiledSteps,
    loader: Loader,
    verbose: bool = False,
    compiled_size: int | None = None,
    ranks: Communicator | None = None,
) -> dict[str, float]:
    """Return the loss and the metrics over the mini-batches of a loader, in evaluation mode.

    A `Metric` is averaged over the mini-batches; another function gets all predictions at once. With
    ``compiled_size``, only mini-batches of this size use a compiled step: others are too rare for one.

    Several processes of ``ranks`` take turns: each computes whole mini-batches, and all figures are put
    together in the order of the data, so that their number does not matter.
    """
    if ranks is None or ranks.size == 1 or must_see_all(steps.network):
        return _evaluate(steps, loader, verbose, compiled_size, Communicator())
    own = [generator for _, generator in steps.network.named_generators()]
    generators = list(dict.fromkeys([*own, default_generator]))
    before = [generator.state_dict() for generator in generators]
    figures = _evaluate(steps, loader, verbose, compiled_size, ranks)
    drawn = [generator.state_dict() for generator in generators] != before
    if ranks.any(drawn):  # a network that draws: the draws come one after another
        for generator, state in zip(generators, before, strict=True):
            generator.load_state_dict(state)
        return _evaluate(steps, loader, verbose, compiled_size, Communicator())
    return figures


def _evaluate(
    steps: CompiledSteps, loader: Loader, verbose: bool, compiled_size: int | None, ranks: Communicator
) -> dict[str, float]:
    averaged = {name: metric for name, metric in steps.metrics.items() if isinstance(metric, Metric)}
    done: list[tuple[int, list[numpy.ndarray]]] = []
    kept: list[tuple[Any, ...]] = []
    pending = PendingFigures()
    with using(steps.network, "evaluate"), steps.network.evaluating():
        batches = steps.uploaded(islice(loader.epoch(1), ranks.rank, None, ranks.size))
        for inputs, targets, *weights in with_bar(batches, loader.steps, "evaluating", verbose):
            is_rare = compiled_size is not None and len(targets[0]) != compiled_size
            step = steps.plain_evaluation_step if is_rare else steps.evaluation_step
            loss, observed, outputs = step(inputs, targets, *weights)
            pending.append(len(targets[0]), [loss, *observed])
            if outputs:
                kept.append((*(x.data for x in outputs), *targets))
            if pending.are_due():
                done += pending.fetch()
    averages = MetricAverages(averaged)
    for observations, means in _in_turn(ranks, done + pending.fetch()):
        averages.add(observations, means)
    figures = averages.figures()
    whole = {name: metric for name, metric in steps.metrics.items() if name not in averaged}
    if whole:
        figures |= _of_all_predictions(whole, _in_turn(ranks, kept))
    return {name: figures[name] for name in ("loss", *steps.metrics)}


def _in_turn(ranks: Communicator, own: list[Any]) -> list[Any]:
    """Return what all processes found, in the order of the mini-batches, which they took in turn."""
    if ranks.size == 1:
        return own
    host = [tuple(devices.to_numpy(x) if devices.is_array(x) else x for x in item) for item in own]
    everything = zip_longest(*ranks.gather(host))
    return [item for turn in everything for item in turn if item is not None]


@no_grad()
def _of_all_predictions(metrics: dict[str, Any], kept: list[tuple[Any, ...]]) -> dict[str, float]:
    """Return the figures of metrics that take the predictions and targets of all mini-batches at once."""
    xp = devices.array_module(kept[0][0])
    with devices.current(kept[0][0]):
        everything = [Tensor(xp.concatenate(parts)) for parts in zip(*kept, strict=True)]
    return {name: metric(*everything).item() for name, metric in metrics.items()}
