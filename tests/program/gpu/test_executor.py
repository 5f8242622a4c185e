"""Compiled steps on a GPU: the same numbers as eager NumPy, in few launches, replayed as CUDA graphs.

With the stand-in, kernels run on the CPU; the tests marked `gpu` are the same on a real GPU.
"""

import copy
import functools
import gc

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl import devices
from minidl.devices import to_numpy
from minidl.primitives.primitive import PRIMITIVES, elementwise
from minidl.program.gpu import executor as gpu_executor
from minidl.program.gpu.executor import CupyExecutor
from minidl.program.program import Group
from minidl.program.reference_executor import ReferenceExecutor
from tests.program.gpu.kernels.running import compile_for_gpus, examples
from tests.program.networks import autoencoder, executor_of, make_step
from tests.program.random_programs import functions

pytestmark = pytest.mark.gpu_source

SHARED = examples(12)


def to_gpu(states, device="gpu"):
    return [dl.Parameter(state.to(device)) for state in states]


def on_gpu(x, device="gpu"):
    return dl.tensor(x, device=device)


def trained(network, batches, **options):
    """Return a compiled step on the network's GPU and the losses of its first calls."""
    step = dl.compile(make_step(network, dl.Adam(network.parameters())), **options)
    device = network.parameters()[0].device
    return step, [step(on_gpu(x, device)).item() for x in batches]


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@given(data=st.data())
@SHARED
def test_random_functions_give_the_numbers_of_the_cpu(gpu, order, monkeypatch, data):
    device = "gpu"
    if order == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")  # the stand-in's; steps of one launch must not wait
        device = (
            f"gpu:{gpu.cuda.runtime.getDeviceCount() - 1}"  # not the current one, where there are several
        )
    function, make_states, shape = data.draw(functions(large=order == "backwards"))
    ours, theirs = to_gpu(make_states(), device), make_states()
    step = dl.compile(lambda x: function(x, ours), poison=True)
    rng = numpy.random.default_rng(1)
    for _ in range(3):
        x = rng.uniform(-1, 1, shape)
        results, expected = step(on_gpu(x, device)), function(dl.tensor(x), theirs)
        for a, b in zip([*results, *ours], [*expected, *theirs], strict=True):
            numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)
    assert isinstance(executor_of(step), CupyExecutor)


