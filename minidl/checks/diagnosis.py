"""The cause of a wrong gradient: the rule of each operation is measured separately, on the values it had.

An OperationTrace has the operations between a Parameter and the outputs. An operation whose rule is wrong,
that stops the gradient, or that overwrites what another one still needs, is named with its line. If all
operations are right, the function must read the values of the Parameter without an operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy

from minidl import autodiff, devices
from minidl.checks.differences import Comparison, Differences, Evaluation, Part, Tolerance
from minidl.checks.hints import likely_cause
from minidl.checks.not_finite import not_finite
from minidl.checks.tracing import OperationTrace, TracedOperation
from minidl.mode import no_grad
from minidl.tensor import Tensor

_TOLERANCE = Tolerance(relative=1e-5, absolute=1e-7)
_SMALL = 100  # up to this size, elements are measured one by one
_MAX_EXAMINED = 5  # operations of one primitive that are examined


class Diagnosis:
    """Finds causes for the wrong gradients of one traced call.

    Parameters
    ----------
    trace, outputs : of the call
    counts : factors that may be forgotten, see `likely_cause`
    own_line : the line that called the check, which is left out of messages
    seeds : the outputs that were differentiated, with their weights
    """

    def __init__(
        self,
        trace: OperationTrace,
        outputs: list[Tensor],
        counts: dict[int, str],
        own_line: str,
        seeds: Sequence[tuple[Tensor, numpy.ndarray]] = (),
    ):
        self.trace, self.counts, self.own_line, self.seeds = trace, counts, own_line, seeds
        self.rng = numpy.random.default_rng(0)
        self._known: dict[tuple[int, int], str | None] = {}
        self._examined: Counter[tuple[str, int]] = Counter()
        self._needed = {id(y) for y in outputs}
        for operation in reversed(trace.operations):
            if id(operation.out) in self._needed:
                self._needed.update(id(x) for x in operation.inputs)

    def causes(self, x: Tensor, comparison: Comparison) -> list[str]:
        """Return likely causes, the most likely ones first."""
        reached = self.trace.descendants(x)
        overwritten = [text for source, text in self.trace.overwritten if id(source) in reached]
        if overwritten:
            return [f"{overwritten[0]}, and backward uses the new values: write to new arrays"]
        if not numpy.isfinite(comparison.given).all():
            reason = not_finite(self.trace, self.seeds)
            if reason is not None:
                return [reason]
        general = likely_cause(comparison.given, comparison.measured, self.counts)
        guilty = self._guilty_operations(x, reached)
        if guilty:
            return guilty[:2] + ([f"seen as a whole, {general}"] if general and len(guilty) > 1 else [])
        hidden = self._hidden_uses(x, reached)
        return [text for text in (general, *hidden) if text] or ["unknown: no operation by itself is wrong"]

    def _guilty_operations(self, x: Tensor, reached: set[int]) -> list[str]:
        found: list[str] = []
        operations = [operation for operation in self.trace.operations if id(operation.out) in self._needed]
        uses = sum(source is x for operation in operations for source in operation.inputs)
        for number, operation in enumerate(operations):
            for index, source in enumerate(operation.inputs):
                if id(source) not in reached or len(found) >= 3:
                    continue
                if (number, index) not in self._known:
                    self._known[number, index] = self._examine(operation, index)
                problem = self._known[number, index]
                if problem is None:
                    continue
                if source is x and uses > 1:
                    problem += f"; this is one of {uses} uses, whose contributions should add up"
                if problem not in found:
                    found.append(problem)
        return found

    def _examine(self, operation: TracedOperation, index: int) -> str | None:
        """Return what is wrong with the gradient of one input of one operation, if anything is."""
        primitive = operation.primitive
        key = (primitive.name, index)
        if (
            primitive.kind == "random"
            or operation.arrays[index].dtype.kind != "f"
            or operation.out.dtype.kind != "f"
        ):
            return None
        if self._examined[key] >= _MAX_EXAMINED:
            return None
        self._examined[key] += 1
        problem = LocalRule(operation, index, self.counts, self.rng).problem()
        if problem is None:
            return None
        return problem + ("" if operation.line == self.own_line else f" ({operation.line})")

    def _hidden_uses(self, x: Tensor, reached: set[int]) -> list[str]:
        """Return how the function may depend on x without an operation."""
        readings = [(reader, line) for source, reader, line in self.trace.readings if id(source) in reached]
        if readings:
            reader, line = readings[0]
            return [f"its values are read with {reader}, where gradients do not follow ({line})"]
        uses = sum(source is x for operation in self.trace.operations for source in operation.inputs)
        if not uses:
            return [
                "no operation uses it: its array is read through .data, or a value computed earlier is used"
            ]
        return [
            f"each operation's own gradient is right, and {uses} use(s) of it add up to what backward gives: "
            "the function must depend on it in another way too, through .data or a value computed earlier"
        ]


class LocalRule:
    """The gradient rule of one input of an operation, to compare with differences of the operation."""

    def __init__(
        self, operation: TracedOperation, index: int, counts: dict[int, str], rng: numpy.random.Generator
    ):
        self.operation, self.index, self.rng = operation, index, rng
        self.inputs = [Tensor(devices.copy(array)) for array in operation.arrays]
        self.x = self.inputs[index]
        lengths = {n: f"the length of axis {axis} of that input" for axis, n in enumerate(self.x.shape)}
        self.counts = lengths | counts
        self.out = Tensor(self._forward())
        self.g = Tensor(devices.to_device(rng.uniform(0.5, 1.5, self.out.shape), self.out.device))

    def _forward(self) -> devices.Array:
        arrays = [devices.copy(x.data) for x in self.inputs]  # copies, as a forward may overwrite its inputs
        xp = devices.array_module(arrays[0])
        with devices.current(arrays[0]):
            return xp.asarray(self.operation.primitive.forward(xp, *arrays, **self.operation.attributes))

    def problem(self) -> str | None:
        """Return what is wrong, or None."""
        name, index = self.operation.primitive.name, self.index
        rule = self.operation.primitive.rule(index) if self.operation.primitive.differentiable else None
        if rule is None or not self.operation.taped:
            if not self._measured(self.g, numpy.zeros(self.x.shape)).is_wrong:
                return None
            return f"'{name}' stops the gradient" if rule is None else f"'{name}' is computed under no_grad()"
        title = f"the gradient rule of '{name}' for its input {index} is wrong"
        try:
            raw = self._apply(rule, self.g)
            given = autodiff._unbroadcast(raw, self.x)
        except Exception as error:  # a user's rule may raise anything
            return (
                f"the gradient rule of '{name}' for its input {index} fails: {type(error).__name__}: {error}"
            )
        if not _fits(raw.shape, self.x.shape):
            return f"{title}: it gives shape {raw.shape} for an input of shape {self.x.shape}" + (
                ", its transpose" if raw.shape == self.x.shape[::-1] else ""
            )
        comparison = self._measured(self.g, given.numpy())
        if not comparison.is_wrong:
            return None
        reason = self._confusion(rule, comparison) or likely_cause(
            comparison.given, comparison.measured, self.counts
        )
        return f"{title}: {reason}" if reason else title

    def is_wrong(self) -> bool:
        """Return whether the rule disagrees with the differences."""
        try:
            given = autodiff._unbroadcast(
                self._apply(self.operation.primitive.rule(self.index), self.g), self.x
            )
        except Exception:  # a user's rule may raise anything
            return True
        return self._measured(self.g, given.numpy()).is_wrong

    def _apply(self, rule: Any, g: Tensor) -> Tensor:
        with no_grad():
            gradient: Tensor = rule(g, self.out, *self.inputs, **self.operation.attributes)
        return gradient

    def _apply_transposed(self, rule: Any, place: int) -> Tensor:
        """Apply a rule with one of the inputs transposed."""
        inputs = [x.T if i == place else x for i, x in enumerate(self.inputs)]
        with no_grad():
            gradient: Tensor = rule(self.g, self.out, *inputs, **self.operation.attributes)
        return gradient

    def _measured(self, g: Tensor, given: numpy.ndarray) -> Comparison:
        return self._differences(g).compare("", self.x, given)

    def _differences(self, g: Tensor) -> Differences:
        weights, start = devices.to_numpy(g.data), devices.to_numpy(self.out.data)
        part = Part("", 0, numpy.where(numpy.isfinite(start), weights, 0.0), start)

        def evaluate() -> Evaluation:
            with devices.current(g.data):
                change, rounding = part.change(devices.to_numpy(self._forward()))
            return numpy.array([change]), numpy.array([rounding])

        return Differences(evaluate, _TOLERANCE, None, self.rng)

    def _confusion(self, rule: Any, comparison: Comparison) -> str | None:
        """Try common mistakes; return the one that explains the measurements, if any does."""
        known = numpy.isfinite(comparison.measured)
        right = comparison.measured[known]
        if not right.size:
            return None

        def gives(compute: Any, wanted: numpy.ndarray) -> bool:
            try:
                with numpy.errstate(all="ignore"):
                    values = autodiff._unbroadcast(compute(), self.x).numpy()[known]
            except Exception:  # a mistake that does not even compute explains nothing
                return False
            scale = max(float(numpy.abs(wanted).max()), 1e-12)
            return bool(numpy.abs(values - wanted).max() <= 1e-6 * scale)

        given = comparison.given[known]
        if given.any() and gives(lambda: self._apply(rule, 2 * self.g), given):
            return "it ignores g, the gradient that comes from above"
        primitive = self.operation.primitive
        for j in range(len(self.inputs)):
            other = primitive.rule(j)
            if j == self.index or other is None or not gives(lambda o=other: self._apply(o, self.g), right):
                continue
            if LocalRule(self.operation, j, self.counts, self.rng).is_wrong():
                return f"the rules of inputs {self.index} and {j} are exchanged"
        for k, x in enumerate(self.inputs):
            if x.ndim == 2 and gives(lambda k=k: self._apply_transposed(rule, k), right):
                return f"input {k} should be transposed in it"
        with no_grad():
            if len(self.inputs) == 1 and gives(
                lambda: rule(self.g, self.x, self.out, **self.operation.attributes), right
            ):
                return (
                    "it takes the input for the output, or the output for the input (they come as g, out, x)"
                )
        if self._is_diagonal(comparison):
            return "it leaves out that an element of the result depends on other elements of the input too"
        return self._one_observation(given, known)

    def _is_diagonal(self, comparison: Comparison) -> bool:
        """Return whether the gradient has only diagonal terms: elements of both at the same place."""
        if self.x.shape != self.out.shape or not 1 < self.x.size <= _SMALL:
            return False
        for place in numpy.ndindex(self.x.shape):
            g = numpy.zeros(self.out.shape)
            g[place] = devices.to_numpy(self.g.data)[place]
            differences = self._differences(Tensor(devices.to_device(g, self.out.device)))
            if not differences.is_right_at(self.x, place, float(comparison.given[place])):
                return False
        return True

    def _one_observation(self, given: numpy.ndarray, known: numpy.ndarray) -> str | None:
        """Return whether the gradient is that of one observation instead of the sum over all."""
        if not self.out.shape or self.out.shape[0] < 2 or self.x.shape == self.out.shape:
            return None
        for place, which in ((0, "first"), (-1, "last")):
            alone = numpy.zeros(self.out.shape)
            alone[place] = devices.to_numpy(self.g.data)[place]
            g = Tensor(devices.to_device(alone, self.out.device))
            measured = self._measured(g, numpy.full(self.x.shape, 1e300)).measured[known]
            if numpy.allclose(measured, given, rtol=1e-3, atol=1e-6):
                return (
                    f"it is the contribution of the {which} observation alone: the sum over axis 0 is missing"
                )
        return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether summing over broadcast axes can give a gradient of this shape the wanted one."""
    try:
        return numpy.broadcast_shapes(shape, wanted) == shape or shape == wanted
    except ValueError:
        return False
