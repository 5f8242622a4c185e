"""A program on the CPU: one call for each thread, nothing allocated, settings left as they were."""

import pytest

from minidl.program.cpu.threads import available_cores
from tests.program.networks import needs_c, trained_step


@pytest.mark.parametrize("batch", [32, 256])
@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_nothing_large_is_allocated_at_replay(batch, kernels):
    import tracemalloc

    step = trained_step(batch, kernels=kernels)
    executor = step.programs[0].executor
    executor.run()
    tracemalloc.start()
    try:
        executor.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Three temporaries of one block, inside the primitive of the loss, are all that is left.
    assert peak < 4 * 4 * batch * 96


@needs_c
def test_as_c_a_step_is_one_call_for_each_thread():
    executor = trained_step(kernels="c").programs[0].executor
    assert [len(calls) for phase in executor.phases for calls in phase] == [1, 1]


def test_the_number_of_threads_can_be_set():
    for threads in (1, 3):
        executor = trained_step(threads=threads).programs[0].executor
        assert executor.threads == threads
        assert all(len(phase) == threads for phase in executor.phases)
    assert trained_step(threads=None).programs[0].executor.threads in (1, available_cores())