def test_training_gives_the_numbers_of_the_cpu(gpu, gpu_name, rng):
    batches = rng.random((5, 8, 12)).astype("float32")
    networks = [autoencoder(), autoencoder()]
    plain = make_step(networks[0], dl.Adam(networks[0].parameters()))
    expected = [plain(dl.tensor(x)).item() for x in batches]
    _, losses = trained(networks[1].to(gpu_name), batches, poison=True, verify=True)
    numpy.testing.assert_allclose(losses, expected, rtol=1e-5)
    for ours, theirs in zip(networks[1].parameters(), networks[0].parameters(), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_a_step_becomes_one_graph_of_few_launches(gpu, gpu_name, rng):
    step, _ = trained(autoencoder().to(gpu_name), rng.random((3, 8, 12)).astype("float32"))
    executor = executor_of(step)
    (segment,) = executor.segments
    assert segment.graph is not None
    generated = [call for call in executor.calls if call.kernels]
    assert [call.name.count("sum") for call in generated].count(5) == 1  # 4 biases and the loss, together
    assert len(generated[-1].kernels) == 7  # all updates, together with the loss
    assert len(generated) == 8  # and 3 activations, the loss, and 2 behind activations


def test_no_launch_has_more_arguments_than_cuda_takes(gpu, rng, monkeypatch):
    """The factor that clips all gradients is read by every update; their norm is one group of many arrays."""
    monkeypatch.setattr(gpu_executor, "MAX_ARGUMENTS", 5)
    batches = rng.random((3, 8, 12)).astype("float32")
    losses = []
    for device in ("cpu", "gpu"):
        network = autoencoder().to(device)
        step = dl.compile(make_step(network, dl.RMSProp(network.parameters(), clip_global_norm=0.1)))
        losses.append([step(dl.tensor(x, device=device)).item() for x in batches])
    numpy.testing.assert_allclose(*losses, rtol=1e-5)
    calls = executor_of(step).calls
    assert max(sum(len(kernel.arrays) for kernel in call.kernels) for call in calls) <= 5
    left = [call for call in calls if not call.captured]  # too much for one kernel
    assert left
    assert all(isinstance(call.tasks[0], Group) for call in left)


def test_a_graph_is_captured_at_the_second_run(gpu, rng):
    step, _ = trained(autoencoder().to("gpu"), rng.random((1, 8, 12)).astype("float32"))
    (segment,) = executor_of(step).segments
    assert segment.graph is None
    step(on_gpu(rng.random((8, 12)).astype("float32")))
    assert segment.graph is not None


def test_replays_are_the_same_to_the_last_bit(gpu, rng):
    batches = rng.random((4, 64, 12)).astype("float32")
    results = [trained(autoencoder().to("gpu"), batches)[1] for _ in range(2)]
    assert results[0] == results[1]


def test_what_cupy_computes_stays_between_graphs(gpu, gpu_name, rng):
    weight = dl.Parameter(rng.random((6, 5)))

    def function(x, counts):
        y = dl.tanh(x @ weight) * 2
        whole = counts @ (y > 0.5).astype("int64")  # cuBLAS has no products of whole numbers
        y = dl.relu(dl.softmax(y) + whole * 0.1)
        return (y @ weight.T).sum(axis=0), y.argmax(axis=1)

    x, counts = rng.normal(size=(4, 6)), rng.integers(0, 9, (3, 4, 4))
    expected = [function(dl.tensor(x), dl.tensor(c)) for c in counts]
    weight = dl.Parameter(weight.to(gpu_name))
    step = dl.compile(function)
    for c, (total, best) in zip(counts, expected, strict=True):
        ours = step(on_gpu(x, gpu_name), on_gpu(c, gpu_name))
        numpy.testing.assert_allclose(ours[0].numpy(), total.numpy(), rtol=1e-12)
        assert ours[1].tolist() == best.tolist()
    segments = executor_of(step).segments
    assert [segment.graph is not None for segment in segments].count(True) >= 2
    assert any(not call.captured for segment in segments for call in segment.calls)


class _Doubled:
    __name__ = "doubled"

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x * 2) + 1


def test_softmax_and_its_loss_are_part_of_the_graph(gpu, rng):
    def function(x, t):
        x.requires_grad = True
        loss = dl.softmax_cross_entropy(x, t)
        return loss, dl.grad(loss, x), dl.softmax(x)

    x, t = rng.normal(size=(2, 40, 10)).astype("float32")
    t = abs(t) / abs(t).sum(axis=1, keepdims=True)
    step = dl.compile(function)
    for _ in range(3):
        results = step(on_gpu(x), on_gpu(t))
    for ours, theirs in zip(results, function(dl.tensor(x), dl.tensor(t)), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-7)
    assert [segment.graph is not None for segment in executor_of(step).segments] == [True]


def test_random_numbers_are_drawn_anew_and_follow_the_seed(gpu):
    x = numpy.ones((4, 40), "float32")
    draws = []
    for compiled in (True, True, False):
        layer = dl.Dropout(0.5, seed=3)
        step = dl.compile(_Doubled(layer)) if compiled else _Doubled(layer)
        draws.append([step(on_gpu(x)).numpy() for _ in range(4)])
    numpy.testing.assert_array_equal(draws[0], draws[1])
    numpy.testing.assert_array_equal(draws[0], draws[2])  # and are those of the eager layer
    assert len({array.tobytes() for array in draws[0]}) == 4


def test_draws_are_part_of_the_graph_and_their_stream_goes_on(gpu, gpu_name):
    generator = dl.Generator(5)

    def function(x):
        a = dl.primitives.random.random_uniform(x, generator=generator)
        b = dl.primitives.random.random_normal(dl.exp(x), generator=generator)
        return a, b, a + b

    x = on_gpu(numpy.zeros((3, 5), "float32"), gpu_name)
    step = dl.compile(function)
    compiled = [[y.numpy() for y in step(x)] for _ in range(3)]
    more = function(x)[1].numpy()
    assert [segment.graph is not None for segment in executor_of(step).segments] == [True]
    generator = dl.Generator(5)
    eager = [[y.numpy() for y in function(x)] for _ in range(4)]
    for ours, theirs in zip(compiled, eager, strict=False):
        numpy.testing.assert_array_equal(ours, theirs)
    numpy.testing.assert_array_equal(more, eager[3][1])


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_a_stream_goes_on_after_all_have_drawn(gpu, order, monkeypatch):
    if order == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    x, draws = on_gpu(numpy.zeros(1000, "float32")), []
    for compiled in (True, False):
        generator = dl.Generator(5)
        step = _Draw(generator)
        step = dl.compile(step) if compiled else step
        draws.append([step(x).numpy() for _ in range(3)])
    numpy.testing.assert_array_equal(*draws)


