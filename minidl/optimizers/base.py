"""BaseOptimizer: what all optimizers share, those for mini-batches and those for a full batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import numpy

from minidl import weights
from minidl.optimizers.groups import require_list_of_parameters
from minidl.tensor import Parameter, Tensor
from minidl.tracking import Tracked


class BaseOptimizer(Tracked):
    """The Parameters that an optimizer trains, and what a Trainer asks of every optimizer.

    Two classes stand on it: `Optimizer`, which takes one step for each mini-batch, and
    `FullBatchOptimizer`, which minimises the loss of all data at once. A Trainer reads
    ``full_batch`` to know which of the two it drives.

    Parameters
    ----------
    parameters : Parameters to train; one that is listed twice is trained once
    l2 : strength of the L2 regularisation; Parameters scale it by their ``l2_factor``

    Raises
    ------
    ValueError
        There are no parameters, or l2 is negative.
    TypeError
        Something in the list is not a Parameter.
    """

    #: True if ``minimize(closure)`` trains on all data at once; False if ``step()`` follows each backward().
    full_batch = False

    def __init__(self, parameters: Iterable[Parameter], l2: float):
        require_list_of_parameters(type(self).__name__, parameters)
        self.parameters = list({id(parameter): parameter for parameter in parameters}.values())
        if not self.parameters:
            raise ValueError(f"{type(self).__name__} got no parameters to train")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                hint = ", and has no groups of them" if isinstance(parameter, dict) else ""
                raise TypeError(
                    f"{type(self).__name__} trains Parameters{hint}, got {type(parameter).__name__}"
                )
        self.require_not_negative("l2", l2)
        self.l2 = float(l2)  # a scalar of NumPy could turn float32 gradients into float64

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(self, name):
            self._require_no_foreign_name(name)
        super().__setattr__(name, value)

    def _require_no_foreign_name(self, name: str) -> None:
        """Refuse ``optimizer.lr = 0.1``, which would change nothing."""
        from minidl.foreign_names import OPTIONS, hint  # not needed by those who only import minidl

        if name in OPTIONS and name not in signature(type(self)).parameters:
            known = [*vars(self), "learning_rate"]
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}{hint(name, known, OPTIONS)}"
            )

    def require_not_negative(self, name: str, value: float | None) -> None:
        """Refuse an option that is negative or NaN; None means that it is not used."""
        if value is not None and not value >= 0:
            raise ValueError(f"{type(self).__name__}: {name} must not be negative, got {value}")

    def __repr__(self) -> str:
        """Return the settings that are numbers, and how many Parameters are trained."""
        public = {name: x for name, x in vars(self).items() if not name.startswith("_")}
        values = {n: x.item() if isinstance(x, numpy.generic) else x for n, x in public.items()}
        numbers = [f"{name}={x!r}" for name, x in values.items() if isinstance(x, (int, float))]
        count = len(self.parameters)
        trained = f"{count} Parameter" if count == 1 else f"{count} Parameters"
        return f"{type(self).__name__}({', '.join([trained, *numbers])})"

    def named_tensors(self) -> dict[str, Tensor]:
        """Return by name the Tensors that decide the next steps, besides the Parameters."""
        return {}

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Return a copy of all state by name, which is that of ``named_tensors``."""
        return {name: x.numpy() for name, x in self.named_tensors().items()}

    def load_state_dict(self, state: Mapping[str, numpy.ndarray]) -> None:
        """Set all state from a state_dict(): the next step, or ``minimize(resume=True)``, goes on from there.

        Raises
        ------
        ValueError
            Names are missing or unexpected, or shapes differ; all are listed, nothing is changed.
        """
        weights.load_state(self.named_tensors(), state, type(self).__name__)

    def settings(self) -> dict[str, Any]:
        """Return what a History records about the optimizer, in values that JSON can hold."""
        return {"l2": self.l2}

    def total_steps(self, planned: int | None) -> int | None:
        """Return how many steps a training makes at most, from those that epochs and data ask for."""
        return planned

    def zero_grad(self) -> None:
        """Drop all gradients without a step."""
        for parameter in self.parameters:
            parameter.grad = None
