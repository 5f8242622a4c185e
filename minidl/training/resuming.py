"""Resuming: a training goes on from a checkpoint, and with what is asked for now.

docs/resuming.md has the table of what a checkpoint decides and what it does not.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy

from minidl import devices
from minidl.errors import CheckpointError
from minidl.training.capture import restore
from minidl.training.checkpoints import Checkpoint, read
from minidl.training.history import History
from minidl.training.loaders import ArrayLoader
from minidl.training.run_state import RunState

Changes = dict[str, tuple[Any, Any]]  # by name: what it was, and what it is now


def resume(run: RunState, path: Path) -> list[str]:
    """Bring a training to where a checkpoint was written; return in words what differs from then.

    Raises
    ------
    CheckpointError
        The file is damaged or belongs to another training; it is named, and nothing is changed.
    """
    checkpoint = run.trainer.ranks.from_first(lambda: read(path))
    rate = getattr(run.trainer.optimizer, "learning_rate", None)
    asked_rate = None if rate is None else rate.item()
    try:
        values = checkpoint.values
        changed = {name: _changes(run, values["identity"], name) for name in run.identity}
        if changed["fixed"]:
            raise ValueError("; ".join(_in_words(changed["fixed"])))
        history = _history(run, checkpoint)
        restore(run, checkpoint)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit this training: {error}") from error
    run.continue_history(history)
    notes = [note for group in ("order", "judged", "options") for note in _in_words(changed[group])]
    _resume_epoch(run, checkpoint, changed["order"], notes)
    _resume_best(run, checkpoint, changed["judged"], notes)
    if "learning_rate" in changed["options"] and getattr(run.trainer.optimizer, "schedule", None) is None:
        run.trainer.optimizer.learning_rate = asked_rate
    _resume_callbacks(run, values["callbacks"], notes)
    if changed["machine"]:
        text = "; ".join(_in_words(changed["machine"]))
        notes.append(f"{text}: the same steps may be rounded differently")
        warnings.warn(f"{path.name} was written elsewhere: {notes[-1]}", stacklevel=2)
    if notes:
        entry = {"step": run.step, "changes": notes}
        history.settings["resumed"] = [*history.settings.get("resumed", []), entry]
    return notes


def _changes(run: RunState, theirs: dict[str, dict[str, Any]], group: str) -> Changes:
    ours = json.loads(json.dumps(run.identity[group]))
    before = dict(theirs[group])
    if group == "order" and not run.trainer.seed_is_given:
        run.identity["order"]["seed"] = ours["seed"] = before["seed"]
    names = [*ours, *(name for name in before if name not in ours)]
    return {name: (before.get(name), ours.get(name)) for name in names if before.get(name) != ours.get(name)}


def _in_words(changes: Changes) -> list[str]:
    return [_note(name, was, now) for name, (was, now) in changes.items()]


def _note(name: str, was: Any, now: Any) -> str:
    if name.endswith("data"):
        if was is None:
            return f"{name}: none before, now some"
        if now is None:
            return f"{name}: some before, now none"
        return f"{name} have other values"
    if isinstance(now, dict):
        names = [part for part in {**(was or {}), **now} if (was or {}).get(part) != now.get(part)]
        return f"{name}: other ones of {', '.join(names)}"
    return f"{name} was {was!r}, now it is {now!r}"


def _history(run: RunState, checkpoint: Checkpoint) -> History:
    """Return the history up to the checkpoint, with the settings of now."""
    content = checkpoint.values["history"]
    earlier = {name: content["settings"][name] for name in ("resumed",) if name in content["settings"]}
    settings = run.history.settings | earlier
    if not run.trainer.seed_is_given:
        settings["seed"] = content["settings"]["seed"]  # one that was drawn because none was given
    steps = {name: column.tolist() for name, column in checkpoint.part("history").items()}
    return History.from_dict(content | {"steps": steps, "settings": settings})


def _resume_epoch(run: RunState, checkpoint: Checkpoint, changes: Changes, notes: list[str]) -> None:
    """Go on within the epoch, or begin it again if its mini-batches are others now."""
    if isinstance(run.loader, ArrayLoader):
        run.loader.seed = run.history.settings["seed"]
    loss_is_new = checkpoint.values["identity"]["judged"]["loss"] != run.identity["judged"]["loss"]
    if (changes or (loss_is_new and run.trainer.optimizer.full_batch)) and run.position:
        notes.append(f"epoch {run.epoch} begins again, as its mini-batches are others now")
        run.position = 0
        return
    averages = run.epoch_averages
    averages.observations, averages.sums = checkpoint.values["observations"], checkpoint.part("totals")
    if averages.observations:
        kept = [name for name in averages.sums if name in averages.metrics or name == "loss"]
        averages.sums = {name: averages.sums[name] for name in kept}
        for name in ("loss", *averages.metrics):  # its average over the whole epoch is not known
            if name not in averages.sums or (name == "loss" and loss_is_new):
                averages.sums[name] = numpy.asarray(math.nan)


def _resume_best(run: RunState, checkpoint: Checkpoint, changes: Changes, notes: list[str]) -> None:
    """Keep the best network so far, or forget it if it was judged by something else."""
    values = checkpoint.values
    if not changes:
        best = checkpoint.part("best")
        run.best = {name: devices.to_device(x, run.device) for name, x in best.items()}
        run.best_value, run.unimproved = values["best_value"], values["unimproved"]
        run.validated = values["validated"]
        return
    if math.isfinite(values["best_value"]):
        notes.append("the best network is looked for anew, as it was judged by something else")
    run.history.best_step = None


def _resume_callbacks(run: RunState, states: list[list[Any]], notes: list[str]) -> None:
    """Give each Callback its state, by its class; several of one class in order."""
    waiting = [(name, state) for name, state in states if state]
    for callback in run.callbacks:
        kind = type(callback).__name__
        found = next((entry for entry in waiting if entry[0] == kind), None)
        if found is not None:
            callback.load_state_dict(found[1])
            waiting.remove(found)
    notes += [f"there is no {name} now, whose state the checkpoint holds" for name, _ in waiting]
