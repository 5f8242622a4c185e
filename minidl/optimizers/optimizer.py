"""Optimizer: what update rules share - gradients, regularisation, clipping, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy

from minidl import devices
from minidl.creation import full
from minidl.mode import mode, no_grad
from minidl.optimizers.base import BaseOptimizer
from minidl.optimizers.groups import UNGROUPED, groups_of
from minidl.primitives.elementwise import clip, maximum, minimum, sqrt
from minidl.tensor import Parameter, Tensor

Schedule = Callable[[Tensor], Tensor]


class OptimizerOptions(TypedDict, total=False):
    """The options that every Optimizer has, for type checkers."""

    l2: float
    clip_value: float | None
    clip_norm: float | None
    clip_global_norm: float | None
    average_decay: float | None


class Optimizer(BaseOptimizer):
    """The base of optimizers that take one step for each mini-batch.

    A subclass writes ``initial_state`` and ``update``.

    Everything that changes from step to step (the step count, the learning rate, moments) is a
    Tensor, so that a recorded step reads and updates it when it is replayed.

    Parameters
    ----------
    parameters : Parameters to train; one that is listed twice is trained once. Or groups of them with
        settings of their own, dicts such as ``{"parameters": head.parameters(), "learning_rate": 0.01,
        "l2": 0.0}``. In place of a learning_rate, a group can have a ``learning_rate_factor``: either
        way its rate is a multiple of the optimizer's, and so follows when that changes
    learning_rate : a number, or a schedule: a function from the number of steps made so far (a 0-d
        float64 Tensor) to the learning rate; see `minidl.schedules`
    l2 : L2 regularisation: ``l2 * parameter.l2_factor * parameter`` is added to the gradient
        (after clipping). The factor is 1 for weights and 0 for biases unless it is set.
    clip_value : limit each element of a gradient to [-clip_value, clip_value]
    clip_norm : scale a Parameter's gradient down to this Euclidean norm
    clip_global_norm : scale all gradients together down to this Euclidean norm; those of Parameters
        with a learning_rate_factor of 0 count as well
    average_decay : keep an exponential moving average of the weights, for ``averaged()``: after step t,
        ``average = d * average + (1 - d) * parameter`` with ``d = min(average_decay, (1 + t) / (10 + t))``,
        which forgets the first steps soon. It is saved and resumed as other state
    """

    #: Which options a group of Parameters may have of its own, besides its learning rate.
    group_options: tuple[str, ...] = ("l2",)

    def __init__(
        self,
        parameters: Iterable[Parameter | Mapping[str, Any]],
        learning_rate: float | Schedule,
        l2: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        clip_global_norm: float | None = None,
        average_decay: float | None = None,
    ):
        self.groups = groups_of(type(self).__name__, parameters, learning_rate, self.group_options)
        super().__init__([parameter for group in self.groups for parameter in group.parameters], l2)
        if average_decay is not None and not 0 <= average_decay < 1:
            raise ValueError(
                f"{type(self).__name__}: average_decay must be at least 0 and below 1, got {average_decay}"
            )
        limits = {"clip_value": clip_value, "clip_norm": clip_norm, "clip_global_norm": clip_global_norm}
        for name, limit in limits.items():
            self.require_not_negative(name, limit)
        device = self.parameters[0].device
        self.step_count = full((), 0, numpy.float64, device)
        self._learning_rate = full((), 0, numpy.float64, device)
        self.schedule: Schedule | None = None
        self.learning_rate = learning_rate
        self.clip_value = clip_value
        self.clip_norm = clip_norm
        self.clip_global_norm = clip_global_norm
        self.average_decay = average_decay
        self.states = [self._moved(parameter, self.initial_state(parameter)) for parameter in self.parameters]
        self._is_averaged = False
        self.averages = [] if average_decay is None else [_wide(p.detach()).copy() for p in self.parameters]

    @property
    def learning_rate(self) -> Tensor:
        """The learning rate of the latest step, a 0-d float64 Tensor; set it to a number or a schedule.

        What is set counts from the next step on, in compiled steps too.
        """
        return self._learning_rate

    @learning_rate.setter
    @no_grad()
    def learning_rate(self, learning_rate: float | Schedule | Tensor) -> None:
        if callable(learning_rate):
            self.schedule = learning_rate
            self._learning_rate.assign(learning_rate(self.step_count))
        else:
            self.set_learning_rate(learning_rate)

    def set_learning_rate(self, learning_rate: float | Tensor) -> None:
        """Use another constant learning rate from the next step on."""
        if not hasattr(type(learning_rate), "__float__"):
            raise TypeError(
                f"{type(self).__name__}: learning_rate is a number or a schedule, got {learning_rate!r}"
            )
        if not isinstance(learning_rate, Tensor) and not (
            learning_rate >= 0 and math.isfinite(learning_rate)
        ):
            raise ValueError(
                f"{type(self).__name__}: learning_rate must be finite and not negative, got {learning_rate}"
            )
        self.schedule = None
        self._learning_rate.assign(learning_rate)

    def initial_state(self, parameter: Parameter) -> dict[str, Tensor]:
        """Return the state kept for one Parameter, by the names under which update() gets it."""
        return {}

    def begin_step(self) -> dict[str, Tensor] | None:
        """Return what all updates of one step share, by the names under which update() gets it.

        ``step_count`` counts this step already.
        """
        return None

    def update(self, parameter: Parameter, gradient: Tensor, rate: Tensor, **state: Any) -> None:
        """Assign new values to one Parameter and its state; ``rate`` is its learning rate.

        ``state`` holds by name the Parameter's state, what ``begin_step`` returned, and the values of
        ``group_options`` besides l2.
        """
        raise NotImplementedError

    @no_grad()
    def step(self) -> None:
        """Update all Parameters that have a gradient, and clear the gradients.

        Raises
        ------
        RuntimeError
            No Parameter has a gradient: backward() was not called. Or the weights are averaged().
        """
        if self._is_averaged:
            raise RuntimeError(f"{type(self).__name__}.step(): no training while the weights are averaged()")
        if mode.recorder is None:
            self._step()
        else:
            with mode.recorder.phase("update"):
                self._step()

    def _step(self) -> None:
        device = self.parameters[0].device
        for x in (self.step_count, self.learning_rate):
            move_state(x, device, x.dtype)
        groups = {id(parameter): group for group in self.groups for parameter in group.parameters}
        chosen = [
            (parameter, state, groups.get(id(parameter), UNGROUPED))
            for parameter, state in zip(self.parameters, self.states, strict=True)
            if parameter.grad is not None
        ]
        if not chosen:
            raise RuntimeError(f"{type(self).__name__}.step(): no gradients; call loss.backward() first")
        if self.schedule is not None:
            self.learning_rate.assign(self.schedule(self.step_count))
        self.step_count.assign(self.step_count + 1)
        shared = self.begin_step() or {}
        gradients = self._clipped([_wide(parameter.grad) for parameter, _, _ in chosen])  # type: ignore[arg-type]
        for (parameter, state, group), gradient in zip(chosen, gradients, strict=True):
            parameter.grad = None
            factor = parameter.learning_rate_factor * group.learning_rate_factor
            if factor == 0:
                continue
            own = {name: getattr(group, name, None) for name in self.group_options}
            options = {name: getattr(self, name) if x is None else x for name, x in own.items()}
            strength = options.pop("l2") * parameter.l2_factor
            if strength:
                gradient = gradient + strength * parameter
            rate = self.learning_rate * factor
            self.update(parameter, gradient, rate, **shared, **self._moved(parameter, state), **options)
        self._average()

    def _average(self) -> None:
        """Move the averages towards the weights."""
        if not self.averages:
            return
        decay = minimum((1 + self.step_count) / (10 + self.step_count), self.average_decay)
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            move_state(average, parameter.device, _working_dtype(parameter.dtype))
            average.assign(average + (1 - decay).astype(average.dtype) * (_wide(parameter) - average))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the Parameters their averages, for a ``with`` block: to evaluate, predict or save.

        Afterwards they have their own values again, and training can go on.

        Raises
        ------
        RuntimeError
            The optimizer was made without ``average_decay``, or the weights are averaged already.
        """
        if not self.averages or self._is_averaged:
            why = "they are already" if self.averages else "make it with average_decay, for example 0.999"
            raise RuntimeError(f"{type(self).__name__}.averaged(): {why}")
        with no_grad():
            originals = [parameter.copy() for parameter in self.parameters]
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                move_state(average, parameter.device, _working_dtype(parameter.dtype))
                parameter.assign(average)
        self._is_averaged = True
        try:
            yield
        finally:
            self._is_averaged = False
            with no_grad():
                for parameter, original in zip(self.parameters, originals, strict=True):
                    move_state(original, parameter.device, parameter.dtype)
                    parameter.assign(original)

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all state by name: step count, learning rate, and what is kept for each Parameter.

        Parameters count by their place in ``parameters``.
        """
        tensors = {"step_count": self.step_count, "learning_rate": self.learning_rate}
        for i, state in enumerate(self.states):
            tensors |= {f"{i}.{name}": x for name, x in state.items()}
        return tensors | {f"{i}.average": x for i, x in enumerate(self.averages)}

    def settings(self) -> dict[str, Any]:
        """Return what a History records about the optimizer, the schedule included."""
        schedule = "constant" if self.schedule is None else repr(self.schedule)
        settings = super().settings() | {"learning_rate_schedule": schedule}
        own = [group.settings() for group in self.groups]
        return settings | ({"groups": own} if len(own) > 1 else {})

    def _clipped(self, gradients: list[Tensor]) -> list[Tensor]:
        if self.clip_value is not None:
            gradients = [clip(g, -self.clip_value, self.clip_value) for g in gradients]
        if self.clip_norm is not None and math.isfinite(self.clip_norm):
            gradients = [g * clip_factor(self.clip_norm, _norm([g])) for g in gradients]
        if self.clip_global_norm is not None and math.isfinite(self.clip_global_norm):
            factor = clip_factor(self.clip_global_norm, _norm(gradients))
            gradients = [g * factor.astype(g.dtype) for g in gradients]
        return gradients

    def _moved(self, parameter: Parameter, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state on the device of its Parameter, in its working dtype."""
        for x in state.values():
            move_state(x, parameter.device, _working_dtype(parameter.dtype))
        return state


