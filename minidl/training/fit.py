"""Fit: one training as it runs - its steps, and what happens if they go wrong.

What else is done in the course of it is done by Callbacks: validation, progress, plots, and the user's own.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from minidl.errors import DivergenceError
from minidl.observation_weights import ratio
from minidl.optimizers.full_batch import FullBatchOptimizer
from minidl.random.generator import default_generator
from minidl.tensor import Tensor
from minidl.training.arrays import Arrays, observation_count, share_of
from minidl.training.callbacks import Callback, Unbreakable, as_callbacks
from minidl.training.capture import capture
from minidl.training.checkpointing import Checkpointing
from minidl.training.divergence import advice, find_cause, has_finite_weights
from minidl.training.history import History
from minidl.training.history_tables import append
from minidl.training.interrupt import stop_on_interrupt
from minidl.training.live_plot import live_plot
from minidl.training.loaders import ArrayLoader, Loader
from minidl.training.normalization import fit_normalization
from minidl.training.options import Options
from minidl.training.plot_file import PlotFile
from minidl.training.progress import progress_display
from minidl.training.ranks import COMPARE_STEPS, agreed_reason, require_mean
from minidl.training.run_state import RunState
from minidl.training.steps import CompiledSteps
from minidl.training.validation import Validation, return_best

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
        callbacks: Iterable[Callback | Callable[[Fit], Any]],
    ):
        if options.objective not in ("loss", *trainer.metrics):
            known = ", ".join(("loss", *trainer.metrics))
            raise ValueError(f"objective must be one of {known}; got {options.objective!r}")
        if options.output_network == "best" and validation is None:
            raise ValueError("output_network='best' needs validation_data")
        super().__init__(trainer, loader, validation, options)
        self._validation = Validation()
        if options.verbose:
            self.display = Unbreakable(progress_display(options.verbose_frequency))
        self.live_plot = live_plot() if options.plot is True else None
        self.callbacks = [
            self._validation,
            self.display,
            *([] if self.live_plot is None else [self.live_plot]),
            *as_callbacks(callbacks),
            *([PlotFile(options.plot)] if not isinstance(options.plot, bool) else []),
        ]
        self.checkpoints = Checkpointing(self)
        self._is_checked = False  # whether the loss is one for parts of mini-batches

    def run(self) -> History:
        """Train; return what happened."""
        ranks = self.trainer.ranks
        ranks.synchronize(self.network, self.trainer.optimizer, default_generator)
        with self.checkpoints.locked():
            remarks = self.checkpoints.resume()
            batches = lambda: (self.trainer.prepared(inputs)[0] for inputs, *_ in self.loader.extra_pass())
            fit_normalization(self.network, batches, self.options.normalization == "all" and not self.step)
            with self.network.evaluating(), stop_on_interrupt(self.request, ranks.is_first):
                self.network.train()  # modes come back as they were
                try:
                    self.at("start")
                    for remark in remarks:
                        self.display.say(remark)
                    self.snapshot = capture(self)
                    self._all_steps()
                    self._finish()
                except BaseException as error:
                    self.error = error
                    if isinstance(error, FloatingPointError):
                        self._history.stop_reason = "diverged"
                    raise
                finally:
                    self._end()
        return self.history

    def _end(self) -> None:
        """Let all callbacks act at the end, even if one of them fails; an earlier error is not hidden."""
        failed: Exception | None = None
        for callback in self.callbacks:
            try:
                callback.end(self)
            except Exception as error:
                failed = failed or error
        earlier, self.error = self.error, None  # an error keeps alive what it has passed through
        if failed is not None and earlier is None:
            raise failed
        if failed is not None:
            warnings.warn(f"a callback failed at the end, too: {failed}", stacklevel=2)

    def _all_steps(self) -> None:
        if self.trainer.optimizer.full_batch:
            self._minimize()
            return
        while self.epoch <= self.options.epochs and not self._must_stop():
            for batch in self.trainer.uploaded(self.loader.epoch(self.epoch, self.position)):
                self._train(*batch)
                if self._must_stop():
                    return
            self._end_epoch()

    def _train(self, inputs: Arrays, targets: Arrays, *weights: Arrays) -> None:
        if not len(targets) or not observation_count(targets):
            raise ValueError(f"the mini-batch of step {self.step + 1} is empty")
        if not self._is_checked:
            self._check_loss(inputs, targets, *weights)
        loss, observed, rate = self.trainer.take_step(inputs, targets, *weights)
        self._after_step(observation_count(targets), [loss, *observed, rate])
        if self.step - self.snapshot.values["step"] >= SNAPSHOT_STEPS:
            self.require_finite_weights()
            self.snapshot = capture(self)

    def _check_loss(self, inputs: Arrays, targets: Arrays, weights: Arrays = ()) -> None:
        """Refuse a loss that several processes cannot compute in parts."""
        self._is_checked = True
        if share_of(targets) is not None:
            with self.network.evaluating():
                outputs = lambda: self.trainer.plain_prediction_step(tuple(inputs))
                require_mean(self.trainer.ranks, self.trainer.loss, outputs, targets, weights)

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
        inputs, targets, *weights = self.trainer.prepared(*self.loader.everything())
        observed: list[Tensor] = []

        def closure() -> Tensor:
            loss: Tensor
            loss, observed[:] = self.trainer.gradients(inputs, targets, *weights)
            return ratio(loss[0], loss[1]) if weights else loss

        def after_step(loss: float) -> bool:
            self._after_step(observation_count(targets), [Tensor(numpy.asarray(loss)), *observed])
            return self._must_stop()

        if not self._must_stop():
            self._history.stop_reason = optimizer.minimize(closure, after_step, resume=self.position > 0)

    def _after_step(self, observations: int, figures: list[Tensor]) -> None:
        self.count_step(observations, figures)
        if self.step % COMPARE_STEPS == 0:
            self.trainer.ranks.require_equal(self.network, self.trainer.optimizer)
        self.at("step")
        self.checkpoints.after_step()

    def _end_epoch(self) -> None:
        self.flush()
        if not self.position:
            raise ValueError(f"the data gave no mini-batches in epoch {self.epoch}")
        row = {"epoch": self.epoch, "step": self.step, **self.epoch_averages.figures()}
        append(self._history.epochs, row | {"seconds": time.monotonic() - self.started})
        self.at("epoch")
        self.epoch_averages.clear()
        self.epoch, self.position = self.epoch + 1, 0
        self.checkpoints.after_epoch()

    def _finish(self) -> None:
        self.require_finite_weights()
        self.trainer.ranks.require_equal(self.network, self.trainer.optimizer)
        self.checkpoints.write()  # before a validation that a longer training would not make
        if self.validation is not None:
            self._validation.validate(self, self.validation)
            self.checkpoints.write_best()
        self._history.stop_reason = self.request.reason or self._history.stop_reason or "all epochs completed"
        return_best(self)

    # --- divergence -------------------------------------------------------------------------------

    def require_finite_weights(self) -> None:
        """Refuse weights that the last update made infinite or NaN: a finite loss can have such gradients."""
        self.flush()
        if not has_finite_weights(self.trainer.optimizer):
            self.diverged(self.step + 1, math.nan, "weights")

    def diverged(self, step: int, loss: float, what: str = "loss") -> None:
        """Give the network its last good weights, and raise an error that explains what happened."""
        epoch, mini_batch = self.epoch, self.position - (self.step - step)
        cause = find_cause(self, self.snapshot, step)  # which sets the training back
        return_best(self)
        weights = (
            f"the best weights, of step {self._history.best_step}"
            if self._history.returned == "best"
            else f"its last good weights, of step {self.step}"
        )
        raise DivergenceError(
            f"the {what} became {loss} at step {step} (epoch {epoch}, mini-batch {mini_batch}): "
            f"{cause}. The network has {weights}. {advice(cause)}",
            step,
            self._history,
        )
