"""L-BFGS: full-batch training by SciPy's quasi-Newton method."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy

from minidl.optimizers.full_batch import AfterIteration, FullBatchOptimizer, Objective
from minidl.tensor import Parameter


class LBFGS(FullBatchOptimizer):
    """Limited-memory BFGS (Liu & Nocedal, 1989), for data that fits into one batch.

    SciPy's L-BFGS-B minimises the loss as a function of one float64 vector of all Parameters. Its line
    search computes the loss and the gradient as often as it needs them.

    Parameters
    ----------
    parameters, max_iterations, l2 : as for FullBatchOptimizer
    history_size : how many past iterations the curvature is estimated from
    gradient_tolerance : stop when no element of the gradient is larger
    loss_tolerance : stop when an iteration lowers the loss by less than this share of it
    history : deprecated name of history_size
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        max_iterations: int = 1000,
        history_size: int = 10,
        l2: float = 0.0,
        gradient_tolerance: float = 1e-5,
        loss_tolerance: float = 1e-9,
        *,
        history: int | None = None,
    ):
        super().__init__(parameters, max_iterations, l2)
        if history is not None:
            _warn_about_history(4)  # there is keywords.answering in between
            history_size = history
        if not history_size >= 1:
            raise ValueError(f"LBFGS: history_size must be at least 1, got {history_size}")
        self.history_size = history_size
        self.gradient_tolerance = gradient_tolerance
        self.loss_tolerance = loss_tolerance

    @property
    def history(self) -> int:
        """Deprecated name of history_size."""
        _warn_about_history()
        return self.history_size

    @history.setter
    def history(self, value: int) -> None:
        _warn_about_history()
        self.history_size = value

    def search(self, objective: Objective, start: numpy.ndarray, after_iteration: AfterIteration) -> str:
        """Run SciPy's L-BFGS-B; return its message."""
        from scipy.optimize import minimize

        def callback(intermediate_result: Any) -> None:  # SciPy asks for an argument of this name
            if after_iteration(intermediate_result.x, float(intermediate_result.fun)):
                raise StopIteration

        result = minimize(
            objective,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=callback,
            options={
                "maxiter": self.max_iterations,
                "maxcor": self.history_size,
                "maxfun": 20 * self.max_iterations,
                "gtol": self.gradient_tolerance,
                "ftol": self.loss_tolerance,
            },
        )
        return str(result.message).lower()


def _warn_about_history(frames: int = 3) -> None:
    warnings.warn("LBFGS: history is now called history_size", DeprecationWarning, stacklevel=frames)