def require_epsilon(optimizer: str, epsilon: float) -> None:
    """Refuse an epsilon that could make a divisor 0 or negative."""
    if not epsilon >= 0:
        raise ValueError(f"{optimizer}: epsilon must not be negative, got {epsilon}")


def _working_dtype(dtype: numpy.dtype) -> numpy.dtype:
    """Return the dtype of gradients and state in a step: squares and epsilon leave the range of float16."""
    return numpy.dtype(numpy.float32) if dtype == numpy.float16 else dtype


def _wide(x: Tensor) -> Tensor:
    return x.astype(_working_dtype(x.dtype))


def move_state(x: Tensor, device: str, dtype: numpy.dtype) -> None:
    """Move and convert a Tensor of state after its network was moved or converted.

    As in Layer.to(), the Tensor stays the same object, so a step that is being recorded may do this too.
    """
    if x.device != device or x.dtype != dtype:
        x.data = devices.cast(devices.to_device(x.data, device), dtype)


def _norm(gradients: list[Tensor]) -> Tensor:
    total: Any = 0.0
    for g in gradients:
        total = total + (g * g).sum()
    return sqrt(total)


def clip_factor(limit: float, norm: Tensor) -> Tensor:
    """Return the factor that scales a norm down to the limit: exactly 1 if it is not above it."""
    tiny = float(numpy.finfo(norm.dtype).tiny)  # spares 0 / 0
    return limit / maximum(norm, max(limit, tiny))