class _Draw:
    __name__ = "draw"

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        return dl.primitives.random.random_uniform(x, generator=self.generator)


def test_a_generator_that_is_given_a_state_goes_on_from_it(gpu):
    generator = dl.Generator(5)
    x = on_gpu(numpy.zeros(7, "float32"))
    step = dl.compile(lambda x: dl.primitives.random.random_uniform(x, generator=generator) + 0)
    for _ in range(3):
        step(x)
    state = generator.state_dict()
    expected = [step(x).tolist() for _ in range(3)]
    generator.load_state_dict(state)
    assert [step(x).tolist() for _ in range(3)] == expected
    assert expected[0] != expected[1]


def test_without_cublas_products_are_cupys(gpu, gpu_name, rng, monkeypatch):
    monkeypatch.setattr(gpu_executor, "library", lambda: None)
    batches = rng.random((3, 8, 12)).astype("float32")
    network = autoencoder()
    plain = make_step(network, dl.Adam(network.parameters()))
    expected = [plain(dl.tensor(x)).item() for x in batches]
    step, losses = trained(autoencoder().to(gpu_name), batches)
    numpy.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(executor_of(step).segments) > 10


def test_a_capture_that_fails_is_reported_and_the_step_goes_on(gpu, rng, monkeypatch):
    def waits(self, a, b, out, add):
        gemm(self, a, b, out, add)
        if self.cupy.cuda.get_current_stream().ptr:
            raise RuntimeError("operation not permitted when stream is capturing")

    gemm = gpu_executor.Cublas.gemm
    monkeypatch.setattr(gpu_executor.Cublas, "gemm", waits)
    batches = rng.random((4, 8, 12)).astype("float32")
    expected = trained(autoencoder().to("gpu"), batches[:1])[1]
    step, losses = trained(autoencoder().to("gpu"), batches[:1])
    assert losses == expected
    with pytest.warns(RuntimeWarning, match="could not be captured at 'matmul'.*not permitted"):
        step(on_gpu(batches[1]))
    network = autoencoder()
    plain = make_step(network, dl.Adam(network.parameters()))
    expected = [plain(dl.tensor(x)).item() for x in batches]
    assert step(on_gpu(batches[2])).item() == pytest.approx(expected[2], rel=1e-5)
    assert step(on_gpu(batches[3])).item() == pytest.approx(expected[3], rel=1e-5)


def test_programs_side_by_side_do_not_disturb_each_other(gpu, rng):
    batches = rng.random((4, 8, 12)).astype("float32")
    alone = [trained(autoencoder(seed).to("gpu"), batches)[1] for seed in range(2)]
    networks = [autoencoder(seed).to("gpu") for seed in range(2)]
    steps = [dl.compile(make_step(n, dl.Adam(n.parameters()))) for n in networks]
    losses = [[step(on_gpu(x)).item() for step in steps] for x in batches]
    assert [list(series) for series in zip(*losses, strict=True)] == alone


def test_results_are_not_overwritten_by_the_next_call(gpu):
    double = dl.compile(lambda x: (x * 2, x.sum()))
    first = double(on_gpu(numpy.ones(3)))
    second = double(on_gpu(numpy.full(3, 5.0)))
    assert first[0].tolist() == [2, 2, 2]
    assert (first[1].item(), second[1].item()) == (3, 15)


def test_old_and_transposed_state(gpu):
    p = dl.Parameter(on_gpu(numpy.arange(4.0).reshape(2, 2)))

    @dl.compile(poison=True)
    def transpose_in_place():
        old = p.copy()
        p.assign(p.T.copy())
        return old, p

    for _ in range(3):
        before = p.numpy()
        old, new = transpose_in_place()
        assert old.tolist() == before.tolist()
        assert new.tolist() == before.T.tolist() == p.tolist()


