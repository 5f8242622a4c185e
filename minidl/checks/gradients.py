"""Gradient checks: what backward computes, compared with difference quotients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.checks.diagnosis import Diagnosis
from minidl.checks.differences import (
    KINK,
    UNMEASURED,
    WRONG,
    Comparison,
    Differences,
    Evaluation,
    Part,
    Tolerance,
    parts_of_outputs,
    relative_error,
)
from minidl.checks.hints import plot_errors
from minidl.checks.isolation import IsolatedFunction, outputs_of, with_tape
from minidl.checks.report import GradientReport, reasons_not_compared
from minidl.mode import mode
from minidl.tensor import Tensor


class GradientError(AssertionError):
    """A gradient differs from the difference quotients; the message says where, and the likely cause."""


class NothingCompared(GradientError):
    """Nothing of an input, a Parameter or an output could be compared; the message says what to change."""


#: In how many parts outputs are compared at most, each of which takes a backward.
_MAX_PARTS = 4


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

    Each output is weighted with random numbers and summed; the gradient of that sum with respect to
    every floating-point input, and to every Parameter that the function uses, is compared with
    (f(x + h) - f(x - h)) / 2h. At a kink (a relu at 0) the gradient must lie between the slopes of the
    two sides. The report counts what was compared; if nothing of an output, an input or a Parameter
    could be, that is an error. Infinite numbers among the outputs are left out.

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
        the absolute tolerance is multiplied by the Tensor's largest gradient where that is below 1
    sample : how much of each Tensor is measured: all its elements if there are no more than this, else
        as many random directions. By default all elements up to 100, and 3 directions beyond, of which
        every second one gives elements with small gradients as much weight as others.
    seed : of the random weights and directions

    Returns
    -------
    GradientReport
        What was compared; it prints as a table.

    Raises
    ------
    GradientError
        A gradient is wrong, or nothing of one was compared. For each input or Parameter, the message gives
        the worst element, both values, the relative error, the likely cause, and a map of where the errors
        are.
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
        self.tolerance, self.sample = tolerance, sample
        self.rng = numpy.random.default_rng(seed)
        self.weights: list[numpy.ndarray] = []
        self.parts: list[Part] = []
        self.calls_backward = False

    # --- the numbers that are differentiated ------------------------------------------------------

    def split(self, outputs: list[Tensor]) -> None:
        """Split the outputs into parts, each with random weights."""
        if not outputs:
            raise ValueError("check_gradients: the function returns no floating-point Tensor")
        for y in outputs:
            if y.dtype != numpy.float64:
                raise GradientError(
                    f"the function returns {y.dtype} where all that went in is float64: something in it "
                    "converts to a fixed dtype, so its gradients cannot be measured; take the dtype from the "
                    "input"
                )
        if not self.weights:
            self.weights = [
                numpy.ones(y.shape) if self.calls_backward else self.rng.uniform(0.5, 1.5, y.shape)
                for y in outputs
            ]
        values = [_array(y) for y in outputs]
        for i, value in enumerate(values):
            if value.size and not numpy.isfinite(value).any():
                raise GradientError(
                    f"output {i}: none of its {value.size} numbers is finite, so nothing can be compared: "
                    "use other inputs"
                )
        limit = _MAX_PARTS if len(outputs) <= _MAX_PARTS else len(outputs)
        self.parts = parts_of_outputs(values, self.weights, limit)
        self.infinite = sum(int((~numpy.isfinite(value)).sum()) for value in values)

    def evaluate(self) -> Evaluation:
        """Return how much each part has changed, for the inputs and Parameters as they are now."""
        values = [_array(y) for y in self.isolated.call()]
        changes = [part.change(values[part.output]) for part in self.parts]
        return numpy.array([x for x, _ in changes]), numpy.array([x for _, x in changes])

    def gradients_as_outputs(self, *inputs: Tensor) -> list[Tensor]:
        """Return the gradients as a differentiable function of the inputs."""
        watched = [x for x in inputs if x.requires_grad]
        watched += [x for name, x in self.isolated.watched().items() if not name.startswith("input ")]
        outputs = outputs_of(self.isolated.eager(*inputs))
        terms = [
            (
                outputs[part.output] * Tensor(devices.to_device(part.weights, outputs[part.output].device))
            ).sum()
            for part in self.parts
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
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
        comparisons = self._compared(watched, given)
        wrong = self._without_kinks(comparisons, watched)
        if wrong:
            raise GradientError(self._message(wrong, watched))
        self._require_comparisons(comparisons)
        for comparison in comparisons:
            comparison.name = f"{self.title}{comparison.name}"
        return comparisons

    def _compared(self, watched: dict[str, Tensor], given: dict[str, numpy.ndarray]) -> list[Comparison]:
        names = [part.name for part in self.parts]
        self.differences = Differences(self.evaluate, self.tolerance, self.sample, self.rng, names)
        largest = numpy.array(
            [numpy.abs(part.start[part.weights != 0]).max(initial=0.0) for part in self.parts]
        )
        return [self.differences.compare(name, x, given[name], largest) for name, x in watched.items()]

    def _without_kinks(self, comparisons: list[Comparison], watched: dict[str, Tensor]) -> list[Comparison]:
        """Return the wrong comparisons, but for those at kinks where each operation's own gradient is right.

        relu(x) - 0.1 * relu(-x) has the gradient 0 at 0, which is not between its slopes 1 and 0.1.
        """
        wrong = [comparison for comparison in comparisons if comparison.is_wrong]
        if not any(comparison.at_kink for comparison in wrong):
            return wrong
        diagnosis = self._diagnosis()
        for comparison in wrong:
            x = watched[comparison.name]
            if comparison.at_kink and not diagnosis._guilty_operations(x, diagnosis.trace.descendants(x)):
                number = int((comparison.states == WRONG).sum())
                comparison.states[comparison.states == WRONG] = KINK
                comparison.kinks += number
        return [comparison for comparison in wrong if comparison.is_wrong]

    def _require_comparisons(self, comparisons: list[Comparison]) -> None:
        """Refuse a result in which nothing of an input, a Parameter or an output was compared."""
        for comparison in comparisons:
            if comparison.count and not comparison.compared:
                raise NothingCompared(
                    f"{self.title}{comparison.name} {comparison.given.shape}: nothing was compared: "
                    f"{reasons_not_compared(comparison)}; use other values"
                )
        counts = zip(self.parts, self.differences.compared, self.differences.left_out, strict=True)
        for part, compared, left_out in counts:
            if left_out and not compared:
                raise NothingCompared(
                    f"{self.title}{part.name}: nothing of it was compared: {left_out} times it had no "
                    "derivative, or was too ill-conditioned to tell; use other inputs"
                )

    def gradients(self, watched: dict[str, Tensor]) -> dict[str, numpy.ndarray]:
        """Return what backward gives for each watched Tensor: (parts, *shape)."""
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
        self.split(outputs)
        if self.calls_backward:
            return {
                name: (numpy.zeros(x.shape) if x.grad is None else _array(x.grad))[None]
                for name, x in watched.items()
            }
        try:
            found = [
                self._gradients_of(part, outputs[part.output], watched, part is not self.parts[-1])
                for part in self.parts
            ]
        except Exception as error:
            raise GradientError(self._failure(error)) from error
        return {name: numpy.stack([g[i] for g in found]) for i, name in enumerate(watched)}

    def _gradients_of(
        self, part: Part, y: Tensor, watched: dict[str, Tensor], keep: bool
    ) -> list[numpy.ndarray]:
        seed = Tensor(devices.to_device(part.weights, y.device))
        found = autodiff.grad(y, list(watched.values()), seed, retain_graph=keep)
        return [_array(g) for g in found]

    def _refuse_updates(self) -> None:
        updated = self.isolated.updated_parameters()
        if updated:
            raise GradientError(
                f"the function assigns new values to {', '.join(updated)}, so it has no gradient: give "
                "check_gradients the loss alone, without optimizer.step()"
            )

    def _require_inputs_untouched(self, kept: list[Any]) -> None:
        for i, (x, before) in enumerate(zip(self.isolated.inputs, kept, strict=True)):
            if not numpy.array_equal(_array(x), devices.to_numpy(before), equal_nan=x.dtype.kind == "f"):
                devices.write(x.data, before)
                raise GradientError(
                    f"the function overwrites its input {i}: compute a new array (x * 2, not x.data *= 2)"
                )

    def _require_repeatable(self, watched: dict[str, Tensor], given: dict[str, numpy.ndarray]) -> None:
        """Call the function again: values and gradients must be the same."""
        eager = [_array(y) for y in self.isolated.call(eager=True)]
        for _ in range(2):  # a compiled function records, then replays
            again = [_array(y) for y in self.isolated.call()]
            if len(again) != len(eager) or not all(map(_close, again, eager)):
                place = _first_difference(again, eager)
                if self.isolated.function is not self.isolated.eager:
                    raise GradientError(
                        f"compiled, the function gives {place[0]}; as it is written, {place[1]}"
                    )
                raise GradientError(
                    f"the function is not repeatable: with the same inputs it gives {place[0]} where it "
                    f"gave {place[1]}. It keeps something from call to call in an attribute, or draws "
                    "random numbers outside minidl.Generator"
                )
        parts = self.parts
        repeated = self.gradients(watched)
        self.parts = parts
        for name, x in given.items():
            if x.shape != repeated[name].shape or not _close(x, repeated[name]):
                raise GradientError(
                    f"{name}: called again with the same inputs, the function gives the same values but "
                    "another gradient: it uses a result that it kept from an earlier call (a stale cache)"
                )

    # --- the message ------------------------------------------------------------------------------

    def _diagnosis(self) -> Diagnosis:
        from minidl.program.recorder import users_line

        trace, outputs = self.isolated.trace()
        seeds = [(outputs[part.output], part.weights) for part in self.parts if part.output < len(outputs)]
        counts = {
            x.shape[0]: "the number of observations (the length of axis 0)"
            for x in reversed([*self.isolated.inputs, *outputs])
            if x.ndim
        }
        for y in outputs:
            counts.setdefault(y.size, "the number of elements of an output")
        return Diagnosis(trace, outputs, counts, users_line(), seeds)

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
        known: dict[tuple[str, ...], str] = {}
        texts = []
        for comparison in wrong:
            causes = diagnosis.causes(watched[comparison.name], comparison)
            first = known.setdefault(tuple(causes), comparison.name)
            texts.append(
                self._description(
                    comparison, causes if first == comparison.name else [f"the same as of {first}"]
                )
            )
        return "\n\n".join(texts)

    def _description(self, comparison: Comparison, causes: list[str]) -> str:
        number = int((comparison.states == WRONG).sum())
        measured = int((comparison.states != UNMEASURED).sum())
        worst = comparison.worst()
        given, right = float(comparison.given[worst]), float(comparison.measured[worst])
        title = f"{self.title}{comparison.name} {comparison.given.shape}"
        compared = (
            f"backward gives {given:.8g}, the difference quotient is {right:.8g}: "
            f"relative error {relative_error(given, right):.2g}"
        )
        if not numpy.isfinite(given):
            compared = f"backward gives {given:.8g}"
        elif comparison.slopes is not None:
            left, rest = comparison.slopes
            compared = (
                f"backward gives {given:.8g} at a kink, which is not between the slopes of its two sides, "
                f"{left:.8g} and {rest:.8g}"
            )
        of = f" (of {comparison.part})" if comparison.part else ""
        lines = [
            f"{title}: {number} of {measured} gradients are wrong{of}",
            f"  at {worst}, {compared}",
            *(f"  likely cause: {cause}" for cause in causes),
        ]
        plot = plot_errors(comparison)
        return "\n".join(lines) + (f"\n  {plot}".replace("\n", "\n  ") if plot else "")


def _array(x: Tensor) -> numpy.ndarray:
    return devices.to_numpy(x.data)


def _close(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    return a.shape == b.shape and bool(numpy.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True))


def _first_difference(first: list[numpy.ndarray], second: list[numpy.ndarray]) -> tuple[str, str]:
    """Return the two numbers that differ most, as text."""
    for a, b in zip(first, second, strict=False):
        if a.shape != b.shape:
            return f"an output of shape {a.shape}", f"one of shape {b.shape}"
        if not _close(a, b):
            place = int(numpy.argmax(numpy.nan_to_num(numpy.abs(a - b), nan=numpy.inf)))
            return f"{a.ravel()[place]:.12g}", f"{b.ravel()[place]:.12g}"
    return f"{len(first)} outputs", str(len(second))
