"""Schedule, memory, layout, threads, listing and profile of compiled programs."""

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.blas import best_blas, matmul_call
from minidl.program.cpu.kernel_cache import compiler
from minidl.program.cpu.threads import available_cores
from minidl.program.plan.layout import blas_takes, feature_major, major_axis
from minidl.program.plan.memory import unplanned_bytes
from minidl.program.plan.schedule import ALL_THREADS
from minidl.program.reference_executor import ReferenceExecutor
from tests.program.test_compile import make_step

needs_c = pytest.mark.skipif(compiler() is None, reason="there is no C compiler on this machine")


def trained_step(batch=256, threads=2, kernels="numpy", steps=2):
    """A compiled training step of a small tied network, replayed at least once."""
    first, second = dl.Dense(96, 128, seed=0), dl.Dense(128, 64, seed=1)

    class Tied(dl.Layer):
        def __init__(self):
            self.layers = [first, second]

        def forward(self, x):
            z = dl.relu(second(dl.relu(first(x))))
            return dl.sigmoid(dl.relu(z @ second.weight.T) @ first.weight.T)

    network = Tied()
    step = dl.compile(make_step(network, dl.Adam(network.parameters())), threads=threads, kernels=kernels)
    x = numpy.random.default_rng(0).random((batch, 96)).astype("float32")
    for _ in range(steps):
        step(x)
    return step


def test_rows_are_shared_and_threads_meet_once_before_the_weight_gradients():
    executor = trained_step().programs[0].executor
    first, second, *_ = executor.schedule.phases
    shared = [turn for turn in first if turn.owner == ALL_THREADS]
    assert sum(turn.task.name == "matmul" for turn in shared) == 7  # 4 forward, 3 backward
    assert any("more" in turn.task.name for turn in second)


def test_updates_happen_in_place():
    program = trained_step().programs[0]
    assert set(program.executor.schedule.in_place.values()) == set(program.updates)


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


def test_few_rows_are_stored_by_columns():
    few, many = (trained_step(batch).programs[0] for batch in (32, 256))
    assert feature_major(few, 48)
    assert not feature_major(many, 48)
    by_columns = [array for array in few.executor.memory.arrays.values() if major_axis(array) == 1]
    assert by_columns


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


def test_blas_threads_are_left_as_they_were():
    blas = best_blas()
    if blas is None:
        pytest.skip("there is neither OpenBLAS nor MKL here")
    before = blas.get_threads()
    trained_step()
    assert blas.get_threads() == before


# --- matrix products ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("add", [False, True])
def test_matmul_call_takes_every_layout(dtype, add, rng):
    for make_a in (
        lambda x: x,
        lambda x: numpy.asfortranarray(x),
        lambda x: numpy.repeat(x, 2, axis=1)[:, ::2],
    ):
        for make_out in (numpy.ascontiguousarray, numpy.asfortranarray):
            a = make_a(rng.integers(-3, 4, (5, 4)).astype(dtype))
            b = make_a(rng.integers(-3, 4, (4, 3)).astype(dtype))
            out = make_out(numpy.ones((5, 3), dtype))
            matmul_call(a, b, out, add)()
            numpy.testing.assert_array_equal(out, a @ b + (1 if add else 0))


def test_blas_is_not_given_what_it_cannot_take():
    matrix = numpy.ones((4, 4), "float32")
    assert blas_takes(matrix)
    assert blas_takes(matrix.T)
    assert blas_takes(matrix[1:, 1:])
    assert not blas_takes(matrix[::-1])
    assert not blas_takes(matrix[:, ::2])
    assert not blas_takes(numpy.broadcast_to(numpy.float32(1), (4, 4)))
    assert not blas_takes(matrix.astype("float16"))


# --- what people look at --------------------------------------------------------------------------


def test_the_listing_shows_forward_backward_and_update():
    text = str(trained_step().programs[0])
    assert text.index("FORWARD") < text.index("BACKWARD") < text.index("UPDATE")
    assert "256x128" in text
    # two weights, used twice each: 4 products forward, 4 + 3 backward, of which pairs add up
    flops = 2 * 256 * (96 * 128 + 128 * 64) * 2 * 3 - 2 * 256 * 96 * 128
    assert f"of them {flops / 1e6:.1f} in 9 matrix products" in text
    assert "planned" in text


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_a_profile_times_every_step_and_restores_the_state(kernels):
    step = trained_step(kernels=kernels)
    program = step.programs[0]
    before = [state.array.copy() for state in program.updates]
    text = program.profile(repeats=3)
    for state, array in zip(program.updates, before, strict=True):
        numpy.testing.assert_array_equal(state.array, array)
    assert "% of GEMM" in text
    assert "ms in matrix products" in text


def test_a_program_can_be_drawn(tmp_path):
    trained_step().programs[0].plot(tmp_path / "program.png", repeats=2)
    assert (tmp_path / "program.png").read_bytes().startswith(b"\x89PNG")


def test_only_compiled_programs_can_be_profiled():
    program = trained_step().programs[0]
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        program.profile(repeats=0)
    program.executor = ReferenceExecutor(program)
    with pytest.raises(ValueError, match="only compiled programs can be profiled"):
        program.profile()
