"""Convolutional networks on a GPU are one graph: packed windows, cuBLAS, pooling, and all gradients.

With the stand-in, kernels run on the CPU; the tests marked `gpu` are the same on a real GPU.
"""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from benchmarks.jobs import cnn
from benchmarks.peers import minidl_cnn
from minidl.primitives.convolution import CONVOLUTIONS, conv_, conv_input_
from minidl.primitives.windows import overlap_add, windows
from minidl.program.gpu import executor as gpu_executor
from minidl.program.gpu import scratch
from minidl.program.lowered.window_view import window_view_
from tests.layers.test_on_a_gpu import LAYERS
from tests.primitives.test_convolution import convolutions
from tests.program.gpu.kernels.running import compile_for_gpus, examples
from tests.program.gpu.kernels.test_windows import pools
from tests.program.networks import executor_of

pytestmark = pytest.mark.gpu_source

SHARED = examples(3)


def on_gpu(x):
    return dl.tensor(x, device="gpu")


#: How far results may be off, of the largest among them.
TOLERANCES = {"float32": 3e-5, "float64": 1e-10, "int64": 0}


def compared(function, *arrays, runs=3, **options):
    """Run a function compiled on the GPU and plain on the CPU; return the executor of the first."""
    step = dl.compile(function, poison=True, **options)
    ours = list(map(on_gpu, arrays))
    for _ in range(runs):
        results = step(*ours)
    with numpy.errstate(all="ignore"):
        expected = function(*map(dl.tensor, arrays))
    for a, b in zip(results, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        b = b.numpy()
        scale = 1 + numpy.nan_to_num(abs(b.astype("float64")), posinf=0).max(initial=0)
        numpy.testing.assert_allclose(a.numpy() / scale, b / scale, rtol=0, atol=TOLERANCES[b.dtype.name])
    return executor_of(step)


def is_one_graph(executor):
    left = [call.name for call in executor.calls if not call.captured]
    return not left and [segment.graph is not None for segment in executor.segments] == [True]


def second_order(function):
    """Return a function that returns results, gradients, and gradients of gradients."""

    def differentiated(*inputs):
        for x in inputs:
            x.requires_grad = True
        y = function(*inputs)
        gradients = dl.grad((y * dl.sin(y)).sum(), inputs, create_graph=True)
        return (y, *gradients, *dl.grad(sum((g * g * g).sum() for g in gradients), inputs))

    return differentiated


# --- convolution ----------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [32 << 20, 2000, 1], ids=["whole", "in blocks", "row by row"])
@given(data=st.data())
@SHARED
def test_convolutions_and_their_gradients_are_part_of_the_graph(gpu, packed, data):
    """Of both orders, in blocks of whole images, and in blocks that cut images."""
    drawn = data.draw(st.lists(convolutions(), min_size=2, max_size=2))
    settings = [where for _, _, where in drawn]

    def function(*arrays):
        pairs = zip(arrays[::2], arrays[1::2], strict=True)
        return [
            result
            for (x, w), where in zip(pairs, settings, strict=True)
            for result in second_order(lambda x, w, where=where: conv_(x, w, **where))(x, w)
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "PACKED_BYTES", packed)
        patch.setattr("minidl.program.gpu.kernels.grouped.MAX_CHANNELS", data.draw(st.sampled_from([0, 8])))
        executor = compared(function, *(array for x, w, _ in drawn for array in (x, w)))
    assert is_one_graph(executor)


CASES = {
    "same": ((3, 9, 8, 4), (3, 3, 4, 5), {"padding": "same"}),
    "strided": ((3, 9, 8, 4), (3, 2, 4, 5), {"stride": (2, 3)}),
    "dilated": ((2, 11, 8, 3), (3, 2, 3, 2), {"dilation": (2, 3), "padding": 2}),
    "pointwise": ((2, 5, 4, 6), (1, 1, 6, 9), {}),
    "pointwise, in groups": ((2, 5, 4, 20), (1, 1, 10, 24), {"groups": 2}),
    "in groups": ((2, 5, 4, 20), (3, 3, 10, 24), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 7, 6, 40), (3, 3, 1, 40), {"groups": 40, "stride": 2, "padding": 1}),
    "small groups": ((2, 7, 6, 6), (3, 2, 2, 12), {"groups": 3, "padding": "same"}),
    "wide border": ((2, 4, 4, 3), (2, 2, 3, 4), {"padding": 4, "stride": 3}),
    "one window": ((2, 5, 5, 3), (5, 5, 3, 4), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_settings_of_convolutions(gpu, rng, name):
    shape, weights, where = CASES[name]
    of_both_orders = second_order(lambda x, w: dl.conv2d(x, w, **where))
    arrays = [rng.normal(size=of).astype(t) for t in ("float32", "float64") for of in (shape, weights)]
    executor = compared(lambda *xs: (*of_both_orders(*xs[:2]), *of_both_orders(*xs[2:])), *arrays)
    assert is_one_graph(executor)


@pytest.mark.parametrize(
    "where", [{"stride": 2, "padding": "same"}, {"stride": 1, "padding": 1, "groups": 2}]
)
def test_transposed_convolutions(gpu, rng, where):
    x, w = rng.normal(size=(2, 5, 4, 6)), rng.normal(size=(3, 3, 4, 6))
    function = second_order(lambda x, w: dl.conv_transpose2d(x, w, **where))
    assert is_one_graph(compared(function, x, w))


def test_half_precision_is_added_up_in_single_precision(gpu, rng):
    """Also where the gradient of the weights is the sum of several blocks."""
    x, w = (
        rng.uniform(0.5, 1, (40, 12, 12, 3)).astype("float16"),
        rng.uniform(0, 0.2, (3, 3, 3, 4)).astype("float16"),
    )

    def function(x, w):
        x.requires_grad = w.requires_grad = True
        y = dl.conv2d(x, w, padding="same")
        return y, *dl.grad((y * 0.125).sum(), [x, w])

    step = dl.compile(function, poison=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "PACKED_BYTES", 9000)
        for _ in range(3):
            results = step(on_gpu(x), on_gpu(w))
    assert is_one_graph(executor_of(step))
    exact = function(dl.tensor(x.astype("float64")), dl.tensor(w.astype("float64")))
    for ours, expected in zip(results, exact, strict=True):
        assert ours.dtype == numpy.float16
        numpy.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1.1e-3)  # rounded, hardly more


VIEWS = {
    "channels of others": lambda x: dl.concatenate([x, x + 1], -1)[..., : x.shape[-1]],
    "transposed": lambda x: dl.swapaxes(dl.concatenate([dl.swapaxes(x, 1, 2)]), 1, 2),
    "every other": lambda x: dl.concatenate([x, x * 2], 0)[::2],
}


@pytest.mark.parametrize("view", VIEWS)
def test_images_and_weights_that_lie_strided(gpu, rng, view):
    cases = [CASES[name] for name in ("strided", "pointwise", "depthwise", "in groups")]

    def function(*arrays):
        results = []
        for x, w, (_, _, where) in zip(arrays[::2], arrays[1::2], cases, strict=True):
            x.requires_grad = w.requires_grad = True
            y = VIEWS[view](dl.conv2d(VIEWS[view](x), VIEWS[view](w), **where))
            results += [y, *dl.grad((y * dl.sin(y)).sum(), [x, w])]
        return results

    arrays = [rng.normal(size=of) for shape, weights, _ in cases for of in (shape, weights)]
    assert is_one_graph(compared(function, *arrays))


def test_empty_batches(gpu):
    def function(x, w):
        x.requires_grad = w.requires_grad = True
        y = dl.conv2d(x, w, padding=1)
        return y, *dl.grad(y.sum(), [x, w])

    compared(function, numpy.ones((0, 4, 4, 3)), numpy.ones((3, 3, 3, 2)))


def test_replays_have_the_same_bits(gpu, rng, monkeypatch):
    x, w = rng.normal(size=(6, 9, 9, 3)).astype("float32"), rng.normal(size=(3, 3, 3, 4)).astype("float32")
    monkeypatch.setattr(scratch, "PACKED_BYTES", 9000)
    results = []
    for _ in range(2):
        step = dl.compile(second_order(lambda x, w: dl.conv2d(x, w, padding="same")))
        results += [[y.numpy().tobytes() for y in step(on_gpu(x), on_gpu(w))] for _ in range(3)]
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    assert all(other == results[0] for other in results)


def test_packed_windows_take_no_more_than_a_block(strict_gpu, rng, monkeypatch):
    """A program's convolutions use the same memory, one after another."""
    monkeypatch.setattr(scratch, "PACKED_BYTES", 1 << 16)
    ws = [rng.normal(size=(3, 3, 8, 8)).astype("float32") for _ in range(4)]

    def function(x, *ws):
        for w in ws:
            x = dl.relu(dl.conv2d(x, w, padding="same"))
        return (x,)

    x = rng.normal(size=(16, 12, 12, 8)).astype("float32")
    executor = compared(function, x, *ws)
    assert 9 * x.nbytes > 8 << 16  # unfolded
    packed = [step for step in executor.program.steps if isinstance(step, scratch.WithScratch)]
    assert len(packed) == 4
    buffers = {executor.memory.arrays[v].data.ptr for step in packed for v in step.scratch}
    assert len(buffers) == 1
    assert all(v.nbytes <= 1 << 16 for step in packed for v in step.scratch)
    assert sum(buffer.nbytes for buffer in executor.memory.buffers) < 3 * x.nbytes


def test_kernels_of_all_blocks_share_their_code(strict_gpu, rng, monkeypatch):
    monkeypatch.setattr(scratch, "PACKED_BYTES", 1 << 14)
    codes, module = [], strict_gpu.RawModule
    monkeypatch.setattr(strict_gpu, "RawModule", lambda code: codes.append(code) or module(code))
    x, w = rng.normal(size=(3, 16, 16, 4)), rng.normal(size=(3, 3, 4, 8))
    executor = compared(second_order(lambda x, w: dl.conv2d(x, w, padding="same")), x, w)
    launches = sum(bool(call.kernels) for call in executor.calls)
    assert launches > 50
    assert sum(code.count("static __device__ void step_") for code in codes) < 40


def test_without_cublas_convolutions_are_cupys(gpu, rng, monkeypatch):
    monkeypatch.setattr(gpu_executor, "library", lambda: None)
    x, w = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    executor = compared(second_order(lambda x, w: dl.conv2d(x, w)), x, w)
    assert {call.name for call in executor.calls if not call.captured} == {p.name for p in CONVOLUTIONS}


def test_a_profile_counts_all_calls_of_a_convolution(strict_gpu, rng, monkeypatch):
    monkeypatch.setattr(scratch, "PACKED_BYTES", 1 << 12)
    x, w = rng.normal(size=(3, 16, 16, 4)), rng.normal(size=(3, 3, 4, 8))
    executor = compared(lambda x, w: (dl.conv2d(x, w),), x, w)
    calls = [call for call in executor.calls if call.name == "conv"]
    assert len(calls) > 10
    monkeypatch.setattr(executor, "_seconds", lambda work: 1.0)
    seconds = {}

    def record(task, time):
        seconds[task.name] = max(seconds.get(task.name, 0.0), time)

    executor.timed(record)()
    assert seconds["conv"] == len(calls)


# --- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_lower_precision_is_that_of_products(gpu, rng, precision):
    x, w = rng.normal(size=(4, 8, 8, 3)).astype("float32"), rng.normal(size=(3, 3, 3, 16)).astype("float32")

    def function(x, w):
        x.requires_grad = w.requires_grad = True
        y = dl.conv2d(x, w, padding="same")
        return y, *dl.grad((y * y).sum(), [x, w])

    step = dl.compile(function, precision=precision)
    for _ in range(3):
        results = step(on_gpu(x), on_gpu(w))
    assert is_one_graph(executor_of(step))
    if hasattr(gpu_executor.library(), "computed_as"):  # the stand-in, which does not round for tf32
        assert set(gpu_executor.library().computed_as) == {77}
        if precision == "tf32":
            return
    expected = dl.compile(function, precision=precision, kernels="numpy")(dl.tensor(x), dl.tensor(w))
    for ours, theirs in zip(results, expected, strict=True):
        scale = abs(theirs.numpy()).max()
        numpy.testing.assert_allclose(ours.numpy() / scale, theirs.numpy() / scale, rtol=0, atol=3e-4)


# --- windows and pooling --------------------------------------------------------------------------


@given(data=st.data())
@SHARED
def test_max_pooling_and_its_gradients_are_part_of_the_graph(gpu, data):
    rng = numpy.random.default_rng(data.draw(st.integers(0, 99)))
    drawn = [data.draw(pools().filter(lambda drawn: len(drawn[1]) == 2)) for _ in range(2)]

    def function(*xs):
        return [
            result
            for x, (_, window, stride) in zip(xs, drawn, strict=True)
            for result in second_order(lambda x, w=window, s=stride: dl.max_pool2d(x, w, s))(x)
        ]

    assert is_one_graph(compared(function, *(rng.normal(size=shape) for shape, _, _ in drawn)))


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, 2, 0), (3, 2, "same"), (3, 1, 1), ((1, 2), (3, 2), 0)]
)
@pytest.mark.parametrize("pool", [dl.max_pool2d, dl.average_pool2d])
def test_pooling_layers_are_part_of_the_graph(gpu, rng, pool, window, stride, padding):
    x = rng.normal(size=(2, 7, 8, 3))
    executor = compared(second_order(lambda x: pool(x, window, stride, padding)), x)
    assert is_one_graph(executor)
    names = [step.name for step in executor.program.steps]
    assert ("window_view" in names) == (pool is dl.average_pool2d)
    assert "windows" not in names