def test_what_reads_a_new_state_waits_for_it(gpu, rng):
    start, x = rng.random((2, 4, 4))
    p, q = dl.Parameter(start), dl.Parameter(on_gpu(start))

    def function(x, p):
        p.assign(p * 0.5 + 1)
        return dl.tanh(x @ p) + 1

    step = dl.compile(lambda x: function(x, q), poison=True)
    for _ in range(3):
        expected = function(dl.tensor(x), p)
        numpy.testing.assert_allclose(step(on_gpu(x)).numpy(), expected.numpy(), rtol=1e-12)
    numpy.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-12)
    assert executor_of(step).schedule.in_place


def test_a_primitive_without_an_expression_is_left_to_cupy(gpu):
    try:
        cube = elementwise(
            "cube_of_a_user",
            lambda xp, x, out=None: xp.multiply(xp.multiply(x, x), x, out=out),
            gradients=(None,),
        )
        state = dl.Parameter(on_gpu(numpy.array([1.0, 2.0])))

        @dl.compile
        def step(x):
            y = cube(x + 1) * state
            state.assign(state + 1)
            return y

        for i in range(3):
            assert step(on_gpu(numpy.array([1.0, 0.0]))).tolist() == [8 * (1 + i), 2 + i]
    finally:
        PRIMITIVES.pop("cube_of_a_user", None)


def test_arrays_are_arguments_like_tensors(gpu):
    same = dl.compile(lambda x: dl.maximum(x, -x))
    for value in (1.0, 2.0, 3.0):
        assert same(gpu.asarray(numpy.full(2, value))).tolist() == [value, value]
    assert len(same.programs) == 1


