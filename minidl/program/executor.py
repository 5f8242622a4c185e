"""What an executor is: it runs a program on the arrays of its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from minidl.devices import Array

if TYPE_CHECKING:
    from minidl.program.plan.memory import MemoryPlan
    from minidl.program.plan.tasks import Task
    from minidl.program.program import Program, Value


class Executor(Protocol):
    """Runs a program, as often as it is asked to. Executors inherit from it, so that mypy checks them.

    Attributes
    ----------
    program : what is run, in the form that the executor gave it
    memory : where its results lie; None if each run allocates them
    """

    program: Program
    memory: MemoryPlan | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.program!r})"

    def run(self) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""

    def array(self, value: Value) -> Array:
        """Return the array of an output after run(); the next run may overwrite it."""

    def poison(self) -> None:
        """Fill every buffer with NaN (all bits set), to expose a step that reads what it did not write."""

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Return a run() that reports the seconds of each step and returns those of the whole run.

        Raises
        ------
        ValueError
            The executor cannot time single steps.
        """

    def peak_rates(self) -> tuple[float, float]:
        """Return the best rates of matrix products (operations) and of copying (bytes), per second."""

    def note(self) -> str:
        """Return in a few words how the program is run, for its listing."""
