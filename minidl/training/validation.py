"""Validation: measures the network now and then, keeps the best one, and ends what gets no better."""

from __future__ import annotations

import math
from collections.abc import Iterator

from minidl import devices
from minidl.random.generator import Generator, default_generator
from minidl.tensor import Tensor
from minidl.training.callbacks import Callback
from minidl.training.evaluation import evaluate
from minidl.training.history_tables import append
from minidl.training.loaders import Loader
from minidl.training.options import due
from minidl.training.run_state import RunState


class Validation(Callback):
    """Measures the network after a number of steps or at the end of each epoch, and keeps the best one."""

    def start(self, run: RunState) -> None:
        """Try the first mini-batch: what does not fit is an error now, not after many steps."""
        self._stop_if_no_better(run)  # of a training that had ended for this reason, and is resumed
        if run.validation is None or run.validation.is_used_up_by_reading:
            return
        generators = {id(g): (g, g.state_dict()) for g in _generators(run)}
        try:
            with run.network.evaluating():
                for batch in run.validation.epoch(1):
                    run.trainer.plain_evaluation_step(*run.trainer.prepared(*batch))
                    break
        except (ValueError, TypeError) as error:
            raise ValueError(f"the validation data do not fit: {error}") from error
        for generator, state in generators.values():
            generator.load_state_dict(state)

    def step(self, run: RunState) -> None:
        """Validate if it is time."""
        if run.validation is not None and due(run.options.validation_frequency, run.step):
            self.validate(run, run.validation)

    def epoch(self, run: RunState) -> None:
        """Validate if that is done at the end of each epoch."""
        if run.validation is not None and run.options.validation_frequency == "epoch":
            self.validate(run, run.validation)

    def validate(self, run: RunState, loader: Loader) -> None:
        """Measure the network, unless that was done after this step already."""
        if run.validated == run.step:
            return
        history = run.history
        run.validated = run.step
        figures = evaluate(run.trainer, loader, ranks=run.trainer.ranks)
        append(history.validation, {"step": run.step, **figures})
        if math.isnan(figures["loss"]):  # infinity can be right: a certain prediction that is wrong
            run.diverged(run.step + 1, figures["loss"], "validation loss")
        metric = run.trainer.metrics.get(run.options.objective)
        value = figures[run.options.objective] * (-1 if getattr(metric, "larger_is_better", False) else 1)
        if value < run.best_value:
            run.best_value, run.unimproved = value, 0
            run.best = {name: devices.copy(x.data) for name, x in run.network.named_tensors()}
            history.best_step = run.step
        else:
            run.unimproved += 1
            self._stop_if_no_better(run)
        run.at("validation")

    @staticmethod
    def _stop_if_no_better(run: RunState) -> None:
        if run.validation is not None and run.unimproved >= run.options.validation_patience:
            run.stop(f"no better validation {run.options.objective} {run.unimproved} times in a row")


def return_best(run: RunState) -> None:
    """Give the network its best weights, if that is asked for and there are some."""
    if run.validation is not None and run.options.output_network != "last" and run.best:
        for name, x in run.network.named_tensors():
            x.assign(Tensor(run.best[name]))
        run.history.returned = "best"


def _generators(run: RunState) -> Iterator[Generator]:
    yield default_generator
    for _, generator in run.network.named_generators():
        yield generator
