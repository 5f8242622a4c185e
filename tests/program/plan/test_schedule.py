"""Who computes what: shared steps, barriers, updates in place."""

from minidl.program.plan.schedule import ALL_THREADS
from tests.program.networks import trained_step


def test_rows_are_shared_and_one_barrier_comes_before_the_weight_gradients():
    executor = trained_step().programs[0].executor
    first, second, *_ = executor.schedule.phases
    shared = [scheduled for scheduled in first if scheduled.owner == ALL_THREADS]
    assert sum(scheduled.task.name == "matmul" for scheduled in shared) == 7  # 4 forward, 3 backward
    assert any("more" in scheduled.task.name for scheduled in second)


def test_updates_happen_in_place():
    program = trained_step().programs[0]
    assert set(program.executor.schedule.in_place.values()) == set(program.updates)
