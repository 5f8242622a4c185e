"""Errors of compiled functions."""


class RecordingError(RuntimeError):
    """A function does something that a recorded program could not repeat."""
