"""What a training step can be made of is part of its CUDA graph: which primitives are, and what is left."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.primitives.indexing import SLOT
from minidl.program.gpu import executor as gpu_executor
from minidl.program.gpu.kernels.lowering import LOWERINGS
from minidl.program.program import Group, Instruction, Program, Value
from tests.primitives.test_gradients import BUILT_IN, WITHOUT_RESULT
from tests.program.gpu.kernels.running import compile_for_gpus, examples
from tests.program.lowered.keys import filled, selections
from tests.program.networks import executor_of

pytestmark = pytest.mark.gpu_source

SHARED = examples(8)


def on_gpu(x):
    return dl.tensor(x, device="gpu")


def is_one_graph(step):
    return [segment.graph is not None for segment in executor_of(step).segments] == [True]


def agree(ours, theirs, rtol=1e-12, atol=1e-12):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        numpy.testing.assert_allclose(a.numpy(), b.numpy(), rtol=rtol, atol=atol)


# --- which primitives are captured ----------------------------------------------------------------

X = numpy.linspace(0.1, 0.9, 12).reshape(3, 4)
POSITIONS = numpy.array([2, 0, 2, 1])
PLACES = {"lengths": (3,), "stretch": 1024, "dtype": numpy.dtype("int64")}
SORTED = BUILT_IN["sort_places"].forward(numpy, POSITIONS, **PLACES)
OVER = {"axis": (1,), "keepdims": False}
INTO = {"key": (SLOT,), "shape": (3, 4)}
IMAGES, RESULTS = (numpy.linspace(0.1, 0.9, 2 * n).reshape(1, n, 2) for n in (4, 3))
WEIGHTS = numpy.linspace(-0.5, 0.7, 8).reshape(2, 2, 2)
SLIDING = {"stride": (1,), "dilation": (1,)}
CONVOLUTION = SLIDING | {"padding": ((0, 0),), "groups": 1}

#: Inputs and attributes of primitives that are not elementwise.
EXAMPLES = {
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), ([X > 0.3, X > 0.6], {})),
    "cast": ([X], {"dtype": numpy.dtype("float32")}),
    "clip": ([X], {"low": 0.2, "high": 0.5}),
    "where": ([X > 0.5, X, X], {}),
    "round_off": ([X.astype("float32")], {"bits": 7}),
    "to_bfloat16": ([X.astype("float32")], {}),
    "sum": ([X], OVER),
    "max": ([X], OVER),
    "logsumexp": ([X], OVER),
    "softmax": ([X], {"axis": (1,)}),
    "argmax": ([X], {"axis": 1}),
    "argmin": ([X], {"axis": 1}),
    "min": ([X], OVER),
    "reshape": ([X], {"shape": (4, 3)}),
    "transpose": ([X], {"axes": (1, 0)}),
    "broadcast_to": ([X], {"shape": (2, 3, 4)}),
    "detach": ([X], {}),
    "concatenate": ([X, X], {"axis": 1}),
    "pad": ([X], {"widths": ((1, 0), (0, 2)), "value": 0.5}),
    "matmul": ([X, X.T], {}),
    "slice": ([X], {"key": (1, 2)}),  # one element, which is no view
    "gather": ([X, POSITIONS], {"key": (SLOT,)}),
    "scatter_add": ([X[POSITIONS], POSITIONS], INTO),
    "sort_places": ([POSITIONS], PLACES),
    "merge_places": ([SORTED], {"stretch": 1024}),
    "sum_runs": ([numpy.repeat(X[:1], 64, 0), numpy.arange(64), numpy.zeros(64, int)], INTO),
    "scatter_sorted": ([X[POSITIONS], SORTED, POSITIONS], INTO),
    "argsort": ([X], {"axis": 0}),
    "cumsum": ([X], {"axis": 1}),
    "set_items": ([X, X[0], POSITIONS[:2]], {"key": (SLOT,)}),
    "conv": ([IMAGES, WEIGHTS], CONVOLUTION),
    "conv_input": ([RESULTS, WEIGHTS], CONVOLUTION | {"lengths": (4,)}),
    "conv_weight": ([IMAGES, RESULTS], CONVOLUTION | {"window": (2,)}),
    **dict.fromkeys(("windows", "window_view"), ([IMAGES], {"window": (2,)} | SLIDING)),
    "overlap_add": ([X.reshape(1, 3, 2, 2)], {"lengths": (4,)} | SLIDING),
    "select_maxima": ([IMAGES, IMAGES], {"window": (2,), "stride": (2,)}),
    "scatter_to_maxima": ([RESULTS[:, :2], IMAGES], {"window": (2,), "stride": (2,)}),
    "random_uniform": ([X], {"generator": dl.Generator(0)}),
    "random_normal": ([X], {"generator": dl.Generator(0)}),
}

VIEWS = {"detach", "reshape", "transpose", "broadcast_to", "slice", "window_view"}
LIBRARY = {"matmul"}

#: What is replaced before an executor sees it: by copies, or by smaller operations.
REPLACED = {*WITHOUT_RESULT, "softmax", "logsumexp", "log_softmax"}

#: What is left to CuPy, and so cuts a step into several graphs. So are products of whole numbers, arrays of
#: complex numbers, sorting along long axes, and many positions.
LEFT_TO_CUPY = {
    "allreduce",  # NCCL's; see tests/distributed/test_nccl.py
    "add_at",  # which programs have on a CPU alone
    *("check", "erfinv"),
    *("inv", "solve", "cholesky", "log_abs_det", "sign_of_det"),
}


def test_what_is_left_to_cupy_has_no_kernel():
    elementwise = {name for name, p in BUILT_IN.items() if p.kind == "elementwise" and not p.expression}
    assert elementwise <= LEFT_TO_CUPY
    assert not {BUILT_IN[name] for name in LEFT_TO_CUPY} & LOWERINGS.keys()


def test_which_primitives_are_part_of_a_graph(gpu):
    """Each one alone, as the executor is given it."""
    steps, inputs, outputs = [], [], []
    for name, primitive in BUILT_IN.items():
        if name in REPLACED | LEFT_TO_CUPY:
            continue
        low, high = primitive.domain
        inside = low + (high - low) * X
        arrays, attributes = EXAMPLES.get(name) or ([inside] * len(primitive.gradients), {})
        if name == "scatter_add":  # with positions it is replaced before
            arrays, attributes = [X], {"key": (slice(None), slice(1, None, 2)), "shape": (3, 9)}
        expected = (
            numpy.asarray(primitive.forward(numpy, *arrays, **attributes)) if name[:6] != "random" else X
        )
        values = [Value(x.shape, x.dtype, "input", gpu.asarray(x)) for x in arrays]
        output = Value(expected.shape, expected.dtype)
        inputs += values
        outputs.append(output)
        step = Instruction(primitive, values, attributes, output)
        steps.append(Group([step], [output]) if primitive.kind == "elementwise" else step)
    executor = gpu_executor.CupyExecutor(Program(inputs, steps, outputs, {}))
    generated = {step.name for call in executor.calls if call.kernels for step in call.tasks}
    captured = {step.name for call in executor.calls if call.captured for step in call.tasks}
    left = {step.name for call in executor.calls if not call.captured for step in call.tasks}
    assert not left
    assert captured - generated <= LIBRARY
    assert BUILT_IN.keys() - REPLACED - LEFT_TO_CUPY - captured <= VIEWS
    executor.run()
    executor.run()
    assert [segment.graph is not None for segment in executor.segments] == [True]


# --- whole functions ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forwards", "backwards"])
@given(data=st.data())
@SHARED
def test_indexing_and_its_gradients_are_part_of_the_graph(gpu, order, monkeypatch, data):
    if order == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    drawn = [data.draw(selections(empty=i == 0)) for i in range(3)]
    rng = numpy.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = [rng.normal(size=shape) for shape, _, _ in drawn]

    def function(xs, positions):
        for x in xs:
            x.requires_grad = True
        picked = [x[filled(key, p)] for x, p, (_, key, _) in zip(xs, positions, drawn, strict=True)]
        loss = sum((y * y * 0.5 + y).sum() for y in picked)
        gradients = dl.grad(loss, xs, create_graph=True)
        second = dl.grad(sum((g * g).sum() for g in gradients), xs)
        return (*picked, *gradients, *second)

    positions = [p for _, _, p in drawn]
    step = dl.compile(function, poison=True)
    ours = [on_gpu(x) for x in arrays], [[on_gpu(p) for p in of] for of in positions]
    for _ in range(3):
        results = step(*ours)
    agree(results, function(list(map(dl.tensor, arrays)), [[dl.tensor(p) for p in of] for of in positions]))
    assert is_one_graph(step)


def test_positions_may_change_from_step_to_step(gpu, rng):
    table = rng.normal(size=(50, 4)).astype("float32")

    def function(table, positions):
        table.requires_grad = True
        rows = table[positions]
        return rows, dl.grad((rows * rows).sum(), table)

    step = dl.compile(function, poison=True)
    for _ in range(4):
        positions = rng.integers(-50, 50, (40, 30))
        agree(
            step(on_gpu(table), on_gpu(positions)),
            function(dl.tensor(table), dl.tensor(positions)),
            rtol=1e-5,
            atol=1e-5,
        )
    assert is_one_graph(step)
    assert step.programs[0].executor.memory.arrays  # 1200 positions: two stretches, and runs
    assert {"merge_places", "sum_runs"} <= {step.name for step in step.programs[0].steps}


def test_equal_positions_are_sorted_once(gpu, rng):
    def function(a, b, positions):
        a.requires_grad = b.requires_grad = True
        return dl.grad((a[positions] * b[positions]).sum(), [a, b])

    arrays = [*rng.normal(size=(2, 10, 3)), rng.integers(0, 10, 20)]
    step = dl.compile(function)
    for _ in range(3):
        results = step(*map(on_gpu, arrays))
    agree(results, function(*map(dl.tensor, arrays)))
    (program,) = step.programs
    assert [s.name for s in program.steps].count("sort_places") == 1
    assert is_one_graph(step)


def test_padding_and_the_place_of_the_largest(gpu, rng):
    def function(x):
        x.requires_grad = True
        y = dl.pad(x * 2, ((1, 2), (0, 3)), constant_values=-5.0)
        return y, y.argmax(axis=0), y.argmax(), dl.grad((y * y).sum(), x), (x > 0).max(axis=1)

    x = rng.normal(size=(6, 7)).astype("float32")
    step = dl.compile(function, poison=True)
    for _ in range(3):
        results = step(on_gpu(x))
    agree(results, function(dl.tensor(x)), rtol=1e-6)
    assert is_one_graph(step)


def test_assignment_sorting_and_running_sums(gpu, rng):
    """And the gradients of those that have some."""
    state = dl.tensor(numpy.zeros((4, 5)), device="gpu")
    x, place = rng.normal(size=(4, 5)), numpy.array(2)

    def function(x, place, state):
        x.requires_grad = True
        state[:, place] = x[:, 1]
        state[1:3, ::2] = 7.0
        largest, order = dl.topk(x, 2)
        total = dl.cumsum(dl.sort(x, axis=0), axis=1)
        return state * 1, largest, order, total, dl.grad((total * total).sum() + largest.sum(), x)

    step = dl.compile(lambda x, place: function(x, place, state), poison=True)
    for _ in range(3):
        results = step(on_gpu(x), on_gpu(place))
    agree(results, function(dl.tensor(x), dl.tensor(place), dl.tensor(numpy.zeros((4, 5)))))
    assert is_one_graph(step)


def test_what_is_too_long_to_be_sorted_in_a_kernel_is_cupys(gpu, rng):
    x = rng.normal(size=5000)
    step = dl.compile(lambda x: dl.sort(x) * 2)
    for _ in range(3):
        result = step(on_gpu(x))
    numpy.testing.assert_array_equal(result.numpy(), numpy.sort(x) * 2)
    assert [call.name for call in executor_of(step).calls if not call.captured] == ["argsort"]


def test_empty_positions_and_sums_of_nothing(gpu, rng):
    def function(x, none):
        x.requires_grad = True
        rows = x[none]
        return dl.grad(rows.sum() + x[:0].sum(), x), rows.sum(axis=0), rows @ x.T

    x, none = rng.normal(size=(4, 3)), numpy.zeros(0, "int64")
    step = dl.compile(function, poison=True)
    for _ in range(3):
        results = step(on_gpu(x), on_gpu(none))
    agree(results, function(dl.tensor(x), dl.tensor(none)))
    assert is_one_graph(step)


# --- matrix products ------------------------------------------------------------------------------

STACKS = [
    ((4, 5, 6), (4, 6, 3)),
    ((2, 3, 5, 6), (2, 3, 6, 4)),
    ((4, 5, 6), (6, 3)),
    ((5, 6), (4, 6, 3)),
    ((2, 1, 5, 6), (3, 6, 4)),
    ((2, 3, 5, 6), (3, 6, 4)),
    ((1, 5, 6), (7, 6, 1)),
    ((2, 3, 1, 6), (2, 1, 6, 2)),
    ((3, 4, 0), (3, 0, 2)),
]
VIEWS_OF_STACKS = {
    "as they are": lambda x: x,
    "transposed": lambda x: dl.swapaxes(dl.concatenate([dl.swapaxes(x, -1, -2)]), -1, -2),
    "heads": lambda x: dl.swapaxes(dl.concatenate([dl.swapaxes(x, 0, -2)]), 0, -2),
    "every other": lambda x: dl.concatenate([x, x + 1], axis=-1)[..., ::2][..., : x.shape[-1]],
    "backwards": lambda x: dl.concatenate([x])[..., ::-1, :],
}


@pytest.mark.parametrize("view", VIEWS_OF_STACKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_stacks_are_part_of_the_graph(gpu, rng, view, dtype):
    pairs = [[rng.normal(size=shape).astype(dtype) for shape in shapes] for shapes in STACKS]

    def function(pairs):
        results = []
        for a, b in pairs:
            a.requires_grad = b.requires_grad = True
            y = VIEWS_OF_STACKS[view](a) @ VIEWS_OF_STACKS[view](b)
            results += [y, *dl.grad((y * y).sum(), [a, b])]
        return results

    step = dl.compile(function, poison=True)
    for _ in range(3):
        results = step([list(map(on_gpu, pair)) for pair in pairs])
    expected = function([list(map(dl.tensor, pair)) for pair in pairs])
    tolerance = 2e-4 if dtype == "float32" else 1e-11
    agree(results, expected, rtol=tolerance, atol=tolerance)
    assert is_one_graph(step)


def test_matrices_that_cublas_cannot_read_are_copied(gpu, rng):
    x = rng.normal(size=(6, 8)).astype("float32")

    def function(x, y, w):
        w.requires_grad = True
        total = (x[:, ::2] @ w).sum()  # its gradient is one number, broadcast
        return total, dl.grad(total, w), x[::-1] @ y, x[:, :0] @ y[:0]

    arrays = x, rng.normal(size=(8, 3)), rng.normal(size=(4, 5)).astype("float32")
    step = dl.compile(function, poison=True)
    for _ in range(3):
        results = step(*map(on_gpu, arrays))
    agree(results, function(*map(dl.tensor, arrays)), rtol=1e-4, atol=1e-5)
    assert is_one_graph(step)


def test_the_copies_for_a_product_do_not_wait_for_each_other(gpu, rng):
    """They are in one launch, whose blocks run in any order."""
    shapes = ((3, 1, 4, 5), (1, 2, 5, 6)), ((2, 3, 1, 4, 5), (1, 3, 2, 5, 6)), ((3, 2, 4, 5), (2, 5, 6))
    for shape_a, shape_b in shapes:
        a, b = rng.normal(size=shape_a).astype("float32"), rng.normal(size=shape_b)
        step = dl.compile(lambda a, b: a.astype("float64")[..., ::2, :] @ b)
        for _ in range(3):
            result = step(on_gpu(a), on_gpu(b)).numpy()
        numpy.testing.assert_allclose(result, a[..., ::2, :].astype("float64") @ b, rtol=1e-12)
        for call in executor_of(step).calls:
            kernels = [kernel for kernel in call.kernels if kernel.name == "copy"]
            written = {kernel.arrays[0].data.ptr for kernel in kernels}
            assert written.isdisjoint(kernel.arrays[1].data.ptr for kernel in kernels)


def test_a_stack_times_one_matrix_is_one_product(strict_gpu, rng):
    step = dl.compile(lambda x, w: x @ w)
    step(on_gpu(rng.normal(size=(3, 4, 5))), on_gpu(rng.normal(size=(5, 2))))
    (call,) = executor_of(step).calls
    multiply, factors, _ = call.run.args  # of a sum of products
    assert multiply == executor_of(step).cublas.gemm
    assert len(factors) == 1


def test_half_precision_stacks(gpu, rng):
    a, b = rng.normal(size=(2, 4, 8, 8)).astype("float16")
    step = dl.compile(lambda a, b: a @ b * 1)
    for _ in range(3):
        result = step(on_gpu(a), on_gpu(b))
    numpy.testing.assert_allclose(result.numpy(), a.astype("float32") @ b, rtol=1e-2, atol=1e-2)
    assert is_one_graph(step)


def test_products_of_whole_numbers_are_left_to_cupy(gpu, rng):
    a, b = rng.integers(-9, 9, (2, 3, 4, 4))
    step = dl.compile(lambda a, b: (a @ b + 1, a[0] @ b[0] + 1, a * 2))
    for _ in range(3):
        results = step(on_gpu(a), on_gpu(b))
    agree(results, [dl.tensor(x) for x in (a @ b + 1, a[0] @ b[0] + 1, a * 2)])
    calls = [call for call in executor_of(step).calls if not call.captured]
    assert [call.name for call in calls] == ["matmul", "matmul"]


# --- a classifier ---------------------------------------------------------------------------------


class Classifier(dl.Layer):
    """Reads sequences of words: embedding, attention, a pooled and padded summary, and classes."""

    def __init__(self, words=30, width=8, classes=5):
        rng = numpy.random.default_rng(0)
        self.table = dl.Parameter(rng.normal(size=(words, width)).astype("float32"))
        self.query = dl.Parameter(rng.normal(size=(width, width)).astype("float32") * 0.3)
        self.place = dl.Parameter(rng.normal(size=(12, width)).astype("float32"))
        self.head = dl.Dense(2 * width + 3, classes, seed=1)

    def forward(self, words):
        x = self.table[words] + self.place[: words.shape[1]]
        weights = dl.softmax(x @ self.query @ dl.swapaxes(x, 1, 2) * 0.3)
        y = weights @ x
        summary = dl.concatenate([y[:, 0], y[:, 1:].max(axis=1)], axis=1)
        return self.head(dl.pad(summary, ((0, 0), (1, 2)), constant_values=0.5))


def train_step(network, optimizer):
    def step(words, labels):
        scores = network(words)
        loss = dl.softmax_cross_entropy(scores, labels)
        hits = (scores.argmax(axis=1) == labels).astype("float32").mean()
        loss.backward()
        optimizer.step()
        return loss, hits

    return step


@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_a_step_of_a_classifier_is_one_graph(gpu, rng, order, monkeypatch):
    if order == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")
    words, labels = rng.integers(-30, 30, (4, 16, 9)), rng.integers(0, 5, (4, 16))
    networks = [Classifier(), Classifier().to("gpu"), Classifier().to("gpu")]
    steps = [train_step(network, dl.Adam(network.parameters(), 0.01)) for network in networks]
    steps[1:] = [dl.compile(step, poison=True) for step in steps[1:]]
    for w, y in zip(words, labels, strict=True):
        expected = steps[0](dl.tensor(w), dl.tensor(y))
        results = [step(on_gpu(w), on_gpu(y)) for step in steps[1:]]
        agree(results[0], expected, rtol=1e-4, atol=1e-5)
        assert [r.tolist() for r in results[0]] == [r.tolist() for r in results[1]]
    for ours, theirs in zip(networks[1].parameters(), networks[0].parameters(), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)
    assert is_one_graph(steps[1])
    assert all(call.captured for call in executor_of(steps[1]).calls)


def test_the_cuda_compiler_takes_the_step_of_a_classifier(strict_gpu, rng, monkeypatch):
    codes, module = [], strict_gpu.RawModule
    monkeypatch.setattr(strict_gpu, "RawModule", lambda code: codes.append(code) or module(code))
    network = Classifier().to("gpu")
    step = dl.compile(train_step(network, dl.Adam(network.parameters())))
    step(on_gpu(rng.integers(0, 30, (40, 9))), on_gpu(rng.integers(0, 5, 40)))
    compile_for_gpus(*codes)
