"""Gradient checks: what backward computes, compared with difference quotients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.checks.diagnosis import Diagnosis
from minidl.checks.differences import WRONG, Comparison, Differences, Tolerance, relative_error
from minidl.checks.hints import plot_errors
from minidl.checks.isolation import IsolatedFunction, outputs_of, with_tape
from minidl.checks.report import GradientReport
from minidl.mode import mode
from minidl.tensor import Tensor


class GradientError(AssertionError):
    """A gradient differs from the difference quotients; the message says where, and the likely cause."""


def check_gradients(
    function: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    relative_tolerance: float = 1e-5,
    absolute_tolerance: float = 1e-7,
    sample: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients of a function with central differences, in float64.

    The function's outputs are weighted with random numbers and summed; the gradient of that sum with
    respect to every floating-point input, and to every Parameter that the function uses, is compared
    with (f(x + h) - f(x - h)) / 2h. Where the function has no derivative (a relu at 0), the element
    is skipped, and the report says so.

    While it is checked, everything the function uses is float64, and each call starts from the same
    Parameters, state and random numbers; afterwards everything is restored, bit for bit.

    Parameters
    ----------
    function : takes Tensors, returns a Tensor or several: a function, a Layer, a method of a Layer, or one
        of these compiled. If it calls backward() itself (a training step without the optimizer's),
        it must return the loss, and the gradients it leaves on the Parameters are checked.
    inputs : arrays or Tensors; floating-point ones are converted to float64, others stay as
        they are
    order : 2 checks the gradients of the gradients as well
    relative_tolerance, absolute_tolerance : a difference is an error if it is larger than
        ``absolute_tolerance + relative_tolerance * |measured|`` and the rounding of the measurement;
        the absolute tolerance is multiplied by the largest gradient where that is below 1
    sample : how much of each Tensor is measured: all its elements if there are no more than this, else
        as many random directions. By default all elements up to 200, and 16 directions beyond.
    seed : of the random weights and directions

    Returns
    -------
    GradientReport
        What was compared; it prints as a table.

    Raises
    ------
    GradientError
        A gradient is wrong. For each input or Parameter, the message gives the worst element, both
        values, the relative error, the likely cause, and a map of where the errors are.
    """
    if order not in (1, 2):
        raise ValueError(f"check_gradients: order must be 1 or 2, got {order}")
    if sample is not None and sample < 1:
        raise ValueError(f"check_gradients: sample must be at least 1, got {sample}")
    if mode.recorder is not None:
        raise RuntimeError("check_gradients cannot be part of a compiled function")
    tolerance = Tolerance(relative_tolerance, absolute_tolerance)
    with with_tape(), IsolatedFunction(function, inputs) as isolated:
        check = _Check(isolated, tolerance, sample, seed)
        comparisons = check.run()
        if order == 2:
            if check.calls_backward:
                raise ValueError(
                    "check_gradients: order=2 needs a function that does not call backward() itself"
                )
            names = {id(x): name for name, x in isolated.watched().items()}
            with IsolatedFunction(check.gradients_as_outputs, isolated.inputs, names) as second:
                comparisons += _Check(second, tolerance, sample, seed + 1, "second order, ").run()
    return GradientReport(comparisons)


