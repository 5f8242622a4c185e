"""check_optimizer: whether an optimizer does what its formula says, resumes, and compiles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from minidl.checks.report import Report, ReportRow
from minidl.optimizers.optimizer import Optimizer
from minidl.tensor import Parameter, Tensor, tensor

Factory = Callable[[list[Parameter]], Optimizer]
Formula = Callable[[numpy.ndarray, numpy.ndarray, dict[str, Any]], numpy.ndarray]

_SHAPES = ((3, 2), (4,), ())
_STEPS = 5


class OptimizerReport(Report):
    """What check_optimizer found: one row for each test. It prints as a table."""

    check = "check_optimizer"


class _Wrong(Exception):
    """What is wrong with an optimizer."""


class _NotAsked(Exception):
    """Why a test does not apply."""


def check_optimizer(
    make: Factory, formula: Formula | None = None, *, seed: int = 0, tolerance: float = 1e-5
) -> OptimizerReport:
    """Test an optimizer: its formula, state, resume, groups, and compiled steps.

    Parameters
    ----------
    make : takes a list of Parameters and returns an optimizer of them, as ``lambda p: MyOptimizer(p, 0.1)``
    formula : one step in NumPy, to compare with: ``formula(value, gradient, state) -> new value``, for each
        Parameter; ``state`` is a dict of its own, empty before the first step
    seed : of Parameters and gradients
    tolerance : how far values may differ, relative to them

    Examples
    --------
    >>> import minidl as dl
    >>> check_optimizer(lambda p: dl.SGD(p, 0.1, momentum=0), lambda x, g, state: x - 0.1 * g).passed
    True
    """
    run = _Run(make, formula, seed, tolerance)
    report = OptimizerReport(type(run.start()[1]).__name__)
    for test in (run.formula_row, run.moves, run.without_gradients, run.frozen, run.resumes, run.copies):
        report.rows.append(run.row(test))
    for test in (run.rate, run.compiles):
        report.rows.append(run.row(test))
    return report


class _Run:
    def __init__(self, make: Factory, formula: Formula | None, seed: int, tolerance: float):
        self.make, self.formula, self.seed, self.tolerance = make, formula, seed, tolerance
        self.compared = 0

    def row(self, test: Callable[[], str | None]) -> ReportRow:
        self.compared = 0
        title = str(test.__doc__)
        try:
            return ReportRow(title, "passed", test() or "", self.compared)
        except _NotAsked as reason:
            return ReportRow(title, "skipped", str(reason))
        except _Wrong as problem:
            return ReportRow(title, "failed", str(problem), self.compared)
        except Exception as error:  # a user's optimizer may raise anything
            return ReportRow(title, "failed", f"{type(error).__name__}: {error}", self.compared)

    def start(self) -> tuple[list[Parameter], Optimizer]:
        rng = numpy.random.default_rng(self.seed)
        parameters = [Parameter(rng.normal(size=shape).astype("float32")) for shape in _SHAPES]
        return parameters, self.make(parameters)

    def gradients(self, step: int) -> list[numpy.ndarray]:
        rng = numpy.random.default_rng((self.seed, step))
        return [numpy.asarray(rng.normal(size=shape), "float32") for shape in _SHAPES]

    def advance(self, parameters: Sequence[Parameter], optimizer: Optimizer, steps: Sequence[int]) -> None:
        for step in steps:
            for p, g in zip(parameters, self.gradients(step), strict=True):
                p.grad = tensor(g)
            optimizer.step()

    def require_near(self, a: Sequence[Any], b: Sequence[Any], what: str) -> None:
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            x, y = (v.numpy() if isinstance(v, Tensor) else numpy.asarray(v) for v in (x, y))
            self.compared += x.size
            if not numpy.allclose(x, y, rtol=self.tolerance, atol=self.tolerance * 0.1, equal_nan=True):
                gap = numpy.abs(x - y)
                place = tuple(int(k) for k in numpy.unravel_index(int(numpy.argmax(gap)), gap.shape))
                raise _Wrong(f"Parameter {i} is {x[place]:.8g} at {place} {what} {y[place]:.8g}")

    def formula_row(self) -> str | None:
        """steps follow the formula"""
        if self.formula is None:
            raise _NotAsked("no formula was given")
        parameters, optimizer = self.start()
        values: list[Any] = [p.numpy().astype("float64") for p in parameters]
        states: list[dict[str, Any]] = [{} for _ in parameters]
        for step in range(_STEPS):
            self.advance(parameters, optimizer, [step])
            gradients = self.gradients(step)
            values = [self.formula(x, g, s) for x, g, s in zip(values, gradients, states, strict=True)]
            self.require_near(parameters, values, f"after step {step + 1}, where the formula gives")
        return f"{_STEPS} steps"

    def moves(self) -> None:
        """steps change Parameters, and keep their type"""
        parameters, optimizer = self.start()
        before = [p.numpy() for p in parameters]
        self.advance(parameters, optimizer, [0])
        for i, (p, x) in enumerate(zip(parameters, before, strict=True)):
            self.compared += x.size
            if p.dtype != x.dtype or p.shape != x.shape:
                raise _Wrong(
                    f"Parameter {i} was float32 {x.shape}, and is {p.dtype} {p.shape}: keep its dtype"
                )
            if not numpy.isfinite(p.numpy()).all():
                raise _Wrong(f"Parameter {i} is not finite after the first step: a division by a moment of 0")
            if (p.numpy() == x).any():
                raise _Wrong(
                    f"Parameter {i} does not change at some places, though its gradient is not 0 there"
                )
            if p.grad is not None:
                raise _Wrong("step() leaves gradients behind, which the next backward() adds to")

    def without_gradients(self) -> None:
        """a Parameter without a gradient stays"""
        parameters, optimizer = self.start()
        self.advance(parameters, optimizer, [0, 1])
        kept = parameters[1].numpy()
        for p, g in zip(parameters[:1], self.gradients(2), strict=False):
            p.grad = tensor(g)
        optimizer.step()
        self.compared += kept.size
        if not numpy.array_equal(parameters[1].numpy(), kept):
            raise _Wrong("a Parameter that has no gradient in a step changes in it all the same")

    def frozen(self) -> None:
        """factors of Parameters count"""
        parameters, optimizer = self.start()
        others, slower = self.start()
        parameters[0].learning_rate_factor, others[1].learning_rate_factor = 0.0, 0.5
        kept = parameters[0].numpy()
        self.advance(parameters, optimizer, [0, 1])
        self.advance(others, slower, [0, 1])
        self.compared += kept.size
        if not numpy.array_equal(parameters[0].numpy(), kept):
            raise _Wrong(
                "a Parameter with learning_rate_factor 0 changes: update() is to use the rate it is given"
            )
        if numpy.allclose(parameters[1].numpy(), others[1].numpy(), rtol=1e-6):
            raise _Wrong("learning_rate_factor 0.5 changes nothing: update() is to use the rate it is given")

    def resumes(self) -> str | None:
        """a saved state continues bit for bit"""
        parameters, optimizer = self.start()
        self.advance(parameters, optimizer, range(3))
        values, state = [p.numpy() for p in parameters], optimizer.state_dict()
        self.advance(parameters, optimizer, range(3, 3 + _STEPS))
        others, second = self.start()
        for p, x in zip(others, values, strict=True):
            p.assign(x)
        second.load_state_dict(state)
        self.advance(others, second, range(3, 3 + _STEPS))
        for i, (p, q) in enumerate(zip(parameters, others, strict=True)):
            self.compared += p.size
            if not numpy.array_equal(p.numpy(), q.numpy()):
                raise _Wrong(
                    f"continued from a saved state, Parameter {i} ends elsewhere: what changes from "
                    "step to step "
                    "must be a Tensor that initial_state() makes, and be changed with assign()"
                )
        return ", ".join(state)

    def copies(self) -> None:
        """two optimizers share nothing"""
        parameters, optimizer = self.start()
        alone = copy.deepcopy((parameters, optimizer))
        others, second = self.start()
        self.advance(*alone, [0, 1, 2])
        for step in range(3):
            self.advance(others, second, [step + 50])
            self.advance(parameters, optimizer, [step])
        self.require_near(parameters, alone[0], "where another optimizer runs beside it; alone it is")

    def rate(self) -> None:
        """a new learning rate counts from the next step"""
        parameters, optimizer = self.start()
        others, second = self.start()
        self.advance(parameters, optimizer, [0])
        self.advance(others, second, [0])
        second.learning_rate = 10 * float(second.learning_rate.item())
        self.advance(parameters, optimizer, [1])
        self.advance(others, second, [1])
        self.compared += parameters[0].size
        if numpy.allclose(parameters[0].numpy(), others[0].numpy(), rtol=1e-6):
            raise _Wrong(
                "optimizer.learning_rate = ... changes nothing: update() is to use the rate it is given"
            )

    def compiles(self) -> None:
        """compiled steps equal plain ones"""
        from minidl.errors import RecordingError
        from minidl.program.compile import compile

        parameters, optimizer = self.start()
        others, second = self.start()

        def step(*targets: Tensor) -> Any:
            losses = [((p - t) ** 2).sum() for p, t in zip(others, targets, strict=True)]
            total = losses[0] + losses[1] + losses[2]
            total.backward()
            second.step()
            return total

        compiled = compile(step, kernels="numpy")
        for number in range(_STEPS):
            targets = [tensor(g) for g in self.gradients(number)]
            losses = [((p - t) ** 2).sum() for p, t in zip(parameters, targets, strict=True)]
            (losses[0] + losses[1] + losses[2]).backward()
            optimizer.step()
            try:
                compiled(*targets)
            except RecordingError as error:
                raise _Wrong(f"a step cannot be compiled: {error}") from None
            self.require_near(others, parameters, f"after {number + 1} compiled steps, and by plain ones")
