"""The options of Trainer.fit: their names, types, defaults and limits are stated here and nowhere else."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import numpy

from minidl.training.callbacks import Callback

Trains = TypeVar("Trains")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


@dataclass(kw_only=True)
class Options:
    """How to train; Trainer.fit describes each option."""

    epochs: int = 30
    batch_size: int = 128
    shuffle: str = "every-epoch"
    drop_last: bool = True
    steps_per_epoch: int | None = None
    accumulation_steps: int = 1
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
        for field in fields(Options):  # JSON, and so a checkpoint, holds no scalars of NumPy
            value = getattr(self, field.name)
            if isinstance(value, (numpy.generic, numpy.ndarray)) and value.ndim == 0:
                setattr(self, field.name, value.item())
        for name in (
            "accumulation_steps",
            "epochs",
            "verbose_frequency",
            "validation_patience",
            "keep_checkpoints",
        ):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.steps_per_epoch is not None and not (
            isinstance(self.steps_per_epoch, int) and self.steps_per_epoch >= 1
        ):
            raise ValueError(f"steps_per_epoch must be a number of steps, got {self.steps_per_epoch!r}")
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
        if not isinstance(self.plot, bool):
            require_place_for_plot(self.plot)
        if self.resume and self.checkpoint_folder is None:
            raise ValueError("resume=True needs the checkpoint_folder to resume from")

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON can hold them."""
        values = {field.name: getattr(self, field.name) for field in fields(Options)}
        return {name: fspath(x) if isinstance(x, PathLike) else x for name, x in values.items()}


def require_place_for_plot(path: str | PathLike[str]) -> None:
    """Refuse a file that a plot could not be written to, before the training that it shall show."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"plot: there is no folder {str(path.parent)!r}")
    if path.is_dir():
        raise ValueError(f"plot: {str(path)!r} is a folder; name a file in it")
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in formats:
        raise ValueError(
            f"plot: {path.suffix!r} is not a format of matplotlib; use one of {', '.join(sorted(formats))}"
        )


@dataclass
class FitArguments(Options):
    """All that Trainer.fit takes: the data, functions to call, and the options."""

    x: Any
    y: Any = None
    _: KW_ONLY
    sample_weight: Any = None
    class_weight: Mapping[int, float] | Sequence[float] | None = None
    validation_data: Any = None
    validation_split: float | None = None
    callbacks: Iterable[Callback | Callable[[Any], Any]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_split is not None:
            if self.validation_data is not None:
                raise ValueError("give validation_data or validation_split, not both")
            if not 0 < self.validation_split < 1:
                raise ValueError(f"validation_split must be between 0 and 1, got {self.validation_split}")


def takes_fit_arguments(
    arguments: Callable[Parameters, FitArguments],
) -> Callable[[Callable[[Trains, FitArguments], Result]], Callable[Concatenate[Trains, Parameters], Result]]:
    """Let a method that is written with FitArguments be called with what FitArguments is made from.

    So the signature that type checkers, editors and ``help()`` show is that of the dataclass.
    """

    def decorate(
        method: Callable[[Trains, FitArguments], Result],
    ) -> Callable[Concatenate[Trains, Parameters], Result]:
        own = inspect.signature(method)
        own_self = next(iter(own.parameters.values()))
        given = inspect.signature(arguments).parameters.values()
        signature = own.replace(parameters=[own_self, *given])

        @functools.wraps(method)
        def call(self: Trains, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                signature.bind(self, *args, **kwargs)
            except TypeError as error:  # names the method, not the dataclass
                raise TypeError(f"{method.__qualname__}() {error}") from None
            return method(self, arguments(*args, **kwargs))

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in given} | {"return": own.return_annotation}
        return cast("Callable[Concatenate[Trains, Parameters], Result]", call)

    return decorate


def due(frequency: int | str, step: int) -> bool:
    """Return whether it is time after a step; what is done after each "epoch" is done elsewhere."""
    return frequency != "epoch" and step % int(frequency) == 0
