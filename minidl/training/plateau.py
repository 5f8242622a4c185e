"""ReduceOnPlateau: lowers the learning rate where a training makes no more progress."""

from __future__ import annotations

import math
from typing import Any

from minidl.optimizers.optimizer import Optimizer
from minidl.training.callbacks import Callback
from minidl.training.run_state import RunState


class ReduceOnPlateau(Callback):
    """Multiplies the learning rate by ``factor`` after a number of validations without a better one.

    Without validation data, epochs are looked at, and the figures of the training. What it has seen is
    resumed with the training.

    Parameters
    ----------
    factor : what the learning rate is multiplied by, between 0 and 1
    patience : after how many figures in a row without a better one
    objective : ``"loss"`` or the name of a metric; by default that of fit()
    threshold : by what share of the best figure another one must be better to count
    minimum : where the learning rate is not lowered any more

    Examples
    --------
    >>> import numpy, minidl as dl
    >>> x = numpy.zeros((32, 2), "float32")  # nothing can be learned
    >>> trainer = dl.Trainer(dl.Dense(2, 1), dl.mean_squared_error, device="cpu", seed=0)
    >>> lower = dl.ReduceOnPlateau(factor=0.5, patience=2)
    >>> history = trainer.fit(x, x[:, :1], epochs=6, batch_size=32, callbacks=[lower], verbose=False)
    >>> history.steps["learning_rate"]
    [0.001, 0.001, 0.001, 0.0005, 0.0005, 0.00025]
    """

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 5,
        *,
        objective: str | None = None,
        threshold: float = 1e-4,
        minimum: float = 0.0,
    ):
        if not 0 < factor < 1:
            raise ValueError(f"ReduceOnPlateau: factor must be between 0 and 1, got {factor}")
        if not patience >= 1:
            raise ValueError(f"ReduceOnPlateau: patience must be at least 1, got {patience}")
        if not (threshold >= 0 and minimum >= 0):
            raise ValueError(
                f"ReduceOnPlateau: threshold and minimum must not be negative, got {threshold} and {minimum}"
            )
        self.factor, self.patience, self.objective = float(factor), int(patience), objective
        self.threshold, self.minimum = float(threshold), float(minimum)
        self.best, self.waited = math.inf, 0

    def start(self, run: RunState) -> None:
        """Refuse a learning rate that follows a schedule, and an objective that there is not."""
        optimizer = run.trainer.optimizer
        if not isinstance(optimizer, Optimizer) or optimizer.schedule is not None:
            raise ValueError(
                f"ReduceOnPlateau needs an optimizer with a constant learning rate; got {optimizer!r}"
            )
        name = self._name(run)
        if name not in ("loss", *run.trainer.metrics):
            raise ValueError(f"ReduceOnPlateau: there is no metric {name!r}")
        if run.step == 0:
            self.best, self.waited = math.inf, 0

    def _name(self, run: RunState) -> str:
        return run.options.objective if self.objective is None else self.objective

    def validation(self, run: RunState) -> None:
        """Look at the figure of the validation."""
        self._look(run, run.history.validation[self._name(run)][-1])

    def epoch(self, run: RunState) -> None:
        """Look at the figure of the epoch, if nothing is validated."""
        if run.validation is None:
            self._look(run, run.history.epochs[self._name(run)][-1])

    def _look(self, run: RunState, figure: float) -> None:
        metric = run.trainer.metrics.get(self._name(run))
        value = -figure if getattr(metric, "larger_is_better", False) else figure
        if self.best == math.inf or value < self.best - self.threshold * abs(self.best):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited < self.patience:
            return
        self.waited = 0
        optimizer = run.trainer.optimizer
        assert isinstance(optimizer, Optimizer)
        rate = optimizer.learning_rate.item()
        lower = max(rate * self.factor, self.minimum)
        if lower < rate:
            optimizer.learning_rate = lower
            run.display.say(f"learning rate {lower:.4g} after step {run.step}: no better {self._name(run)}")

    def state_dict(self) -> dict[str, Any]:
        """Return the best figure so far, and how many came after it."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict()."""
        self.best, self.waited = float(state["best"]), int(state["waited"])
