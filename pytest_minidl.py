"""The pytest plugin: the fixture ``assert_layer``, and failures of checks as their reports alone.

pytest finds it by the entry point ``minidl`` once minidl is installed. It is a module outside of the package,
and imports nothing of minidl or NumPy until a test asks for it, so it costs other test suites nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def assert_layer() -> Callable[..., None]:
    """Return minidl.checks.assert_layer: ``assert_layer(layer, input_shape, **options)``."""
    from minidl.checks import assert_layer

    return assert_layer


@pytest.fixture
def check_gradients() -> Callable[..., Any]:
    """Return minidl.checks.check_gradients: ``check_gradients(function, *inputs, **options)``."""
    from minidl.checks import check_gradients

    return check_gradients


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Show what failed in a check, the rows that failed first, without frames of minidl."""
    outcome = yield
    report = outcome.get_result()
    checks = sys.modules.get("minidl.checks.report")
    error = call.excinfo.value if call.excinfo is not None else None
    if checks is not None and isinstance(error, checks.LayerError) and error.report is not None:
        report.sections.append(("minidl", f"{len(error.report.failures)} row(s) failed"))
        report.longrepr = f"{report.nodeid}\n{error.report.failed_first()}"


def pytest_assertrepr_compare(config: Any, op: str, left: Any, right: Any) -> list[str] | None:
    """Explain a failed ``==`` of Tensors: where they differ most, and by how much."""
    tensors = sys.modules.get("minidl.tensor")
    if tensors is None or op != "==" or not isinstance(left, tensors.Tensor):
        return None
    if not isinstance(right, tensors.Tensor):
        return None
    lines = [f"Tensors of shape {left.shape} and {right.shape}, {left.dtype} and {right.dtype}"]
    if left.shape == right.shape and left.size:
        import numpy

        a, b = left.numpy(), right.numpy()
        gap = numpy.abs(a.astype(float) - b)
        worst = tuple(int(i) for i in numpy.unravel_index(int(numpy.argmax(gap)), gap.shape))
        lines.append(f"{int((a != b).sum())} of {a.size} differ, most at {worst}: {a[worst]} and {b[worst]}")
    return lines
