"""From a training to a Checkpoint and back: all that decides how it goes on."""

from __future__ import annotations

from dataclasses import asdict

import numpy

from minidl import devices, weights
from minidl.random.generator import Generator, default_generator
from minidl.tensor import Tensor
from minidl.training.checkpoints import Checkpoint
from minidl.training.run_state import RunState

POSITION = ("step", "epoch", "position")
_SHARED = "dl.random"  # the name of the Generator that is used where none is given


def capture(run: RunState) -> Checkpoint:
    """Return what decides the next steps of a training: weights, optimizer, generators and position."""
    arrays = {name: x.numpy() for name, x in _tensors(run).items()}
    generators = {name: g.state_dict() for name, g in _generators(run).items()}
    position = {name: getattr(run, name) for name in POSITION}
    return Checkpoint(arrays, {**position, "generators": generators})


def restore(run: RunState, captured: Checkpoint) -> None:
    """Bring a training back to a capture(); if it does not fit, nothing is changed."""
    arrays = {
        name: array for name, array in captured.arrays.items() if name.startswith(("network/", "optimizer/"))
    }
    generators, states = _generators(run), captured.values["generators"]
    if generators.keys() != states.keys():
        theirs, ours = ([name for name in names if name != _SHARED] for names in (states, generators))
        raise ValueError(f"its random generators are {theirs}, those of the network {ours}")
    for name, generator in generators.items():
        generator.check_state(states[name], name)
    weights.load_state(_tensors(run), arrays, "the checkpoint")
    for name, generator in generators.items():
        generator.load_state_dict(states[name])
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
        "identity": run.identity,
        "callbacks": [[type(callback).__name__, callback.state_dict()] for callback in run.callbacks],
    }
    return checkpoint


def _generators(run: RunState) -> dict[str, Generator]:
    return {**dict(run.network.named_generators()), _SHARED: default_generator}


def _tensors(run: RunState) -> dict[str, Tensor]:
    network = {f"network/{name}": x for name, x in run.network.named_tensors()}
    return network | {f"optimizer/{name}": x for name, x in run.trainer.optimizer.named_tensors().items()}
