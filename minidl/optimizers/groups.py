"""Parameter groups: Parameters of one optimizer that have settings of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minidl.tensor import Parameter, Tensor
from minidl.tracking import Tracked


class ParameterGroup(Tracked):
    """Some of an optimizer's Parameters, and the settings in which they differ from the others.

    An optimizer makes its groups from the dicts it is given; afterwards they are ``optimizer.groups``,
    and what is set there counts from the next step on, in compiled steps too.

    Attributes
    ----------
    parameters : the Parameters, a list
    learning_rate_factor : what the optimizer's learning rate is multiplied by, as all schedules are
    l2, ... : options of this group, by name; None means that the optimizer's own counts
    """

    parameters: list[Parameter]
    learning_rate_factor: float
    _names: tuple[str, ...]

    def __init__(
        self, parameters: list[Parameter], learning_rate_factor: float = 1.0, **options: float | None
    ):
        object.__setattr__(self, "_names", ("parameters", "learning_rate_factor", *options))
        self.parameters = parameters
        self.learning_rate_factor = learning_rate_factor
        for name, value in options.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._names:
            raise AttributeError(
                f"a parameter group has no setting {name!r}; it has {', '.join(self._names[1:])}"
            )
        if name != "parameters" and not (value is None and name != "learning_rate_factor"):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"a parameter group's {name} must be finite and not negative, got {value}")
            value = float(value)  # a scalar of NumPy could turn float32 gradients into float64
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        settings = [
            f"{name}={getattr(self, name)}" for name in self._names[1:] if getattr(self, name) is not None
        ]
        return f"ParameterGroup({len(self.parameters)} parameters, {', '.join(settings)})"

    def settings(self) -> dict[str, Any]:
        """Return what differs from the optimizer's own settings."""
        return {name: getattr(self, name) for name in self._names[1:] if getattr(self, name) is not None}


#: The group of Parameters that were put into an optimizer's list later: the optimizer's own settings count.
UNGROUPED = ParameterGroup([])


def require_list_of_parameters(optimizer: str, parameters: Any) -> None:
    """Refuse a network, one Parameter, and whatever else is no list of Parameters."""
    what = type(parameters).__name__
    if isinstance(parameters, Tensor):
        raise TypeError(f"{optimizer} takes a list of Parameters, got {what}: write [parameter]")
    if callable(getattr(parameters, "parameters", None)):
        raise TypeError(f"{optimizer} takes a list of Parameters, got {what}: write network.parameters()")
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{optimizer} takes a list of Parameters, got {what}")


def groups_of(
    optimizer: str, parameters: Iterable[Any], learning_rate: Any, options: Sequence[str]
) -> list[ParameterGroup]:
    """Return the groups that an optimizer was given: Parameters, dicts of them, or both mixed.

    Parameters
    ----------
    optimizer : its name, for errors
    parameters : Parameters, and dicts with ``"parameters"``, and perhaps ``"learning_rate"`` or
        ``"learning_rate_factor"`` and others of the options. What stands outside of dicts is one group
    learning_rate : the optimizer's, which a group's own is a multiple of
    options : the settings that a group may have
    """
    if isinstance(parameters, Mapping):
        raise TypeError(f"{optimizer} takes a list of groups, got one: put it into a list, [{{...}}]")
    require_list_of_parameters(optimizer, parameters)
    plain: list[Any] = []
    dicts: list[Mapping[str, Any]] = []
    for x in parameters:
        (dicts if isinstance(x, Mapping) else plain).append(x)
    unset: dict[str, Any] = dict.fromkeys(options)
    groups = [ParameterGroup(_distinct(plain), **unset)] if plain or not dicts else []
    for i, given in enumerate(dicts):
        where = f"{optimizer}: group {i}"
        _require_known(where, given, options)
        factor = _factor(where, given, learning_rate)
        chosen = {name: given.get(name) for name in options}
        groups.append(ParameterGroup(_distinct(given["parameters"]), factor, **chosen))
    seen: dict[int, Parameter] = {}
    for group in groups:
        for parameter in group.parameters:
            if id(parameter) in seen:
                shape = getattr(parameter, "shape", "")
                raise ValueError(f"{optimizer}: a Parameter of shape {shape} is in two groups")
        seen |= {id(parameter): parameter for parameter in group.parameters}
    return groups


def _distinct(parameters: Any) -> list[Parameter]:
    if isinstance(parameters, Parameter):
        parameters = [parameters]
    return list({id(parameter): parameter for parameter in parameters}.values())


def _require_known(where: str, given: Mapping[str, Any], options: Sequence[str]) -> None:
    from minidl.foreign_names import OPTIONS, hint  # not needed by those who only import minidl

    known = ["parameters", "learning_rate", "learning_rate_factor", *options]
    for name in given:
        if name not in known:
            raise TypeError(
                f"{where} has no setting {name!r}{hint(str(name), known, OPTIONS)} (it takes "
                f"{', '.join(known)}; other options are those of all groups: for others, use two optimizers)"
            )
    if "parameters" not in given:
        raise TypeError(f"{where} has no 'parameters': give a dict such as {{'parameters': [...], ...}}")


def _factor(where: str, given: Mapping[str, Any], learning_rate: Any) -> float:
    """Return what the optimizer's learning rate is multiplied by to give the group's."""
    rate, factor = given.get("learning_rate"), given.get("learning_rate_factor")
    if rate is None:
        return 1.0 if factor is None else factor
    if factor is not None:
        raise TypeError(f"{where} has both a learning_rate and a learning_rate_factor: give one of them")
    if callable(rate) or callable(learning_rate):
        raise TypeError(
            f"{where}: with a schedule, give the group a learning_rate_factor, by which the optimizer's "
            "schedule is multiplied"
        )
    if not learning_rate > 0:
        raise ValueError(
            f"{where}: its learning_rate is a multiple of the optimizer's, which is {learning_rate}"
        )
    result: float = rate / float(learning_rate)
    return result
