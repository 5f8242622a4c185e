"""Sums over processes as messages: their order, their sizes, when they begin and end, and what is copied."""

import numpy
import pytest

import minidl as dl
from minidl.distributed import allreduce, sum_gradients
from minidl.program.passes import buckets
from minidl.program.program import BeginSum, EndSum
from tests.distributed.mirror import Mirror

KERNELS = ["numpy", "c"]


def training_step(ranks, layers=5, kernels="numpy", threads=1):
    """Return a step that sums its gradients, its network, and data."""
    network = dl.Network([x for i in range(layers) for x in (dl.Dense(32, 32, seed=i), dl.Tanh())])
    optimizer = dl.SGD(network.parameters(), 0.1)

    @dl.compile(kernels=kernels, threads=threads)
    def step(x):
        loss = dl.mean((network(x) - x) ** 2)
        loss.backward()
        sum_gradients(network.parameters(), ranks)
        optimizer.step()
        return loss

    return step, network, numpy.random.default_rng(0).normal(size=(8, 32)).astype("float32")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernels", KERNELS)
def test_a_step_with_messages_is_the_plain_step(kernels, threads, monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 5000)
    step, network, x = training_step(Mirror(2), kernels=kernels, threads=threads)
    plain_step, plain, _ = training_step(Mirror(2))
    plain_step = plain_step.function
    for _ in range(3):
        assert float(step(x)) == pytest.approx(float(plain_step(x)), rel=1e-5)
    for name, array in plain.state_dict().items():
        numpy.testing.assert_allclose(network.state_dict()[name], array, rtol=1e-4, atol=1e-6)


def test_messages_begin_in_the_order_of_backward_and_end_when_they_are_read(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 5000)
    ranks = Mirror(2)
    step, _, x = training_step(ranks)
    step(x)
    (program,) = step.programs
    begins = [step for step in program.steps if isinstance(step, BeginSum)]
    # Weights have 4 KB, and gradients of the last layers are complete first: two layers fill a message.
    assert len(begins) == 3 == len([step for step in program.steps if isinstance(step, EndSum)])
    assert sum(value.nbytes for begin in begins for value in begin.values) == 5 * 4 * (32 * 32 + 32)
    place = {id(step): i for i, step in enumerate(program.steps)}
    for begin in begins:
        writers = [i for i, step in enumerate(program.steps) if set(step.outputs) & set(begin.values)]
        assert max(writers) < place[id(begin)]
    last_product = max(i for i, step in enumerate(program.steps) if step.name.startswith("matmul"))
    assert [place[id(begin)] < last_product for begin in begins] == [True, True, False]
    # All of them are under way when the first is waited for, which is the one that began first.
    order = [(kind, number) for kind, number, _ in ranks.log]
    assert order == [(kind, number) for kind in ("begin", "end") for number in range(3)]


def test_messages_move_on_after_long_steps(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 5000)
    monkeypatch.setattr(buckets, "LONG_STEP", 2 * 8 * 32 * 32)
    ranks = Mirror(2)
    step, _, x = training_step(ranks)
    step(x)
    (program,) = step.programs
    names = [step.name for step in program.steps]
    first, last = names.index("begin allreduce of 8 KB"), len(names) - names[::-1].index("advance allreduce")
    products = [name for name in names[first:last] if name == "matmul"]
    assert len(products) == names.count("advance allreduce") == 5
    assert ranks.progressed == 5 + 2  # each message that begins moves on those before it


