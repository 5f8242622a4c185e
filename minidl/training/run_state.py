"""RunState: where a training is, what it has seen so far, and what belongs to it."""

from __future__ import annotations

import math
import time
from typing import Any

from minidl.tensor import Tensor
from minidl.training.callbacks import Callback, Watcher
from minidl.training.history import History
from minidl.training.history_tables import append
from minidl.training.identity import identity
from minidl.training.interrupt import StopRequest
from minidl.training.loaders import Loader
from minidl.training.metric_averages import MetricAverages, PendingFigures
from minidl.training.options import Options
from minidl.training.steps import CompiledSteps


class RunState:
    """The state of one training; callbacks get it as a `Fit`, and read its attributes.

    Attributes
    ----------
    state : ``"start"``, ``"step"`` or ``"end"``: the moment at which a function is called
    step : number of steps made so far; ``epoch``: the present one, from 1; ``position``: number of steps
        made in it
    network, trainer, options, history : what is trained, by which Trainer, how, and what happened so far
    device : where
    loader, validation : where the mini-batches for training and for validation come from
    callbacks : what is done at moments of the training, in order
    display : what shows progress; ``display.say(text)`` shows a remark beside it
    error : what ended the training, if something went wrong
    """

    def __init__(
        self,
        trainer: CompiledSteps,
        loader: Loader,
        validation: Loader | None,
        options: Options,
    ):
        self.trainer, self.network, self.device = trainer, trainer.network, trainer.device
        self.loader, self.validation, self.options = loader, validation, options
        self.state, self.step, self.epoch, self.position = "start", 0, 1, 0
        self.request = StopRequest()
        self.callbacks: list[Callback] = []
        self.error: BaseException | None = None
        self.display = Watcher()
        self.started = time.monotonic()
        self.epoch_averages = MetricAverages({name: trainer.metrics[name] for name in trainer.step_metrics})
        self.pending = PendingFigures()  # of each step: loss, metrics, and the learning rate if there is one
        self.best: dict[str, Any] = {}  # the weights of the best validation by name
        self.best_value, self.unimproved = math.inf, 0
        self.validated = -1  # the step after which the last validation was made
        self.identity = identity(trainer, loader, validation, options)
        self._history = History(settings=self._settings())

    def continue_history(self, history: History) -> None:
        """Go on with the history of a training that is resumed."""
        self._history = history
        self.started -= history.seconds

    def _settings(self) -> dict[str, Any]:
        loss = self.trainer.loss
        settings = {
            "device": self.device,
            "optimizer": type(self.trainer.optimizer).__name__,
            "loss": getattr(loss, "__name__", type(loss).__name__),
            "seed": self.trainer.seed,
            "parameters": self.network.parameter_count(),
            "observations": self.loader.observations,
        }
        settings |= self.trainer.optimizer.settings() | self.options.to_dict()
        return settings | {"steps_per_epoch": self.loader.steps}

    @property
    def history(self) -> History:
        """What happened so far, up to the present step."""
        self.flush()
        self._history.seconds = time.monotonic() - self.started
        return self._history

    @property
    def total_steps(self) -> int | None:
        """The number of steps of the whole training, where it is known."""
        planned = self.loader.steps and self.loader.steps * self.options.epochs
        return self.trainer.optimizer.total_steps(planned)

    def stop(self, reason: str = "stopped by a callback") -> None:
        """End the training after the present step."""
        self.request.reason = self.request.reason or reason

    def at(self, moment: str) -> None:
        """Let all callbacks act at a moment of the training."""
        for callback in self.callbacks:
            getattr(callback, moment)(self)

    def count_step(self, observations: int, figures: list[Tensor]) -> None:
        """Move on by one step that gave these figures; they come into the history at the next flush()."""
        self.step += 1
        self.position += 1
        self.pending.append(observations, figures)
        # Several processes must find a loss that is not finite at the same step.
        if self.device == "cpu" or self.trainer.ranks.size > 1 or self.pending.are_due():
            self.flush()

    def flush(self) -> None:
        """Bring the figures of the latest steps into the history."""
        first = self.step - len(self.pending) + 1
        count = 1 + len(self.epoch_averages.metrics)
        for step, (observations, figures) in enumerate(self.pending.fetch(), first):
            row = self.epoch_averages.add(observations, figures[:count])
            rate = {"learning_rate": figures[count].item()} if len(figures) > count else {}
            append(self._history.steps, row | rate)
            if not math.isfinite(row["loss"]):
                self.diverged(step, row["loss"])

    def require_finite_weights(self) -> None:
        """Refuse weights that are not finite."""
        raise NotImplementedError

    def diverged(self, step: int, loss: float, what: str = "loss") -> None:
        """Raise the error that explains a loss that is not finite."""
        raise NotImplementedError
