"""Callback: what else is done while a network is trained, at five moments of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidl.training.run_state import RunState


def with_settings(made: Any) -> str:
    """Return how an object was made: its class, and those arguments of ``__init__`` that it has kept."""
    kept = {name: vars(made)[name] for name in inspect.signature(type(made)).parameters if name in vars(made)}
    return f"{type(made).__name__}({', '.join(f'{name}={value!r:.60}' for name, value in kept.items())})"


class Callback:
    """Something that is done at moments of a training: subclass it, and pass it to ``fit(callbacks=[...])``.

    Every method gets the running training, a `RunState`: what it has seen so far (``run.history``), where it
    is (``run.step``, ``run.epoch``), the network and the optimizer. It may change them, and end the training
    with ``run.stop(reason)``. What fit shows, validates and decides is made of Callbacks too.

    Examples
    --------
    >>> import numpy, minidl as dl
    >>> class Halve(dl.Callback):
    ...     def epoch(self, run):
    ...         optimizer = run.trainer.optimizer
    ...         optimizer.learning_rate = optimizer.learning_rate.item() / 2
    >>> x = numpy.linspace(-1, 1, 64, dtype="float32").reshape(-1, 1)
    >>> trainer = dl.Trainer(dl.Dense(1, 1, seed=0), dl.mean_squared_error, device="cpu", seed=0)
    >>> history = trainer.fit(x, x, epochs=2, batch_size=64, verbose=False, callbacks=[Halve()])
    >>> history.steps["learning_rate"]
    [0.001, 0.0005]
    """

    def __repr__(self) -> str:
        return with_settings(self)

    def start(self, run: RunState) -> None:
        """Act before the first step; of a resumed training, where it goes on."""

    def step(self, run: RunState) -> None:
        """Act after a step."""

    def validation(self, run: RunState) -> None:
        """Act after a validation, the last row of ``run.history.validation``."""

    def epoch(self, run: RunState) -> None:
        """Act at the end of an epoch, the last row of ``run.history.epochs``."""

    def end(self, run: RunState) -> None:
        """Act after the training; ``run.error`` is what ended it, or None if nothing went wrong."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold for a resumed training to go on alike, as JSON can hold it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state_dict()."""


class CallbackFunction(Callback):
    """A function that is called before the first step, after each step and at the end; if true, it stops.

    ``run.state`` says which moment it is. After an error it is not called.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def _call(self, run: RunState, state: str) -> None:
        run.state = state
        if self.function(run):
            run.stop()

    def start(self, run: RunState) -> None:
        """Call the function."""
        self._call(run, "start")

    def step(self, run: RunState) -> None:
        """Call the function."""
        self._call(run, "step")

    def end(self, run: RunState) -> None:
        """Call the function, unless an error ended the training."""
        if run.error is None:
            self._call(run, "end")


class Watcher(Callback):
    """A Callback that shows the training to somebody; this one shows nothing."""

    def say(self, text: str) -> None:
        """Show a remark."""


class Unbreakable(Watcher):
    """Shows what another Watcher shows, until nobody can see it any more: then the training goes on silently.

    A terminal can be closed, and ``| head`` ends what reads the output.
    """

    def __init__(self, watcher: Watcher):
        self.watcher = watcher

    def _try(self, action: str, *arguments: Any) -> None:
        try:
            getattr(self.watcher, action)(*arguments)
        except (OSError, UnicodeEncodeError):
            self.watcher = Watcher()
        except ValueError as error:
            if "closed file" not in str(error):
                raise
            self.watcher = Watcher()

    def start(self, run: RunState) -> None:
        """Show the beginning."""
        self._try("start", run)

    def step(self, run: RunState) -> None:
        """Show one more step."""
        self._try("step", run)

    def end(self, run: RunState) -> None:
        """Show the end."""
        self._try("end", run)

    def say(self, text: str) -> None:
        """Show a remark."""
        self._try("say", text)


def as_callbacks(given: Iterable[Callback | Callable[[Any], Any]]) -> list[Callback]:
    """Return Callbacks, made from functions where they are not yet some."""
    if callable(given) or isinstance(given, Callback):
        raise TypeError(f"callbacks is a list of functions and Callbacks, got {given!r}")
    callbacks: list[Callback] = []
    for callback in given:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise TypeError(
                f"callbacks takes objects, not classes: write {callback.__name__}(), with its arguments"
            )
        if not isinstance(callback, Callback) and not callable(callback):
            raise TypeError(
                f"callbacks takes Callbacks and functions of the running Fit, got {type(callback).__name__}"
            )
        callbacks.append(callback if isinstance(callback, Callback) else CallbackFunction(callback))
    return callbacks
