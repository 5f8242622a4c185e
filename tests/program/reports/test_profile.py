"""The profile of a program."""

import re

import numpy
import pytest

from minidl.program.reference_executor import ReferenceExecutor
from tests.program.networks import needs_c, trained_step


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_a_profile_times_every_step_and_restores_the_state(kernels):
    step = trained_step(kernels=kernels)
    program = step.programs[0]
    before = [state.array.copy() for state in program.updates]
    text = program.profile(repeats=3)
    for state, array in zip(program.updates, before, strict=True):
        numpy.testing.assert_array_equal(state.array, array)
    heading = re.split("  +", text.split("\n")[0].strip())
    assert heading == ["step", "shape", "us", "% of GEMM", "% of copy", "Mflop", "KB", "result", "reads"]
    products = re.findall(r"^  matmul +\d+x\d+ +\d+ +(\d+%) +[\d.]+ +[\d.]+ +r\d", text, re.MULTILINE)
    assert products
    assert all(int(share.rstrip("%")) > 0 for share in products)
    assert "ms in matrix products" in text


def test_only_compiled_programs_can_be_profiled():
    program = trained_step().programs[0]
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        program.profile(repeats=0)
    program.executor = ReferenceExecutor(program)
    with pytest.raises(ValueError, match="only planned programs can be profiled"):
        program.profile()
