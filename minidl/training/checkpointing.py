"""Checkpointing: writes what a killed training goes on from, and the best network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from minidl import devices
from minidl.training.capture import checkpoint_of
from minidl.training.options import due
from minidl.training.ranks import SharedFolder
from minidl.training.resuming import resume
from minidl.training.run_state import RunState


class Checkpointing:
    """Writes checkpoints of a training into a folder, where one is wanted.

    It is no Callback: what it writes between two epochs belongs to neither.
    """

    def __init__(self, run: RunState):
        self.run = run
        options = run.options
        self.folder = (
            None
            if options.checkpoint_folder is None
            else SharedFolder(options.checkpoint_folder, options.keep_checkpoints, run.trainer.ranks)
        )
        self._written: int | None = None  # the step of the newest one
        self._best_written: int | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder for a ``with`` block."""
        if self.folder is None:
            yield
        else:
            with self.folder.locked():
                yield

    def resume(self) -> list[str]:
        """Go on from the newest checkpoint, if that is asked for and there is one; say what has changed."""
        if self.folder is None or (newest := self.folder.newest()) is None:
            return []
        if not self.run.options.resume:
            raise ValueError(
                f"{self.folder.path} holds checkpoints of an earlier training: pass resume=True to resume "
                f"from {newest.name}, or choose another folder"
            )
        optimizer = self.run.trainer.optimizer
        if optimizer.full_batch and not optimizer.named_tensors():
            raise ValueError(
                f"a training by {type(optimizer).__name__} cannot be resumed: it has no state that "
                "checkpoints could hold"
            )
        changes = resume(self.run, newest)
        self._written = self.run.step
        return [f"resumed from {newest.name}", *changes] if changes else []

    def after_step(self) -> None:
        """Write a checkpoint if steps are counted and it is time."""
        if due(self.run.options.checkpoint_frequency, self.run.step):
            self.write()

    def after_epoch(self) -> None:
        """Write a checkpoint if there is one for each epoch."""
        if self.run.options.checkpoint_frequency == "epoch":
            self.write()

    def write(self) -> None:
        """Write a checkpoint, unless there is one of this step; and the best network if it is a new one."""
        if self.folder is None:
            return
        if self._written != self.run.step:
            self.run.require_finite_weights()
            with self._writing("checkpoint"):
                self.folder.write(self.run.step, lambda: checkpoint_of(self.run))
            self._written = self.run.step
        self.write_best()

    def write_best(self) -> None:
        """Write the best network so far, if it is a new one."""
        best_step = self.run.history.best_step
        if self.folder is not None and self.run.best and best_step != self._best_written:
            with self._writing("best network"):
                best = {name: devices.to_numpy(array) for name, array in self.run.best.items()}
                self.folder.write_best(best)
            self._best_written = best_step

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Turn a full disk or memory into a warning: it must not cost the training."""
        try:
            yield
        except (OSError, MemoryError) as error:
            problem = str(error) or type(error).__name__
            warnings.warn(
                f"the {what} of step {self.run.step} could not be written: {problem}; training goes on, "
                "earlier files are unchanged",
                stacklevel=2,
            )
