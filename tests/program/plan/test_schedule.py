"""Who computes what: shared steps, barriers, updates in place."""

import numpy
import pytest

import minidl as dl
from minidl.program.plan.aliases import Aliases
from minidl.program.plan.memory import _lifetimes
from minidl.program.plan.schedule import ALL_THREADS
from minidl.program.program import Gemm, Rows
from tests.program.networks import needs_c, trained_step


def test_rows_are_shared_and_one_barrier_comes_before_the_weight_gradients():
    executor = trained_step().programs[0].executor
    first, second, *_ = executor.schedule.phases
    shared = [scheduled for scheduled in first if scheduled.owner == ALL_THREADS]
    assert sum(scheduled.task.name == "matmul" for scheduled in shared) == 7  # 4 forward, 3 backward
    assert any("more" in scheduled.task.name for scheduled in second)


def test_updates_happen_in_place():
    program = trained_step().programs[0]
    assert set(program.executor.schedule.in_place.values()) == set(program.updates)


def many_words(threads, kernels, words=1024):
    """Return the executor of a step with the logits of many words, after a check of what it computes."""
    rng = numpy.random.default_rng(0)
    table = dl.Parameter(rng.normal(size=(words, 48)).astype("float32"))
    shift = dl.Parameter(rng.normal(size=(1, 48)).astype("float32"))
    x, target = rng.normal(size=(36, 48)).astype("float32"), rng.integers(0, words, 36)

    def step(x, target):
        loss = dl.softmax_cross_entropy((x + shift) @ table.T, target)
        return loss, *dl.grad(loss, [table, shift])

    compiled = dl.compile(step, threads=threads, kernels=kernels, poison=True)
    for ours, plain in zip(compiled(x, target), step(dl.tensor(x), dl.tensor(target)), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-4, atol=1e-6)
    return compiled.programs[0].executor


def phase_of(executor, chosen):
    """Return the number of the phase, and the owner, of the first task that is chosen."""
    for number, phase in enumerate(executor.schedule.phases):
        for scheduled in phase:
            if chosen(scheduled.task):
                return number, scheduled.owner
    raise AssertionError("there is no such task")


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_threads_share_a_large_factor_and_wait_before_they_read_rows(kernels, threads, monkeypatch):
    def is_logits(task):
        return isinstance(task, Gemm) and task.output.shape == (36, 1024)

    def reads_logits(task):
        return isinstance(task, Rows)

    executor = many_words(threads, kernels)
    number, owner = phase_of(executor, is_logits)
    assert owner == ALL_THREADS
    assert phase_of(executor, reads_logits) == (number, ALL_THREADS)
    monkeypatch.setattr("minidl.program.plan.partition.LARGE_FACTOR", 4 * 48 * 1024)
    executor = many_words(threads, kernels)
    assert phase_of(executor, is_logits) == (number, ALL_THREADS)
    assert phase_of(executor, reads_logits) == (number + 1, ALL_THREADS)


def test_a_buffer_that_threads_wrote_by_columns_is_not_taken_by_rows_in_the_same_phase(monkeypatch):
    kept_rows = []
    for smallest in (1 << 30, 1):
        monkeypatch.setattr("minidl.program.plan.partition.LARGE_FACTOR", smallest)
        executor = many_words(2, "numpy")
        lifetimes = _lifetimes(executor.program, executor.schedule, Aliases(executor.program, set()))
        (logits,) = [
            step.output
            for step in executor.program.steps
            if isinstance(step, Gemm) and step.output.shape == (36, 1024)
        ]
        kept_rows.append(lifetimes[logits].by_rows)
    assert kept_rows == [True, False]
