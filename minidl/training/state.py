"""The state of a training: what decides the rest of it, what a checkpoint holds, how to go on from one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from minidl import devices, weights
from minidl.errors import CheckpointError
from minidl.optimizers import LBFGS
from minidl.tensor import Tensor
from minidl.training.checkpoints import Checkpoint, read
from minidl.training.history import History
from minidl.training.loaders import ArraySource

if TYPE_CHECKING:
    from minidl.training.fit import Fit

POSITION = ("step", "epoch", "position")


def capture(fit: Fit) -> Checkpoint:
    """Return what decides the rest of a training: weights, optimizer, generators and position."""
    arrays = {name: x.numpy() for name, x in _tensors(fit).items()}
    generators = {name: g.state_dict() for name, g in fit.network.named_generators()}
    position = {name: getattr(fit, name) for name in POSITION}
    return Checkpoint(arrays, {**position, "generators": generators})


def restore(fit: Fit, state: Checkpoint) -> None:
    """Bring a training to a capture(); if the state does not fit, nothing is changed."""
    tensors = _tensors(fit)
    arrays = {
        name: array for name, array in state.arrays.items() if name.startswith(("network/", "optimizer/"))
    }
    generators = dict(fit.network.named_generators())
    if generators.keys() != state.values["generators"].keys():
        raise ValueError(
            f"its random generators are {[*state.values['generators']]}, those of the network {[*generators]}"
        )
    weights.load_state(tensors, arrays, "the checkpoint")
    for name, generator in generators.items():
        generator.load_state_dict(state.values["generators"][name])
    for name in POSITION:
        setattr(fit, name, state.values[name])


def checkpoint_of(fit: Fit) -> Checkpoint:
    """Return all that a training needs to go on as if there had been no break."""
    checkpoint = capture(fit)
    history = asdict(fit.history)
    steps = {name: numpy.asarray(column) for name, column in history.pop("steps").items()}
    for part, arrays in (("history", steps), ("best", fit.best), ("totals", fit.epoch_averages.sums)):
        checkpoint.arrays |= {f"{part}/{name}": devices.to_numpy(x) for name, x in arrays.items()}
    checkpoint.values |= {
        "history": history,
        "observations": fit.epoch_averages.observations,
        "best_value": fit.best_value,
        "unimproved": fit.unimproved,
        "validated": fit.validated,
        "identity": _identity(fit),
    }
    return checkpoint


def resume(fit: Fit, path: Path) -> History:
    """Bring a training to where a checkpoint was written; return its history so far.

    Raises
    ------
    CheckpointError
        The file is damaged or belongs to another training; it is named, and nothing is changed.
    """
    checkpoint = read(path)
    try:
        _refuse_another(fit, checkpoint)
        restore(fit, checkpoint)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not fit this training: {error}") from error
    values = checkpoint.values
    fit.best = {name: devices.to_device(x, fit.device) for name, x in checkpoint.part("best").items()}
    fit.epoch_averages.observations = values["observations"]
    fit.epoch_averages.sums = checkpoint.part("totals")
    fit.best_value, fit.unimproved = values["best_value"], values["unimproved"]
    fit.validated = values["validated"]
    settings = fit.history.settings | {"seed": values["history"]["settings"]["seed"]}
    if isinstance(fit.source, ArraySource):
        fit.source.seed = settings["seed"]  # one that nobody gave, too
    steps = {name: column.tolist() for name, column in checkpoint.part("history").items()}
    return History.from_dict(values["history"] | {"steps": steps, "settings": settings})


def _tensors(fit: Fit) -> dict[str, Tensor]:
    tensors = {f"network/{name}": x for name, x in fit.network.named_tensors()}
    if not isinstance(fit.trainer.optimizer, LBFGS):
        tensors |= {f"optimizer/{name}": x for name, x in fit.trainer.optimizer.named_tensors().items()}
    return tensors


def _identity(fit: Fit) -> dict[str, Any]:
    """Return what must be the same for a training to be resumed."""
    settings = ("optimizer", "loss", "observations", "batch_size", "shuffle", "drop_last")
    return {name: fit.history.settings[name] for name in settings}


def _refuse_another(fit: Fit, checkpoint: Checkpoint) -> None:
    theirs = checkpoint.values["identity"]
    ours = json.loads(json.dumps(_identity(fit)))
    different = [
        f"{name} was {theirs.get(name)!r}, now it is {value!r}"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]
    if different:
        raise ValueError("; ".join(different))