def test_windows_are_copied_only_where_they_have_to_be(gpu, rng):
    def function(x):
        y = windows(x, (2, 3), (2, 1), (1, 2))
        z = windows(x, (2, 2))
        return (
            y,
            (z * dl.sin(z)).sum((3, 4)),
            overlap_add(y, (7, 8), (2, 1), (1, 2)),
            z.max((3, 4)).sum(),
            x.argmin(),
        )

    executor = compared(function, rng.normal(size=(2, 7, 8, 3)))
    assert is_one_graph(executor)
    steps = executor.program.steps
    assert [step.name for step in steps].count("windows") == 1
    (view,) = [step for step in steps if step.operation is window_view_]
    (x,) = executor.program.inputs
    assert executor.memory.arrays[view.output].data.ptr == executor.memory.arrays[x].data.ptr


def test_local_layers_are_part_of_the_graph(gpu, rng):
    """Products of windows that are views are copied for cuBLAS."""
    x, w = rng.normal(size=(2, 6, 5, 3)), rng.normal(size=(4, 3, 27, 2))

    def local(x, w):
        parts = dl.reshape(windows(x, (3, 3)), (2, 4, 3, 1, 27))
        return (parts @ w)[..., 0, :]

    assert is_one_graph(compared(second_order(local), x, w))


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_steps_of_all_layers_are_one_graph(name, gpu, rng):
    """Forward, backward and update of each layer, as a Trainer does them."""
    make, shape = LAYERS[name]
    x = rng.normal(size=(4, *shape)).astype("float32")
    results = []
    for device in ("cpu", "gpu"):
        network = dl.Network([make()]).to(device)
        optimizer = dl.SGD(network.parameters(), 0.01) if network.parameters() else None

        def step(x, network=network, optimizer=optimizer):
            x.requires_grad = True
            y = network(x)
            loss = (y * dl.sin(y)).sum()
            gradient = dl.grad(loss, x, create_graph=True)
            if optimizer is not None:
                loss.backward()
                optimizer.step()
            return loss, gradient

        compiled = dl.compile(step, poison=True)
        for _ in range(3):
            outputs = compiled(dl.tensor(x, device=device))
        results.append([*outputs, *network.parameters()])
    assert is_one_graph(executor_of(compiled))
    for theirs, ours in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)