def test_joined_and_reshaped_arrays_are_part_of_the_graph(gpu, rng):
    x = rng.random((4, 6)).astype("float32")

    def function(x):
        joined = dl.concatenate([x * 2, x[:, :0], x + 1, x[::-1]], axis=1)
        return dl.concatenate([joined.T.reshape(12, 6), x]) * 1, joined.sum()

    step = dl.compile(function, poison=True)
    for _ in range(3):
        results = step(on_gpu(x))
    for ours, theirs in zip(results, function(dl.tensor(x)), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
    assert [segment.graph is not None for segment in executor_of(step).segments] == [True]


def test_empty_arrays_are_left_alone(gpu):
    step = dl.compile(lambda x: (x * 2, x.sum(axis=0), x @ dl.ones((3, 2), device="gpu")))
    for _ in range(3):
        results = step(on_gpu(numpy.ones((0, 3), "float32")))
        assert [r.shape for r in results] == [(0, 3), (3,), (0, 2)]
        assert results[1].tolist() == [0, 0, 0]


def test_arrays_of_several_devices_run_on_the_reference_executor(gpu):
    count = dl.tensor([0.0])

    @dl.compile
    def step(x):
        count.assign(count + 1)
        return x * 2

    for i in range(3):
        assert step(on_gpu(numpy.full(2, i, "float32"))).tolist() == [2 * i, 2 * i]
    assert count.tolist() == [3]
    assert isinstance(executor_of(step), ReferenceExecutor)


def test_a_gpu_for_which_nothing_compiles_runs_the_reference_executor(strict_gpu, rng, monkeypatch):
    def refuse(code):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(strict_gpu, "RawModule", refuse, raising=False)
    batches = rng.random((3, 8, 12)).astype("float32")
    network = autoencoder()
    plain = make_step(network, dl.Adam(network.parameters()))
    with pytest.warns(RuntimeWarning, match="operation by operation: no compiler"):
        step, losses = trained(autoencoder().to("gpu"), batches)
    numpy.testing.assert_allclose(losses, [plain(dl.tensor(x)).item() for x in batches], rtol=1e-5)
    assert isinstance(executor_of(step), ReferenceExecutor)


@given(drawn=functions())
@SHARED
def test_the_cuda_compiler_takes_whole_programs(strict_gpu, drawn):
    function, make_states, shape = drawn
    states, codes = to_gpu(make_states()), []
    with pytest.MonkeyPatch.context() as patch:
        module = strict_gpu.RawModule
        patch.setattr(strict_gpu, "RawModule", lambda code: codes.append(code) or module(code))
        dl.compile(lambda x: function(x, states))(on_gpu(numpy.full(shape, 0.5)))
    compile_for_gpus(*codes, architectures=("sm_90",))


def test_nothing_is_left_behind(gpu, rng):
    step, _ = trained(autoencoder().to("gpu"), rng.random((3, 8, 12)).astype("float32"))
    library = gpu_executor.library()
    handles = getattr(library, "handles", None)
    assert handles is None or len(handles) == 1
    del step
    gc.collect()
    assert not handles


def test_a_copy_of_a_network_has_a_program_of_its_own(gpu, rng):
    network = autoencoder().to("gpu")
    x = rng.random((8, 12)).astype("float32")
    step, losses = trained(network, [x])
    twin = copy.deepcopy(network)
    _, again = trained(twin, [x])
    assert again[0] < losses[0]
    assert step(on_gpu(x)).item() == pytest.approx(again[0], rel=1e-6)


def test_the_listing_says_how_many_launches_there_are(gpu, rng):
    step, _ = trained(autoencoder().to("gpu"), rng.random((2, 8, 12)).astype("float32"))
    assert "17 launches and calls, 1 CUDA graph(s)" in str(step.programs[0])


def test_a_profile_times_every_step_and_restores_the_state(gpu, gpu_name, rng, monkeypatch):
    monkeypatch.setattr(gpu_executor.peak_rates, "peak_rates", lambda *arguments: (1e12, 1e12))
    step, _ = trained(autoencoder().to(gpu_name), rng.random((3, 8, 12)).astype("float32"))
    (program,) = step.programs
    before = [to_numpy(state.array) for state in program.updates]
    text = program.profile(repeats=2)
    assert "ms in matrix products" in text
    for state, array in zip(program.updates, before, strict=True):
        numpy.testing.assert_array_equal(to_numpy(state.array), array)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_peak_rates_of_a_gpu(gpu, gpu_name, monkeypatch, precision):
    x = on_gpu(numpy.ones((3, 3), "float32"), gpu_name)
    steps = [dl.compile(lambda x: x * 2), dl.compile(lambda x: x @ x, precision=precision)]
    if hasattr(gpu_executor.library(), "handles"):
        # A product of 4096 rows and 256 MB are nothing to a GPU, but something to its stand-in.
        of_gpu = functools.partial(gpu_executor.peak_rates.peak_rates, n=8, length=8)
        monkeypatch.setattr(gpu_executor.peak_rates, "peak_rates", of_gpu)
    for step in steps:
        step(x)
        assert all(rate > 0 for rate in executor_of(step).peak_rates())


def test_two_networks_do_not_disturb_each_other(gpu, rng):
    batches = rng.random((6, 8, 12)).astype("float32")
    alone = [trained(autoencoder(seed, rate=0.2).to("gpu"), batches)[1] for seed in (1, 2)]
    networks = [autoencoder(seed, rate=0.2).to("gpu") for seed in (1, 2)]
    steps = [dl.compile(make_step(network, dl.Adam(network.parameters()))) for network in networks]
    together = [[step(on_gpu(x)).item() for step in steps] for x in batches]
    assert [list(losses) for losses in zip(*together, strict=True)] == alone


@pytest.mark.gpu
def test_memory_does_not_grow_over_ten_thousand_steps(rng):
    problem = devices.gpu_problem()
    if problem is not None:
        pytest.skip(problem)
    import cupy

    network = autoencoder(rate=0.2).to("gpu")
    step = dl.compile(make_step(network, dl.Adam(network.parameters())))
    x = on_gpu(rng.random((8, 12)).astype("float32"))
    for _ in range(100):
        step(x)

    def in_use():
        return cupy.get_default_memory_pool().total_bytes(), cupy.cuda.runtime.memGetInfo()[0]

    pool, free = in_use()
    for _ in range(10_000):
        step(x)
    pool_after, free_after = in_use()
    assert pool_after == pool
    assert free - free_after < 16 << 20  # a kilobyte each step would show; other programs may be there, too