class _Check:
    """One comparison of all gradients of an isolated function."""

    def __init__(
        self, isolated: IsolatedFunction, tolerance: Tolerance, sample: int | None, seed: int, title: str = ""
    ):
        self.isolated, self.title = isolated, title
        self.rng = numpy.random.default_rng(seed)
        self.differences = Differences(self.value, tolerance, sample, self.rng)
        self.weights: list[Tensor] = []
        self.calls_backward = False

    # --- the scalar that is differentiated --------------------------------------------------------

    def total(self, outputs: list[Tensor]) -> Tensor:
        """Return the weighted sum of the outputs."""
        if not outputs:
            raise ValueError("check_gradients: the function returns no floating-point Tensor")
        if not self.weights:
            self.weights = [self._weight(y) for y in outputs]
        terms = [(y * w).sum() for y, w in zip(outputs, self.weights, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def _weight(self, y: Tensor) -> Tensor:
        if y.dtype != numpy.float64:
            raise GradientError(
                f"the function returns {y.dtype} where all that went in is float64: something in it converts "
                "to a fixed dtype, so its gradients cannot be measured; take the dtype from the input"
            )
        if self.calls_backward:
            return y.ones_like()
        return Tensor(devices.to_device(self.rng.uniform(0.5, 1.5, y.shape), y.device))

    def value(self) -> float:
        """Return the weighted sum for the inputs and Parameters as they are now."""
        return float(self.total(self.isolated.call()).item())

    def gradients_as_outputs(self, *inputs: Tensor) -> list[Tensor]:
        """Return the gradients as a differentiable function of the inputs."""
        watched = [x for x in inputs if x.requires_grad]
        watched += [x for name, x in self.isolated.watched().items() if not name.startswith("input ")]
        total = self.total(outputs_of(self.isolated.eager(*inputs)))
        gradients: list[Tensor] = autodiff.grad(total, watched, create_graph=True)
        return gradients

    # --- the comparison ---------------------------------------------------------------------------

    def run(self) -> list[Comparison]:
        """Return the comparisons, or raise GradientError with everything that is wrong."""
        watched = self.isolated.watched()
        if not watched:
            raise ValueError("check_gradients: no floating-point input and no Parameter to differentiate for")
        self._refuse_updates()
        given = self.gradients(watched)
        if self.calls_backward and self.isolated.function is not self.isolated.eager:
            # A compiled function returns the gradients of Parameters, not those of its arguments.
            watched = {
                name: x for name, x in watched.items() if not any(x is y for y in self.isolated.inputs)
            }
            given = {name: given[name] for name in watched}
        self._require_repeatable(watched, given)
        self._adapt_tolerance(given)
        comparisons = [
            self.differences.compare(name, x, devices.to_numpy(given[name].data))
            for name, x in watched.items()
        ]
        wrong = [comparison for comparison in comparisons if comparison.is_wrong]
        if wrong:
            raise GradientError(self._message(wrong, watched))
        for comparison in comparisons:
            comparison.name = f"{self.title}{comparison.name}"
        return comparisons

    def gradients(self, watched: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what backward gives for each watched Tensor."""
        kept = [devices.copy(x.data) for x in self.isolated.inputs]
        eager = not self.calls_backward
        outputs = self.isolated.call(eager=True) if eager else self.isolated.call()
        if eager and any(x.grad is not None for x in watched.values()):
            self.calls_backward = True
            if len(outputs) != 1 or outputs[0].size != 1:
                raise ValueError(
                    "check_gradients: a function that calls backward() itself must return the loss alone"
                )
            return self.gradients(watched)
        self._require_inputs_untouched(kept)
        total = self.total(outputs)
        if self.calls_backward:
            return {name: x.zeros_like() if x.grad is None else x.grad for name, x in watched.items()}
        try:
            found = autodiff.grad(total, list(watched.values()))
        except Exception as error:
            raise GradientError(self._failure(error)) from error
        return dict(zip(watched, found, strict=True))

    def _adapt_tolerance(self, given: dict[str, Tensor]) -> None:
        """Lower the tolerance where all gradients are small, as those of a mean over many elements are."""
        largest = max(float(numpy.abs(devices.to_numpy(g.data)).max(initial=0.0)) for g in given.values())
        if 0 < largest < 1:
            tolerance = self.differences.tolerance
            self.differences.tolerance = Tolerance(tolerance.relative, tolerance.absolute * largest)

    def _refuse_updates(self) -> None:
        updated = self.isolated.updated_parameters()
        if updated:
            raise GradientError(
                f"the function assigns new values to {', '.join(updated)}, so it has no gradient: give "
                "check_gradients the loss alone, without optimizer.step()"
            )

    def _require_inputs_untouched(self, kept: list[Any]) -> None:
        for i, (x, before) in enumerate(zip(self.isolated.inputs, kept, strict=True)):
            if not numpy.array_equal(
                devices.to_numpy(x.data), devices.to_numpy(before), equal_nan=x.dtype.kind == "f"
            ):
                devices.write(x.data, before)
                raise GradientError(
                    f"the function overwrites its input {i}: compute a new array (x * 2, not x.data *= 2)"
                )

    def _require_repeatable(self, watched: dict[str, Tensor], given: dict[str, Tensor]) -> None:
        """Call the function again: value and gradients must be the same."""
        eager = self.total(self.isolated.call(eager=True)).item()
        for _ in range(2):  # a compiled function records, then replays
            again = self.value()
            if not _close(again, eager):
                if self.isolated.function is not self.isolated.eager:
                    raise GradientError(
                        f"compiled, the function gives {again:.12g}; as it is written, {eager:.12g}"
                    )
                raise GradientError(
                    f"the function is not repeatable: with the same inputs it gives {again:.12g} where it "
                    f"gave {eager:.12g}. It keeps something from call to call in an attribute, or draws "
                    "random numbers outside minidl.Generator"
                )
        repeated = self.gradients(watched)
        for name, x in given.items():
            a, b = (devices.to_numpy(g.data) for g in (x, repeated[name]))
            if not numpy.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True):
                raise GradientError(
                    f"{name}: called again with the same inputs, the function gives the same values but "
                    "another gradient: it uses a result that it kept from an earlier call (a stale cache)"
                )

    # --- the message ------------------------------------------------------------------------------

    def _diagnosis(self) -> Diagnosis:
        from minidl.program.recorder import users_line

        trace, outputs = self.isolated.trace()
        counts = {
            x.shape[0]: "the number of observations (the length of axis 0)"
            for x in reversed([*self.isolated.inputs, *outputs])
            if x.ndim
        }
        for y in outputs:
            counts.setdefault(y.size, "the number of elements of an output")
        return Diagnosis(trace, outputs, counts, users_line())

    def _failure(self, error: Exception) -> str:
        """Return the message for an exception in backward."""
        text = f"{self.title}backward fails: {type(error).__name__}: {error}"
        if isinstance(error, RuntimeError) and "has been here before" in str(error):
            return f"{text}\n  likely cause: the function uses a result that it kept from an earlier call"
        diagnosis = self._diagnosis()
        causes = [
            cause
            for x in self.isolated.watched().values()
            for cause in diagnosis._guilty_operations(x, diagnosis.trace.descendants(x))
        ]
        return text + "".join(f"\n  likely cause: {cause}" for cause in dict.fromkeys(causes))

    def _message(self, wrong: list[Comparison], watched: dict[str, Tensor]) -> str:
        diagnosis = self._diagnosis()
        return "\n\n".join(
            self._description(comparison, diagnosis.causes(watched[comparison.name], comparison))
            for comparison in wrong
        )

    def _description(self, comparison: Comparison, causes: list[str]) -> str:
        number = int((comparison.states == WRONG).sum())
        measured = int((comparison.states != 0).sum())
        worst = comparison.worst()
        given, right = float(comparison.given[worst]), float(comparison.measured[worst])
        title = f"{self.title}{comparison.name} {comparison.given.shape}"
        lines = [
            f"{title}: {number} of {measured} gradients are wrong",
            f"  at {worst}, backward gives {given:.8g}, the difference quotient is {right:.8g}: "
            f"relative error {relative_error(given, right):.2g}",
            *(f"  likely cause: {cause}" for cause in causes),
        ]
        plot = plot_errors(comparison)
        return "\n".join(lines) + (f"\n  {plot}".replace("\n", "\n  ") if plot else "")


def _close(a: float, b: float) -> bool:
    return bool(numpy.isclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))
