"""Fit: one training as it runs - its steps, validations, checkpoints, and what is shown of it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import numpy

from minidl import devices
from minidl.errors import DivergenceError
from minidl.optimizers.full_batch import FullBatchOptimizer
from minidl.tensor import Tensor
from minidl.training.capture import capture, checkpoint_of, resume
from minidl.training.divergence import find_cause, has_finite_weights
from minidl.training.evaluation import evaluate
from minidl.training.history import History
from minidl.training.history_tables import append
from minidl.training.interrupt import stop_on_interrupt
from minidl.training.live_plot import LivePlot
from minidl.training.loaders import ArrayLoader, Loader, observation_count, share_of
from minidl.training.normalization import fit_normalization
from minidl.training.options import Options
from minidl.training.progress import progress_display
from minidl.training.ranks import COMPARE_STEPS, SharedFolder, agreed_reason, require_mean
from minidl.training.run_state import RunState, Watcher
from minidl.training.steps import CompiledSteps

#: How many steps at most are repeated to find where a training went wrong.
SNAPSHOT_STEPS = 500


class Fit(RunState):
    """One training as it runs; RunState describes the attributes that callbacks read."""

    def __init__(
        self,
        trainer: CompiledSteps,
        loader: Loader,
        validation: Loader | None,
        options: Options,
        callbacks: list[Callable[[Fit], Any]],
    ):
        if options.objective not in ("loss", *trainer.metrics):
            known = ", ".join(("loss", *trainer.metrics))
            raise ValueError(f"objective must be one of {known}; got {options.objective!r}")
        if options.output_network == "best" and validation is None:
            raise ValueError("output_network='best' needs validation_data")
        super().__init__(trainer, loader, validation, options)
        self.callbacks = callbacks
        self.live_plot = LivePlot() if options.plot is True else None
        self.folder = (
            None
            if options.checkpoint_folder is None
            else SharedFolder(options.checkpoint_folder, options.keep_checkpoints, trainer.ranks)
        )
        self._checkpointed = -1
        self._best_written: int | None = None
        self.is_checked = False  # whether the loss is one for parts of mini-batches

    # --- the course of a training -----------------------------------------------------------------

    def run(self) -> History:
        """Train; return what happened."""
        self.trainer.ranks.synchronize(self.network, self.trainer.optimizer)
        refit = self.options.normalization == "all"
        batches = lambda: (self.trainer.prepared(inputs)[0] for inputs, _ in self.loader.extra_pass())
        fit_normalization(self.network, batches, refit)
        if self.folder is not None:
            self._resume(self.folder)
        if self.options.verbose:
            self.display = progress_display(self.options.verbose_frequency)
        with (
            self.network.evaluating(),
            stop_on_interrupt(self.trainer.ranks.is_first) as self.request,
        ):  # modes come back as they were
            self.network.train()
            for watcher in self._watchers():
                watcher.start(self)
            try:
                self._run_callbacks("start")
                self.snapshot = capture(self)
                self._all_steps()
                self._finish()
            except FloatingPointError:
                self._history.stop_reason = "diverged"
                raise
            finally:
                for watcher in self._watchers():
                    watcher.end(self)
                if not isinstance(self.options.plot, bool):
                    self._write_plot(self.options.plot)
        self._run_callbacks("end")
        return self.history

    def _all_steps(self) -> None:
        if self.trainer.optimizer.full_batch:
            self._minimize()
            return
        while self.epoch <= self.options.epochs and not self._must_stop():
            for inputs, targets in self.trainer.uploaded(self.loader.epoch(self.epoch, self.position)):
                self._train(inputs, targets)
                if self._must_stop():
                    return
            self._end_epoch()

    def _train(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
        if not len(targets) or not observation_count(targets):
            raise ValueError(f"the mini-batch of step {self.step + 1} is empty")
        if not self.is_checked:
            self._check_loss(inputs, targets)
        loss, observed, rate = self.trainer.train(inputs, targets)
        end_of_epoch = self.position + 1 == self.loader.steps
        self._after_step(observation_count(targets), [loss, *observed, rate], end_of_epoch)
        if self.step - self.snapshot.values["step"] >= SNAPSHOT_STEPS:
            self._require_finite_weights()
            self.snapshot = capture(self)

    def _check_loss(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
        """Refuse a loss that several processes cannot compute in parts."""
        self.is_checked = True
        if share_of(targets) is not None:
            with self.network.evaluating():
                outputs = lambda: self.trainer.plain_prediction_step(tuple(inputs))
                require_mean(self.trainer.ranks, self.trainer.loss, outputs, targets)

    def _must_stop(self) -> bool:
        """Return whether to stop, which all processes do after the same step."""
        reason = agreed_reason(self.trainer.ranks, self.request.reason)
        self.request.reason = self.request.reason or reason  # Ctrl-C may have come meanwhile
        return bool(reason)

    def _minimize(self) -> None:
        """Train on all data at once; the optimizer decides where it needs the loss and its gradient."""
        optimizer = self.trainer.optimizer
        assert isinstance(optimizer, FullBatchOptimizer)
        if not isinstance(self.loader, ArrayLoader):
            raise TypeError(
                f"{type(optimizer).__name__} trains on all data at once: pass arrays, not an iterable of "
                "mini-batches"
            )
        inputs, targets = self.trainer.prepared(*self.loader.everything())
        observed: list[Tensor] = []

        def closure() -> Tensor:
            loss: Tensor
            loss, observed[:] = self.trainer.gradients(inputs, targets)
            return loss

        def after_step(loss: float) -> bool:
            self._after_step(observation_count(targets), [Tensor(numpy.asarray(loss)), *observed])
            return self._must_stop()

        self._history.stop_reason = optimizer.minimize(closure, after_step)

    def _after_step(self, observations: int, figures: list[Tensor], end_of_epoch: bool = False) -> None:
        self.count_step(observations, figures)
        if self.step % COMPARE_STEPS == 0:
            self.trainer.ranks.require_equal(self.network, self.trainer.optimizer)
        if self.validation is not None and _due(self.options.validation_frequency, self.step, end_of_epoch):
            self._validate(self.validation)
        self._run_callbacks("step")
        for watcher in self._watchers():
            watcher.step(self)
        if self.folder is not None and _due(self.options.checkpoint_frequency, self.step, False):
            self._write_checkpoint(self.folder)

    def _end_epoch(self) -> None:
        self.flush()
        if not self.position:
            raise ValueError(f"the data gave no mini-batches in epoch {self.epoch}")
        row = {"epoch": self.epoch, "step": self.step, **self.epoch_averages.figures()}
        append(self._history.epochs, row | {"seconds": time.monotonic() - self.started})
        if self.validation is not None and self.options.validation_frequency == "epoch":
            self._validate(self.validation)
        self.epoch_averages.clear()
        self.epoch, self.position = self.epoch + 1, 0
        if self.folder is not None and self.options.checkpoint_frequency == "epoch":
            self._write_checkpoint(self.folder)

    def _finish(self) -> None:
        self._require_finite_weights()
        self.trainer.ranks.require_equal(self.network, self.trainer.optimizer)
        history = self._history
        if self.folder is not None and self._checkpointed != self.step:
            self._write_checkpoint(self.folder)  # before a validation that a longer training would not make
        if self.validation is not None:
            self._validate(self.validation)
            if self.folder is not None:
                self._write_best(self.folder)
        history.stop_reason = self.request.reason or history.stop_reason or "all epochs completed"
        self._return_weights()

    def _return_weights(self) -> None:
        if self.options.output_network != "last" and self.best:
            for name, x in self.network.named_tensors():
                x.assign(Tensor(self.best[name]))
            self._history.returned = "best"

    def _watchers(self) -> list[Watcher]:
        return [self.display] if self.live_plot is None else [self.display, self.live_plot]

    def _run_callbacks(self, state: str) -> None:
        self.state = state
        for callback in self.callbacks:
            if callback(self):
                self.stop()

    # --- validation -------------------------------------------------------------------------------

    def _validate(self, loader: Loader) -> None:
        if self.validated == self.step:
            return
        self.flush()
        self.validated = self.step
        figures = evaluate(self.trainer, loader, ranks=self.trainer.ranks)
        append(self._history.validation, {"step": self.step, **figures})
        if math.isnan(figures["loss"]):  # infinity can be right: a certain prediction that is wrong
            self.diverged(self.step + 1, figures["loss"], "validation loss")
        metric = self.trainer.metrics.get(self.options.objective)
        value = figures[self.options.objective] * (-1 if getattr(metric, "larger_is_better", False) else 1)
        if value < self.best_value:
            self.best_value, self.unimproved = value, 0
            self.best = {name: devices.copy(x.data) for name, x in self.network.named_tensors()}
            self._history.best_step = self.step
        else:
            self.unimproved += 1
            if self.unimproved >= self.options.validation_patience:
                self.stop(f"no better validation {self.options.objective} {self.unimproved} times in a row")

    # --- checkpoints ------------------------------------------------------------------------------

    def _write_checkpoint(self, folder: SharedFolder) -> None:
        self._require_finite_weights()
        if self.trainer.ranks.is_first:
            with self._writing("checkpoint"):
                folder.write(self.step, checkpoint_of(self))
        self._write_best(folder)
        self._checkpointed = self.step

    def _write_best(self, folder: SharedFolder) -> None:
        if self._history.best_step != self._best_written:
            with self._writing("best network"):
                folder.write_best({name: devices.to_numpy(array) for name, array in self.best.items()})
            self._best_written = self._history.best_step

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turn a disk that fails into a warning: it must not cost the training."""
        try:
            yield
        except OSError as error:
            warnings.warn(
                f"the {what} of step {self.step} could not be written: {error}; training goes on, "
                "earlier files are unchanged",
                stacklevel=2,
            )

    def _write_plot(self, path: str | PathLike[str]) -> None:
        """Write the plot; a failure is a warning, and replaces neither the History nor an error."""
        try:
            self.history.plot(path)
        except Exception as error:
            warnings.warn(f"the plot {fspath(path)!r} could not be written: {error}", stacklevel=2)

    def _resume(self, folder: SharedFolder) -> None:
        newest = folder.newest()
        if newest is None:
            return
        if not self.options.resume:
            raise ValueError(
                f"{folder.path} holds checkpoints of an earlier training: pass resume=True to resume from "
                f"{newest.name}, or choose another folder"
            )
        optimizer = self.trainer.optimizer
        if optimizer.full_batch:
            raise ValueError(
                f"a training by {type(optimizer).__name__} cannot be resumed: checkpoints do not hold what "
                "its search has learned about the curvature"
            )
        self._history = resume(self, newest)
        self.started -= self._history.seconds
        self._checkpointed = self.step

    # --- divergence -------------------------------------------------------------------------------

    def _require_finite_weights(self) -> None:
        """Refuse weights that the last update made infinite or NaN: a finite loss can have such gradients."""
        self.flush()
        if not has_finite_weights(self.trainer.optimizer):
            self.diverged(self.step + 1, math.nan, "weights")

    def diverged(self, step: int, loss: float, what: str = "loss") -> None:
        """Give the network its last good weights, and raise an error that explains what happened."""
        epoch, mini_batch = self.epoch, self.position - (self.step - step)
        cause = find_cause(self, self.snapshot, step)  # which sets the training back
        self._return_weights()
        weights = (
            f"the best weights, of step {self._history.best_step}"
            if self._history.returned == "best"
            else f"its last good weights, of step {self.step}"
        )
        raise DivergenceError(
            f"the {what} became {loss} at step {step} (epoch {epoch}, mini-batch {mini_batch}): "
            f"{cause}. The network has {weights}. A lower learning rate or clipped gradients "
            "(clip_global_norm) may help",
            step,
            self._history,
        )


def _due(frequency: int | str, step: int, end_of_epoch: bool) -> bool:
    return end_of_epoch if frequency == "epoch" else step % int(frequency) == 0
