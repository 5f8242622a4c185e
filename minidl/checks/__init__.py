"""Checks for functions and layers that users write.

`check_gradients` compares the gradients of any function with difference quotients; `check_layer` tests
everything a layer should do and returns a report; `assert_layer` is the same as one line of a test suite;
`assert_compiled_equals` compares a compiled function with the plain one over several calls.
"""

from minidl.checks.compiled import assert_compiled_equals
from minidl.checks.gradients import GradientError, check_gradients
from minidl.checks.layers import assert_layer, check_layer
from minidl.checks.report import GradientReport, LayerError, LayerReport

__all__ = [
    "GradientError",
    "GradientReport",
    "LayerError",
    "LayerReport",
    "assert_compiled_equals",
    "assert_layer",
    "check_gradients",
    "check_layer",
]
