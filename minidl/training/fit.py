"""Fit: one training as it runs - its position, the best weights so far, what is written and shown."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices
from minidl.errors import DivergenceError
from minidl.optimizers import LBFGS
from minidl.tensor import Tensor
from minidl.training.checkpoints import CheckpointFolder
from minidl.training.divergence import find_cause
from minidl.training.history import History, append
from minidl.training.interrupt import StopRequest, stop_on_interrupt
from minidl.training.live_plot import LivePlot
from minidl.training.loaders import ArraySource, IterableSource, Source
from minidl.training.metric_averages import MetricAverages, fetched
from minidl.training.normalization import fit_normalization
from minidl.training.progress import Bar, Lines, Quiet, has_bar
from minidl.training.state import capture, checkpoint_of, resume

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

#: How many steps at most are repeated to find where a training went wrong.
SNAPSHOT_STEPS = 500
#: How many seconds figures may wait on a GPU before they are fetched, which waits for the GPU.
FLUSH_SECONDS = 0.5


@dataclass
class Options:
    """The options of Trainer.fit, which describes them."""

    epochs: int = 30
    batch_size: int = 128
    shuffle: str = "every-epoch"
    drop_last: bool = True
    validation_frequency: int | str = 50
    validation_patience: float = math.inf
    objective: str = "loss"
    output_network: str = "auto"
    normalization: str = "unfitted"
    checkpoint_folder: str | PathLike[str] | None = None
    checkpoint_frequency: int | str = "epoch"
    keep_checkpoints: int = 2
    resume: bool = False
    plot: bool | str | PathLike[str] = False
    verbose: bool = True
    verbose_frequency: int = 50

    def __post_init__(self) -> None:
        for name in ("epochs", "verbose_frequency", "validation_patience", "keep_checkpoints"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name in ("validation_frequency", "checkpoint_frequency"):
            value = getattr(self, name)
            if value != "epoch" and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a number of steps or 'epoch', got {value!r}")
        for name, allowed in (
            ("output_network", ("auto", "best", "last")),
            ("normalization", ("unfitted", "all")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if not isinstance(self.plot, bool) and not Path(self.plot).parent.is_dir():
            raise ValueError(f"plot: there is no folder {str(Path(self.plot).parent)!r}")
        if self.resume and self.checkpoint_folder is None:
            raise ValueError("resume=True needs the checkpoint_folder to go on from")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON can hold them."""
        return {
            name: fspath(value) if isinstance(value, PathLike) else value
            for name, value in asdict(self).items()
        }


