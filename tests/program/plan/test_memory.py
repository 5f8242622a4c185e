"""Buffers are used again, and never by two values at the same time."""

from minidl.program.plan.memory import unplanned_bytes
from tests.program.networks import trained_step


def test_one_thread_uses_dead_buffers_again():
    memory = trained_step(threads=1).programs[0].executor.memory
    assert memory.planned < 0.7 * memory.unplanned


def test_no_two_values_share_a_buffer_at_the_same_time():
    memory = trained_step(threads=1).programs[0].executor.memory
    for i, one in enumerate(memory.allocations):
        for other in memory.allocations[i + 1 :]:
            if one.buffer == other.buffer:
                assert one.last < other.first or other.last < one.first


def test_planning_saves_memory():
    program = trained_step().programs[0]
    assert program.executor.memory.planned < program.executor.memory.unplanned == unplanned_bytes(program)
