"""Checks that people run on their own functions and layers."""

from minidl.checks.gradients import GradientError, check_gradients

__all__ = ["GradientError", "check_gradients"]
