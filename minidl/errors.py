"""Every exception that users may want to catch; each is also the built-in error it resembles."""

from __future__ import annotations

from typing import Any


class DeviceError(ValueError):
    """A device that does not exist here, or arrays of several devices in one operation."""


class RecordingError(RuntimeError):
    """A function does something that a recorded program could not repeat; the message names the line."""


class KernelError(RuntimeError):
    """Generated C could not be compiled; the message says why, and what to do."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the file and the reason."""


class DriftError(RuntimeError):
    """Processes that train together no longer have the same weights; the message names what differs."""


class DivergenceError(FloatingPointError):
    """A loss that became infinite or NaN.

    Attributes
    ----------
    step : the step at which it was seen
    history : the `History` of what happened until then
    """

    def __init__(self, message: str, step: int, history: Any):
        super().__init__(message)
        self.step = step
        self.history = history
