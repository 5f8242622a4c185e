"""The plain executor: runs a program step by step with any array module; nothing is planned.

It serves where the others cannot: for arrays of several devices, or on a GPU for which nothing compiles.
"""

from __future__ import annotations

from minidl import devices
from minidl.devices import Array
from minidl.program.program import Program, Value


class ReferenceExecutor:
    """Runs a program on the devices of its arrays, one primitive after another."""

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
