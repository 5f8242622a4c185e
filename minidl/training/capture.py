"""From a training to a Checkpoint and back: all that decides how it goes on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy

from minidl import devices, weights
from minidl.errors import CheckpointError
from minidl.tensor import Tensor
from minidl.training.checkpoints import Checkpoint, read
from minidl.training.history import History
from minidl.training.loaders import ArrayLoader
from minidl.training.run_state import RunState

POSITION = ("step", "epoch", "position")


def capture(run: RunState) -> Checkpoint:
    """Return what decides the next steps of a training: weights, optimizer, generators and position."""
    arrays = {name: x.numpy() for name, x in _tensors(run).items()}
    generators = {name: g.state_dict() for name, g in run.network.named_generators()}
    position = {name: getattr(run, name) for name in POSITION}
    return Checkpoint(arrays, {**position, "generators": generators})


def restore(run: RunState, captured: Checkpoint) -> None:
    """Bring a training back to a capture(); if it does not fit, nothing is changed."""
    arrays = {
        name: array for name, array in captured.arrays.items() if name.startswith(("network/", "optimizer/"))
    }
    generators = dict(run.network.named_generators())
    if generators.keys() != captured.values["generators"].keys():
        raise ValueError(
            f"its random generators are {[*captured.values['generators']]}, "
            f"those of the network {[*generators]}"
        )
    weights.load_state(_tensors(run), arrays, "the checkpoint")
    for name, generator in generators.items():
        generator.load_state_dict(captured.values["generators"][name])
    for name in POSITION:
        setattr(run, name, captured.values[name])


def checkpoint_of(run: RunState) -> Checkpoint:
    """Return all that a training needs to go on as if it had not been interrupted."""
    checkpoint = capture(run)
    history = asdict(run.history)
    steps = {name: numpy.asarray(column) for name, column in history.pop("steps").items()}
    for part, arrays in (("history", steps), ("best", run.best), ("totals", run.epoch_averages.sums)):
        checkpoint.arrays |= {f"{part}/{name}": devices.to_numpy(x) for name, x in arrays.items()}
    checkpoint.values |= {
        "history": history,
        "observations": run.epoch_averages.observations,
        "best_value": run.best_value,
        "unimproved": run.unimproved,
        "validated": run.validated,
        "identity": _identity(run),
    }
    return checkpoint


def resume(run: RunState, path: Path) -> History:
    """Bring a training to where a checkpoint was written; return its history up to there.

    Raises
    ------
    CheckpointError
        The file is damaged or belongs to another training; it is named, and nothing is changed.
    """
    checkpoint = run.trainer.ranks.from_first(lambda: read(path))
    try:
        _refuse_another(run, checkpoint)
        restore(run, checkpoint)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit this training: {error}") from error
    values = checkpoint.values
    run.best = {name: devices.to_device(x, run.device) for name, x in checkpoint.part("best").items()}
    run.epoch_averages.observations = values["observations"]
    run.epoch_averages.sums = checkpoint.part("totals")
    run.best_value, run.unimproved = values["best_value"], values["unimproved"]
    run.validated = values["validated"]
    settings = run.history.settings | {"seed": values["history"]["settings"]["seed"]}
    if isinstance(run.loader, ArrayLoader):
        run.loader.seed = settings["seed"]  # also a seed that was drawn because none was given
    steps = {name: column.tolist() for name, column in checkpoint.part("history").items()}
    return History.from_dict(values["history"] | {"steps": steps, "settings": settings})


def _tensors(run: RunState) -> dict[str, Tensor]:
    network = {f"network/{name}": x for name, x in run.network.named_tensors()}
    return network | {f"optimizer/{name}": x for name, x in run.trainer.optimizer.named_tensors().items()}


def _identity(run: RunState) -> dict[str, Any]:
    """Return what must be the same for a training to be resumed."""
    settings = ("optimizer", "loss", "observations", "batch_size", "shuffle", "drop_last")
    return {name: run.history.settings[name] for name in settings}


def _refuse_another(run: RunState, checkpoint: Checkpoint) -> None:
    theirs = checkpoint.values["identity"]
    ours = json.loads(json.dumps(_identity(run)))
    different = [
        f"{name} was {theirs.get(name)!r}, now it is {value!r}"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    if different:
        raise ValueError("; ".join(different))
