"""The reference executor: runs a program step by step with any array module; nothing is planned.

It serves where the others cannot: for arrays of several devices, or on a GPU for which nothing compiles.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl import devices
from minidl.devices import Array
from minidl.program.executor import Executor
from minidl.program.plan.tasks import Task
from minidl.program.program import Program, Value


class ReferenceExecutor(Executor):
    """Runs a program on the devices of its arrays, one step after another."""

    memory = None

    def __init__(self, program: Program):
        self.program = program
        self.results: dict[Value, Array] = {}

    def run(self) -> None:
        """Compute everything from the arrays of inputs and states, and update the states."""
        outputs, updates = self.program.evaluate([value.array for value in self.program.inputs])
        self.results = dict(zip(self.program.outputs, outputs, strict=True))
        for state, array in updates.items():
            devices.write(state.array, array)

    def array(self, value: Value) -> Array:
        """Return the array of an output after run()."""
        return self.results[value]

    def poison(self) -> None:
        """Do nothing: there are no buffers that outlive a run."""

    def timed(self, record: Callable[[Task, float], None]) -> Callable[[], float]:
        """Refuse: only an executor that plans a program can tell what its steps cost."""
        raise ValueError("only planned programs can be profiled, not one of the reference executor")

    def peak_rates(self) -> tuple[float, float]:
        """Refuse, as timed() does: there are no times to compare with."""
        raise ValueError("the reference executor has no peak rates")

    def note(self) -> str:
        """Return how the program is run, for its listing."""
        return "run step by step by the reference executor"
