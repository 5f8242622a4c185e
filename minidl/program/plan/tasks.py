"""What a plan orders: the steps of a program, and what only an executor adds to them."""

from __future__ import annotations

from dataclasses import dataclass

from minidl.program.program import BaseStep, Step, Value
from minidl.random.generator import Generator


@dataclass(eq=False, repr=False)
class Copy(BaseStep):
    """The last step of an update that could not be computed in place: copies a value to a state."""

    state: Value
    value: Value
    phase: str = "update"
    name: str = "copy to state"

    @property
    def inputs(self) -> list[Value]:
        """What is copied."""
        return [self.value]

    @property
    def outputs(self) -> list[Value]:
        """Nothing new."""
        return []

    @property
    def writes(self) -> list[Value]:
        """The state."""
        return [self.state]


@dataclass(eq=False, repr=False)
class Advance(BaseStep):
    """The last step of a program that draws on a GPU: moves a Generator's stream on by ``count`` numbers."""

    stream: Generator
    count: int
    phase: str = "update"
    name: str = "advance random numbers"

    @property
    def inputs(self) -> list[Value]:
        """Nothing but the stream."""
        return []

    @property
    def outputs(self) -> list[Value]:
        """Nothing new."""
        return []


Task = Step | Copy | Advance