class Fit:
    """One training as it runs; callbacks get it, and read its attributes.

    Attributes
    ----------
    state : ``"start"``, ``"step"`` or ``"end"``: which of its moments a callback is called at
    step : steps made so far; ``epoch``: the present one, from 1; ``position``: steps made in it
    network, trainer, options, history : what is trained, by whom, how, and what happened so far
    device : where
    """

    def __init__(
        self,
        trainer: Trainer,
        source: Source,
        validation: Source | None,
        options: Options,
        callbacks: list[Callable[[Fit], Any]],
    ):
        self.trainer, self.network, self.device = trainer, trainer.network, trainer.device
        self.source, self.validation, self.options, self.callbacks = source, validation, options, callbacks
        self.by_lbfgs = isinstance(trainer.optimizer, LBFGS)
        if options.objective not in ("loss", *trainer.metrics):
            known = ", ".join(("loss", *trainer.metrics))
            raise ValueError(f"objective must be one of {known}; got {options.objective!r}")
        if options.output_network == "best" and validation is None:
            raise ValueError("output_network='best' needs validation_data")
        self.state, self.step, self.epoch, self.position = "start", 0, 1, 0
        self.request = StopRequest()
        self.display = Quiet()
        self.live_plot = LivePlot() if options.plot is True else None
        self.started = time.monotonic()
        self.best: dict[str, Any] = {}
        self.best_value, self.unimproved = math.inf, 0
        self.epoch_averages = MetricAverages({name: trainer.metrics[name] for name in trainer.step_metrics})
        self.folder = (
            None
            if options.checkpoint_folder is None
            else CheckpointFolder(options.checkpoint_folder, options.keep_checkpoints)
        )
        self._history = History(settings=self._settings())
        self._pending: list[tuple[int, list[Tensor]]] = []  # observations, loss, metrics, rate
        self._flushed = self.started
        self.validated = self._checkpointed = -1
        self._best_written: int | None = None

    def _settings(self) -> dict[str, Any]:
        optimizer = self.trainer.optimizer
        settings = {
            "device": self.device,
            "optimizer": type(optimizer).__name__,
            "loss": getattr(self.trainer.loss, "__name__", type(self.trainer.loss).__name__),
            "seed": self.trainer.seed,
            "parameters": self.network.parameter_count(),
            "observations": self.source.observations,
            "steps_per_epoch": self.source.steps,
            "l2": optimizer.l2,
        }
        if not isinstance(optimizer, LBFGS):
            schedule = optimizer.schedule
            settings["learning_rate_schedule"] = "constant" if schedule is None else repr(schedule)
        return settings | self.options.to_dict()

    # --- what callbacks read and do ---------------------------------------------------------------

    @property
    def history(self) -> History:
        """What happened so far, up to the present step."""
        self.flush()
        self._history.seconds = time.monotonic() - self.started
        return self._history

    @property
    def total_steps(self) -> int | None:
        """The number of steps of the whole training, where it is known."""
        if isinstance(self.trainer.optimizer, LBFGS):
            return self.trainer.optimizer.max_iterations
        return self.source.steps and self.source.steps * self.options.epochs

    def stop(self, reason: str = "stopped by a callback") -> None:
        """End the training after the present step."""
        self.request.reason = self.request.reason or reason

    # --- the course of a training -----------------------------------------------------------------

    def run(self) -> History:
        """Train; return what happened."""
        self._fit_normalization()
        if self.folder is not None:
            self._resume(self.folder)
        if self.options.verbose:
            self.display = Bar() if has_bar() else Lines(self.options.verbose_frequency)
        with self.network.evaluating(), stop_on_interrupt() as self.request:  # modes come back as they were
            self.network.train()
            for watcher in self._watchers():
                watcher.start(self)
            try:
                self._run_callbacks("start")
                self._all_steps()
                self._finish()
            except FloatingPointError:
                self._history.stop_reason = "diverged"
                raise
            finally:
                for watcher in self._watchers():
                    watcher.end(self)
                if not isinstance(self.options.plot, bool):
                    self.history.plot(self.options.plot)
        self._run_callbacks("end")
        return self.history

    def _all_steps(self) -> None:
        self.snapshot = capture(self)
        if self.by_lbfgs:
            self._full_batch()
            return
        while self.epoch <= self.options.epochs and not self.request:
            for inputs, targets in self.trainer.uploaded(self.source.epoch(self.epoch, self.position)):
                self._train(inputs, targets)
                if self.request:
                    return
            self._end_epoch()

    def _train(self, inputs: tuple[Any, ...], targets: tuple[Any, ...]) -> None:
        if not len(targets) or not len(targets[0]):
            raise ValueError(f"the mini-batch of step {self.step + 1} is empty")
        loss, observed, rate = self.trainer.train_step(inputs, targets)
        self._after_step(len(targets[0]), loss, observed, rate)
        if self.step - self.snapshot.values["step"] >= SNAPSHOT_STEPS:
            self.flush()
            self.snapshot = capture(self)

    def _after_step(
        self, observations: int, loss: Tensor, observed: list[Tensor], rate: Tensor | None
    ) -> None:
        self.step += 1
        self.position += 1
        self._pending.append((observations, [loss, *observed, *([] if rate is None else [rate])]))
        if self.device == "cpu" or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()
        end_of_epoch = not self.by_lbfgs and self.position == self.source.steps
        if self.validation is not None and _due(self.options.validation_frequency, self.step, end_of_epoch):
            self._validate()
        self._run_callbacks("step")
        for watcher in self._watchers():
            watcher.step(self)
        if self.folder is not None and _due(self.options.checkpoint_frequency, self.step, False):
            self._write_checkpoint()

    def flush(self) -> None:
        """Bring the figures of the latest steps into the history."""
        self._flushed = time.monotonic()
        pending, self._pending = self._pending, []
        first = self.step - len(pending) + 1
        for step, (observations, means) in enumerate(fetched(pending), first):
            rate = {} if self.by_lbfgs else {"learning_rate": means.pop().item()}
            figures = self.epoch_averages.add(observations, means)
            append(self._history.steps, figures | rate)
            if not math.isfinite(figures["loss"]):
                self._diverged(step, figures["loss"])

    def _end_epoch(self) -> None:
        self.flush()
        if not self.position:
            raise ValueError(f"the data gave no mini-batches in epoch {self.epoch}")
        row = {"epoch": self.epoch, "step": self.step, **self.epoch_averages.figures()}
        append(self._history.epochs, row | {"seconds": time.monotonic() - self.started})
        if self.validation is not None and self.options.validation_frequency == "epoch":
            self._validate()
        self.epoch_averages.clear()
        self.epoch, self.position = self.epoch + 1, 0
        if self.folder is not None and self.options.checkpoint_frequency == "epoch":
            self._write_checkpoint()

    def _finish(self) -> None:
        self.flush()
        history = self._history
        if self.folder is not None and self._checkpointed != self.step:
            self._write_checkpoint()  # before a validation that a training that went on would not make
        if self.validation is not None:
            self._validate()
            self._write_best()
        history.stop_reason = self.request.reason or history.stop_reason or "all epochs completed"
        self._return_weights()

    def _return_weights(self) -> None:
        if self.options.output_network != "last" and self.best:
            for name, x in self.network.named_tensors():
                x.assign(Tensor(self.best[name]))
            self._history.returned = "best"

    def _watchers(self) -> list[Quiet | LivePlot]:
        return [self.display] if self.live_plot is None else [self.display, self.live_plot]

    def _run_callbacks(self, state: str) -> None:
        self.state = state
        for callback in self.callbacks:
            if callback(self):
                self.stop()

    # --- validation -------------------------------------------------------------------------------

    def _validate(self) -> None:
        assert self.validation is not None
        if self.validated == self.step:
            return
        self.flush()
        self.validated = self.step
        figures = self.trainer.figures(self.validation)
        append(self._history.validation, {"step": self.step, **figures})
        if math.isnan(figures["loss"]):  # infinity can be the truth: a sure prediction that is wrong
            self._diverged(self.step + 1, figures["loss"], "validation loss")
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

    def _write_checkpoint(self) -> None:
        assert self.folder is not None
        with self._writing("checkpoint"):
            self.folder.write(self.step, checkpoint_of(self))
        self._write_best()
        self._checkpointed = self.step

    def _write_best(self) -> None:
        if self.folder is not None and self._history.best_step != self._best_written:
            with self._writing("best network"):
                self.folder.write_best({name: devices.to_numpy(array) for name, array in self.best.items()})
            self._best_written = self._history.best_step

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turn a disk that fails into a warning: it must not cost the training."""
        try:
            yield
        except OSError as error:
            warnings.warn(
                f"the {what} of step {self.step} could not be written: {error}; training goes on, "
                "what was written before is as it was",
                stacklevel=2,
            )

    def _resume(self, folder: CheckpointFolder) -> None:
        newest = folder.newest()
        if newest is None:
            return
        if not self.options.resume:
            raise ValueError(
                f"{folder.path} holds checkpoints of an earlier training: pass resume=True to go on from "
                f"{newest.name}, or choose another folder"
            )
        if self.by_lbfgs:
            raise ValueError("a training by L-BFGS cannot be resumed: SciPy does not give its memory away")
        self._history = resume(self, newest)
        self.started -= self._history.seconds
        self._checkpointed = self.step

    # --- what else can happen ---------------------------------------------------------------------

    def _fit_normalization(self) -> None:
        """Fit the network's Normalize layers to the training data."""

        def batches() -> Iterator[tuple[Any, ...]]:
            if isinstance(self.source, IterableSource) and isinstance(self.source.iterable, Iterator):
                raise ValueError(
                    "the Normalize layers must be fitted first, with layer.fit(x): these mini-batches come "
                    "from an iterator, which can be gone through only once"
                )
            return (self.trainer.prepared(inputs)[0] for inputs, _ in self.source.epoch(1))

        fit_normalization(self.network, batches, refit=self.options.normalization == "all")

    def _full_batch(self) -> None:
        """Train by L-BFGS: SciPy asks for losses and gradients of all data at once."""
        optimizer = self.trainer.optimizer
        assert isinstance(optimizer, LBFGS)
        if not isinstance(self.source, ArraySource):
            raise TypeError("L-BFGS trains on all data at once: pass arrays, not an iterable of mini-batches")
        inputs, targets = self.trainer.prepared(self.source.inputs, self.source.targets)
        observed: list[Tensor] = []

        def closure() -> Tensor:
            loss: Tensor
            loss, observed[:] = self.trainer.gradient_step(inputs, targets)
            return loss

        def after_step(loss: float) -> bool:
            self._after_step(len(targets[0]), Tensor(numpy.asarray(loss)), list(observed), None)
            return bool(self.request)

        self._history.stop_reason = optimizer.minimize(closure, after_step)

    def _diverged(self, step: int, loss: float, what: str = "loss") -> None:
        """Give the network its last good weights, and say what happened."""
        self._pending = []
        epoch, mini_batch = self.epoch, self.position - (self.step - step)
        cause = find_cause(self, step)  # which sets the training back
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
