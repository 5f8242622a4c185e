"""Checks for functions, layers, losses, optimizers and data that users write.

`check_gradients` compares the gradients of any function with difference quotients; `check_layer` tests
everything a layer should do and returns a report; `assert_layer` is the same as one line of a test suite;
`check_optimizer`, `check_loss` and `check_data` test the rest of a training; `assert_compiled_equals`
compares a compiled function with the plain one over several calls. ``python -m minidl.checks module:factory``
checks layers from the command line.
"""

from minidl.checks.compiled import assert_compiled_equals
from minidl.checks.data import DataReport, check_data
from minidl.checks.gradients import GradientError, check_gradients
from minidl.checks.layers import assert_layer, check_layer
from minidl.checks.losses import LossReport, check_loss
from minidl.checks.optimizers import OptimizerReport, check_optimizer
from minidl.checks.report import GradientReport, LayerError, LayerReport, Report, ReportRow

__all__ = [
    "DataReport",
    "GradientError",
    "GradientReport",
    "LayerError",
    "LayerReport",
    "LossReport",
    "OptimizerReport",
    "Report",
    "ReportRow",
    "assert_compiled_equals",
    "assert_layer",
    "check_data",
    "check_gradients",
    "check_layer",
    "check_loss",
    "check_optimizer",
]