def test_buckets_do_not_depend_on_the_rows_of_a_process(monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_BYTES", 5000)
    logs = []
    for rows in (1, 3, 8):
        for threads in (1, 2):
            ranks = Mirror(2)
            step, _, x = training_step(ranks, threads=threads)
            step(x[:rows])
            logs.append(ranks.log)
    assert all(log == logs[0] for log in logs)


def test_gradients_are_computed_in_the_memory_of_their_message():
    step, _, x = training_step(Mirror(2))
    step(x)
    (program,) = step.programs
    arrays = program.executor.memory.arrays
    (begin,) = [step for step in program.steps if isinstance(step, BeginSum)]
    matrices = [value for value in begin.values if len(value.shape) == 2]  # sums of biases are reshaped
    assert len(matrices) == 5
    assert all(numpy.shares_memory(arrays[value], begin.message.array) for value in matrices)


def test_what_is_read_before_the_sum_as_well_is_copied():
    ranks = Mirror(3)
    w = dl.Parameter(numpy.arange(6, dtype="float32"))

    @dl.compile(kernels="numpy")
    def step(x):
        (w * x).sum().backward()
        own = w.grad
        sum_gradients([w], ranks)
        total, w.grad = w.grad, None
        return own, total, own + 1

    x = numpy.arange(6, dtype="float32")
    for _ in range(2):
        own, total, more = step(x)
        numpy.testing.assert_array_equal(own.numpy(), x)
        numpy.testing.assert_array_equal(total.numpy(), 3 * x)
        numpy.testing.assert_array_equal(more.numpy(), x + 1)


@pytest.mark.parametrize("kernels", KERNELS)
def test_sums_of_sums(kernels):
    """A sum that another one waits for is in an earlier message."""
    ranks = Mirror(2)
    w = dl.Parameter(numpy.ones(4, "float32"))

    @dl.compile(kernels=kernels)
    def step(x):
        (w * x).sum().backward()
        sum_gradients([w], ranks)
        w.grad = w.grad * w.grad + 1
        sum_gradients([w], ranks)
        result, w.grad = w.grad, None
        return result, allreduce(allreduce(x, ranks), ranks)

    result, nested = step(numpy.full(4, 3, "float32"))
    numpy.testing.assert_array_equal(result.numpy(), numpy.full(4, 2 * (6 * 6 + 1)))
    numpy.testing.assert_array_equal(nested.numpy(), numpy.full(4, 12))


def test_each_dtype_has_messages_of_its_own():
    ranks = Mirror(2)
    parameters = [
        dl.Parameter(numpy.ones(3, dtype)) for dtype in ("float32", "float64", "float32", "float16")
    ]

    @dl.compile(kernels="numpy")
    def step(x):
        sum(((p * p).sum() * 3).astype("float64") for p in parameters).backward()
        sum_gradients(parameters, ranks)
        gradients = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        return gradients

    gradients = step(numpy.ones(1, "float32"))
    assert [g.dtype for g in gradients] == [p.dtype for p in parameters]
    assert all((g.numpy() == 12).all() for g in gradients)
    assert len({number for _, number, _ in ranks.log}) == 2


def test_the_listing_shows_messages():
    step, _, x = training_step(Mirror(2), layers=1)
    step(x)
    text = str(step.programs[0])
    assert "begin allreduce of 4 KB" in text
    assert "end allreduce" in text
    assert "1 sums over 2 processes, 0.00 MB" in text
    assert "% overlap)" in step.programs[0].profile(repeats=1)


def test_a_process_alone_sends_nothing():
    step, _, x = training_step(dl.distributed.Communicator())
    step(x)
    assert not [step for step in step.programs[0].steps if isinstance(step, BeginSum)]


def test_a_gpu_computes_and_sums_in_its_own_memory(gpu):
    ranks = Mirror(2)
    w = dl.Parameter(numpy.ones((4, 3), "float32"))
    on_gpu = w.to("gpu")
    parameter = dl.Parameter(on_gpu)

    @dl.compile
    def step(x):
        ((x @ parameter) ** 2).sum().backward()
        sum_gradients([parameter], ranks)
        result, parameter.grad = parameter.grad, None
        return result

    x = numpy.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    expected = 2 * 2 * x.T @ (x @ numpy.ones((4, 3), "float32"))
    for _ in range(3):
        result = step(dl.tensor(x, device="gpu"))
        numpy.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)
