"""The identity of a training: what was asked for, so that a resumed one can say what has changed."""

from __future__ import annotations

import platform
from typing import Any

import numpy

from minidl.layers import Layer
from minidl.optimizers.base import BaseOptimizer
from minidl.program.cpu import kernel_cache
from minidl.program.cpu.blas import default_threads
from minidl.training.loaders import Loader
from minidl.training.options import Options
from minidl.training.steps import CompiledSteps

#: Options that change nothing about what is computed.
_SHOWN = ("checkpoint_folder", "resume", "plot", "verbose", "verbose_frequency", "keep_checkpoints")
#: Options that decide the order of the mini-batches.
_ORDER = ("batch_size", "shuffle", "drop_last", "steps_per_epoch")


def identity(
    trainer: CompiledSteps, loader: Loader, validation: Loader | None, options: Options
) -> dict[str, dict[str, Any]]:
    """Return what decides a training besides the state of its network, in groups, as JSON can hold it.

    ``fixed`` cannot change when a training is resumed. Where ``order`` has changed, the epoch that was begun
    cannot go on; where ``judged`` has, earlier validations cannot be compared with later ones. Other
    ``options`` may change at any time; and what is computed with (``machine``) decides the rounding.
    """
    optimizer = trainer.optimizer
    values = options.to_dict()
    return {
        "fixed": {"optimizer": type(optimizer).__name__},
        "order": {
            "training data": loader.fingerprint,
            "observations": loader.observations,
            "seed": trainer.seed,
            **{name: values[name] for name in _ORDER},
        },
        "judged": {
            "objective": options.objective,
            "loss": _name(trainer.loss),
            "validation data": None if validation is None else validation.fingerprint,
        },
        "options": {
            **{
                name: x for name, x in values.items() if name not in (*_SHOWN, *_ORDER, "objective", "resume")
            },
            "learning_rate": _asked_rate(optimizer),
            "metrics": [*trainer.metrics],
            **{f"optimizer.{name}": x for name, x in _numbers(optimizer).items()},
            "factors of Parameters": _factors(trainer.network),
            "groups of Parameters": [_numbers(group) for group in getattr(optimizer, "groups", ())],
        },
        "machine": _machine(trainer),
    }


def _asked_rate(optimizer: BaseOptimizer) -> Any:
    """Return the learning rate if it is constant, or else the name and settings of the schedule."""
    schedule = getattr(optimizer, "schedule", None)
    if schedule is not None:
        text = repr(schedule)
        return _name(schedule) if " at 0x" in text else text
    rate = getattr(optimizer, "learning_rate", None)
    return None if rate is None else rate.item()


def _numbers(x: Any) -> dict[str, Any]:
    """Return the public attributes that are numbers."""
    return {
        name: value.item() if isinstance(value, numpy.generic) else value
        for name, value in vars(x).items()
        if not name.startswith("_") and isinstance(value, (int, float, numpy.generic))
    }


def _factors(network: Layer) -> dict[str, list[Any]]:
    """Return of each Parameter its factors of learning rate and L2, and whether it is trained."""
    return {
        name: [float(x.learning_rate_factor), float(x.l2_factor), x.requires_grad]
        for name, x in network.named_parameters()
    }


def _machine(trainer: CompiledSteps) -> dict[str, Any]:
    from minidl import __version__

    step = trainer.train_step
    machine = {"device": trainer.device, "compiled": hasattr(step, "kernels")}
    if machine["compiled"] and trainer.device == "cpu":
        has_compiler = step.kernels != "numpy" and kernel_cache.compiler() is not None
        machine["kernels"] = step.kernels if step.kernels != "auto" or has_compiler else "numpy"
        machine["threads"] = step.threads or default_threads()
    machine["precision"] = getattr(step, "precision", None)
    return machine | {
        "processor": platform.machine(),
        "minidl": __version__,
        "numpy": numpy.__version__,
    }


def _name(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return str(name or type(function).__name__)