def cnn_step(device, **options):
    """Return the step of the benchmark's convolutional network, compiled or plain."""
    weights = cnn.initial_weights()
    network = minidl_cnn.make_network()
    for i, place in enumerate((0, 4, 8), 1):
        network[place].weight.assign(weights[f"kernel{i}"])
    network[-1].weight.assign(weights["weight"])
    network.to(device)
    optimizer = dl.SGD(network.parameters(), cnn.LEARNING_RATE, momentum=cnn.MOMENTUM)

    def step(x, target):
        loss = minidl_cnn.loss_of(network, x, target)
        loss.backward()
        optimizer.step()
        return loss

    return dl.compile(step, **options) if options else step


@pytest.mark.parametrize("packed", [32 << 20, 1 << 17], ids=["whole", "in blocks"])
def test_the_convolutional_benchmark_is_one_graph(gpu, packed, monkeypatch):
    """Nothing of it is left to CuPy, and the losses are those of the CPU."""
    monkeypatch.setattr(scratch, "PACKED_BYTES", packed)
    batches = [(x[:4], t[:4]) for x, t in cnn.step_batches(None, 16)[:3]]
    plain, compiled = cnn_step("cpu"), cnn_step("gpu", poison=True)
    expected = [plain(dl.tensor(x), dl.tensor(t)).item() for x, t in batches]
    losses = [compiled(on_gpu(x), on_gpu(t)).item() for x, t in batches]
    numpy.testing.assert_allclose(losses, expected, rtol=cnn.TOLERANCE)
    executor = executor_of(compiled)
    assert is_one_graph(executor)
    convolutions_ = [step.operation for step in executor.program.steps if step.operation in CONVOLUTIONS]
    assert (convolutions_.count(conv_), convolutions_.count(conv_input_), len(convolutions_)) == (3, 2, 8)
    if packed == 32 << 20:
        assert len(executor.calls) == 68


def test_the_cuda_compiler_takes_the_convolutional_benchmark(strict_gpu, monkeypatch):
    codes, module = [], strict_gpu.RawModule
    monkeypatch.setattr(strict_gpu, "RawModule", lambda code: codes.append(code) or module(code))
    x, t = cnn.step_batches(None, 4)[0]
    cnn_step("gpu", poison=True)(on_gpu(x), on_gpu(t))
    assert len(codes) == 1
    compile_for_gpus(*codes, architectures=("sm_90",))
