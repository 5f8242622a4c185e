import copy
import math
import threading

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as dl
from minidl.errors import RecordingError
from minidl.mode import mode
from minidl.program.cpu.kernel_cache import compiler
from tests.program.networks import autoencoder, make_step, needs_c
from tests.program.random_programs import functions

OPTIMIZERS = {
    "SGD": lambda p: dl.SGD(p, learning_rate=dl.schedules.Step(0.1, 5), momentum=0.9, nesterov=True),
    "RMSProp": lambda p: dl.RMSProp(p, clip_value=0.01),
    "Adam": lambda p: dl.Adam(p, learning_rate=dl.schedules.Cosine(0.01, 30), l2=1e-3, clip_global_norm=0.05),
    "AdamW": lambda p: dl.AdamW(p, learning_rate=0.01, clip_norm=0.02),
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_agrees_with_eager_step_by_step(name, threads, rng):
    check_training(name, rng, threads=threads)


@needs_c
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_agrees_with_eager_step_by_step_as_c(name, rng):
    check_training(name, rng, threads=2, kernels="c")


def check_training(name, rng, **options):
    batches = rng.random((12, 8, 12)).astype("float32")
    losses = {}
    for compiled in (False, True):
        network = autoencoder(rate=0.3)
        step = make_step(network, OPTIMIZERS[name](network.parameters()))
        step = dl.compile(step, poison=True, **options) if compiled else step
        losses[compiled] = [step(dl.tensor(x)).item() for x in batches]
        if compiled:
            assert len(step.programs) == 1
    numpy.testing.assert_allclose(losses[True], losses[False], rtol=2e-5)


@given(functions(), st.sampled_from([1, 2]))
@settings(max_examples=150)
def test_random_functions_agree_with_eager(drawn, threads):
    check_against_eager(*drawn, threads)


@given(functions(large=True), st.sampled_from([2, 3]))
@settings(max_examples=25)
def test_large_random_functions_agree_with_eager(drawn, threads):
    check_against_eager(*drawn, threads)


@needs_c
@pytest.mark.parametrize("large", [False, True])
@given(data=st.data())
@settings(max_examples=20)
def test_random_functions_agree_with_eager_as_c(large, data):
    check_against_eager(*data.draw(functions(large)), threads=2, kernels="c")


def check_against_eager(function, make_states, shape, threads, kernels="numpy"):
    eager_states, compiled_states = make_states(), make_states()
    compiled = dl.compile(
        lambda x: function(x, compiled_states), threads=threads, kernels=kernels, poison=True
    )
    rng = numpy.random.default_rng(1)
    for _ in range(3):
        x = rng.uniform(-1, 1, shape)
        expected = function(dl.tensor(x), eager_states)
        results = compiled(dl.tensor(x))
        for ours, theirs in zip(results, expected, strict=True):
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-8, atol=1e-10)
        for ours, theirs in zip(compiled_states, eager_states, strict=True):
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-8, atol=1e-10)
    assert len(compiled.programs) == 1


def test_another_shape_dtype_or_mode_records_another_program():
    network = dl.Network([dl.Dense(4, 3, seed=0), dl.Dropout(0.5, seed=1)])
    forward = dl.compile(lambda x: network(x))
    for rows in (8, 8, 3, 8):
        assert forward(dl.ones((rows, 4))).shape == (rows, 3)
    assert len(forward.programs) == 2
    noisy = forward(dl.ones((8, 4))).numpy()
    network.eval()
    quiet = forward(dl.ones((8, 4))).numpy()
    numpy.testing.assert_allclose(quiet, network(dl.ones((8, 4))).numpy(), rtol=1e-6)
    assert (noisy != quiet).any()
    network.train()
    assert (forward(dl.ones((8, 4))).numpy() == 0).any()


@pytest.mark.parametrize("kind", [float, numpy.float32, numpy.float64])
def test_numbers_among_the_arguments_are_told_apart_by_their_bits(kind):
    step = dl.compile(lambda x, c: dl.ones(2) * float(c) + x * 0)
    x = dl.ones(2) * -0.0
    for value in (0.0, -0.0, 1.0, math.nan, math.nan, -0.0):
        result = step(x, kind(value)).numpy()
        numpy.testing.assert_array_equal(result, [value, value])
        assert numpy.signbit(result[0]) == numpy.signbit(value)
    assert len(step.programs) == 4


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("number", [numpy.float64, numpy.float32, numpy.int64, float])
def test_attributes_may_be_numbers_of_numpy(gpu, kernels, number, rng):
    x = rng.normal(size=(4, 30)) * 3
    function = lambda x: dl.pad(dl.clip(x * 0.5, number(-1), number(2)), 1, constant_values=number(1)) * 2
    for device in ("cpu", "gpu"):
        step = dl.compile(function, kernels=kernels)
        for _ in range(3):
            y = step(dl.tensor(x, device=device))
        numpy.testing.assert_allclose(y.numpy(), function(dl.tensor(x)).numpy())


INF, NAN = math.inf, math.nan
EXTREMES = {
    "logsumexp": (lambda x: dl.logsumexp(x, axis=1), [[200, 0], [-200, -190], [0, 1e30], [-1e30, -1e30]]),
    "softmax": (dl.softmax, [[200, 0], [-200, -190], [0, 1e30], [-1e30, -1e30]]),
    "not finite": (lambda x: dl.logsumexp(x, axis=0), [[INF, 1, -INF, INF], [2, NAN, -INF, -INF]]),
    "zeros": (lambda x: 1 / abs(x * 2), [-0.0, 0.0, -1.0, INF]),
    "comparisons": (lambda x: dl.maximum(x, 0) + dl.minimum(x * 2, 1), [NAN, -0.0, -INF, INF]),
    "large integers": (lambda n: dl.floor(n + 0) + abs(n - 1), numpy.array([-5 * 2**60, 2**60 + 1])),
    "powers of integers": (lambda n: (n + 0) ** 39, numpy.array([3, -3, 7])),
    "bools": (lambda m: (m + m) * 1.0, numpy.array([True, False])),
    "bools of numbers": (lambda x: (x * 1).astype("bool"), [0.5, NAN, 0.0, -0.0]),
}


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
@pytest.mark.parametrize("way", ["numpy", pytest.param("c", marks=needs_c), "gpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers(gpu, name, dtype, way):
    function, numbers = EXTREMES[name]
    x = numbers if isinstance(numbers, numpy.ndarray) else numpy.array(numbers, dtype)
    expected = function(dl.tensor(x)).numpy()
    step = dl.compile(function) if way == "gpu" else dl.compile(function, kernels=way)
    for _ in range(3):
        result = step(dl.tensor(x, device="gpu" if way == "gpu" else "cpu")).numpy()
        assert result.dtype == expected.dtype
        exact = {"rtol": 0} if expected.dtype.kind != "f" else {"rtol": 1e-6}
        numpy.testing.assert_allclose(result, expected, **exact)


def test_results_are_never_overwritten_by_later_calls():
    double = dl.compile(lambda x: (x * 2, x.T))
    first = double(dl.tensor([[1.0, 2.0]]))
    second = double(dl.tensor([[3.0, 4.0]]))
    third = double(dl.tensor([[5.0, 6.0]]))
    assert [r[0].tolist() for r in (first, second, third)] == [[[2, 4]], [[6, 8]], [[10, 12]]]
    assert second[1].tolist() == [[3], [4]]


def test_arguments_are_not_kept_or_changed():
    x = numpy.array([1.0, 2.0], "float32")
    double = dl.compile(lambda x: x * 2)
    double(x)
    x[:] = 7
    assert double(x).tolist() == [14, 14]
    assert x.tolist() == [7, 7]


def test_nests_of_arguments_and_results():
    @dl.compile
    def function(pair, scale=1, **options):
        return {"sum": (pair[0] + pair[1]) * scale, "rest": [options["x"] - 1, None]}

    for _ in range(3):
        result = function((dl.ones(2), dl.ones(2)), scale=3, x=dl.ones(1))
        assert result["sum"].tolist() == [6, 6]
        assert result["rest"][0].tolist() == [0]
        assert result["rest"][1] is None
    assert function((dl.ones(2), dl.ones(2)), scale=4, x=dl.ones(1))["sum"].tolist() == [8, 8]
    assert len(function.programs) == 2


def test_random_numbers_are_drawn_anew_and_follow_the_seed():
    x = dl.ones((4, 5))
    draws = []
    for compiled in (False, True):
        layer = dl.Dropout(0.5, seed=7)
        forward = dl.compile(lambda x, layer=layer: layer(x)) if compiled else layer
        draws.append([forward(x).tolist() for _ in range(4)])
    assert draws[0] == draws[1]
    assert draws[1][1] != draws[1][2]


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
def test_random_numbers_are_drawn_in_the_order_of_the_code(kernels):
    """Also where the draws become parts of groups that come in another order."""

    def function(layer, x, y):
        doubled = x * 2
        first = layer(y)
        second = layer(x)
        return doubled * second, first

    results = []
    for compiled in (False, True):
        layer = dl.Dropout(0.5, seed=3)
        step = lambda x, y, layer=layer: function(layer, x, y)
        step = dl.compile(step, kernels=kernels) if compiled else step
        results.append([[y.tolist() for y in step(dl.ones(50), dl.ones(30))] for _ in range(3)])
    assert results[0] == results[1]


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_state_is_read_again_after_its_update(threads, kernels):
    """What reads a new state, which each thread writes its own part of, waits for all of them."""
    p = dl.Parameter(numpy.zeros((256, 256), "float32"))
    optimizer = dl.SGD([p], 1.0, momentum=0.0)

    def step(x):
        (p * x).sum().backward()
        optimizer.step()
        return (p @ p.detach().T).sum(), p.sum(axis=1), p[::-1] * 2

    step = dl.compile(step, threads=threads, kernels=kernels)
    for i in range(60):
        p.assign(dl.zeros((256, 256)))
        n = i % 7
        product, sums, turned = step(numpy.full((256, 256), n, "float32"))
        assert product.item() == n**2 * 256**3
        assert (sums.numpy() == -n * 256).all()
        assert (turned.numpy() == -2 * n).all()


def test_state_changed_outside_is_read_at_replay():
    p = dl.Parameter([1.0, 2.0])
    plus = dl.compile(lambda x: x + p)
    x = dl.zeros(2)
    assert plus(x).tolist() == [1, 2]
    p.assign([5.0, 6.0])
    assert plus(x).tolist() == [5, 6]
    p.data = numpy.array([7.0, 8.0], "float32")  # as loading, moving or converting do
    assert plus(x).tolist() == [7, 8]
    assert plus(x).tolist() == [7, 8]


def test_a_replaced_parameter_or_changed_setting_records_again():
    layer = dl.Dense(2, 2, seed=0)
    forward = dl.compile(lambda x: layer(x))
    x = dl.ones((1, 2))
    forward(x)
    forward(x)
    layer.weight = dl.Parameter(numpy.eye(2, dtype="float32"))
    assert forward(x).tolist() == [[1, 1]]
    layer.bias = None
    assert forward(x).tolist() == [[1, 1]]

    p = dl.Parameter([1.0])
    optimizer = dl.SGD([p], learning_rate=1.0, momentum=0)

    @dl.compile
    def step(x):
        (p * x).sum().backward()
        optimizer.step()

    step(dl.ones(1))
    step(dl.ones(1))
    assert p.item() == -1
    p.learning_rate_factor = 0.5
    step(dl.ones(1))
    assert p.item() == -1.5
    optimizer.set_learning_rate(4.0)
    step(dl.ones(1))
    assert p.item() == -3.5


def test_gradients_may_be_left_for_a_step_outside():
    p = dl.Parameter([1.0, 2.0])

    @dl.compile
    def loss_and_gradient(x):
        loss = (p * p * x).sum()
        loss.backward()
        return loss

    for scale in (1.0, 2.0, 3.0):
        loss_and_gradient(dl.tensor([scale, scale]))
        numpy.testing.assert_allclose(p.grad.numpy(), 2 * scale * p.numpy())
        p.grad = None
    for calls in (1, 2, 3):  # and add up like those of plain calls, if nobody takes them away
        loss_and_gradient(dl.ones(2))
        numpy.testing.assert_allclose(p.grad.numpy(), calls * 2 * p.numpy())


@pytest.mark.parametrize(
    ("action", "reader"),
    [
        (lambda x: x if x.sum() > 0 else -x, "the truth value"),
        (lambda x: x * x.sum().item(), r"item\(\)"),
        (lambda x: x * float(x.sum()), r"item\(\)"),
        (lambda x: x + x.numpy(), r"numpy\(\)"),
        (lambda x: x[x > 0], r"nonzero\(\)"),
        (lambda x: dl.tensor(numpy.asarray(x)), r"numpy\(\)"),
    ],
)
def test_reading_values_while_recording_names_the_line(action, reader):
    compiled = dl.compile(lambda x: action(x))
    with pytest.raises(RecordingError, match=rf"test_compile.py, line \d+.* reads the value .*{reader}"):
        compiled(dl.ones(2))
    assert mode.recorder is None


def test_other_things_a_replay_cannot_honour_are_refused():
    p = dl.Parameter([[1.0, 2.0]])

    def stale_view(x):
        view = p.T
        p.assign(p * 2)
        return view * x

    with pytest.raises(RecordingError, match="view of a Tensor that was assigned"):
        dl.compile(stale_view)(dl.ones(1))

    def assigns_to_inner(x):
        inner = x * 2
        inner.assign(x)

    with pytest.raises(RecordingError, match="assigns to a Tensor made inside"):
        dl.compile(assigns_to_inner)(dl.ones(1))
    with pytest.raises(RecordingError, match=r"returns Tensors.*not float"):
        dl.compile(lambda x: 1.0)(dl.ones(1))


@pytest.mark.parametrize(
    ("function", "options", "answer"),
    [
        (3, {}, "takes a function, got 3"),
        ("step", {}, "takes a function, got 'step'"),
        (
            abs,
            {"kernels": "cuda"},
            "kernels 'cuda': use one of 'auto', 'c', 'numpy'; a GPU always has",
        ),
        (None, {"kernels": "numba"}, "unknown kernels 'numba'"),
        (abs, {"kernels": None}, "unknown kernels None: use one of 'auto', 'c', 'numpy'"),
        (
            abs,
            {"precision": "double"},
            "precision 'double': use one of 'float32', 'tf32', 'bfloat16'",
        ),
        (abs, {"precision": numpy.float32}, "unknown precision <class 'numpy.float32'>"),
        (abs, {"threads": 0}, "threads is 1 or more, or None, got 0"),
        (None, {"threads": -1}, "threads is 1 or more, or None, got -1"),
        (abs, {"threads": "2"}, "threads is an integer or None, got '2'"),
        (abs, {"threads": 2.0}, r"threads is an integer or None, got 2\.0"),
        (abs, {"threads": True}, "threads is an integer or None, got True"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_recorded(function, options, answer):
    with pytest.raises((TypeError, ValueError), match=answer):
        dl.compile(function, **options)


def test_threads_may_be_an_integer_of_numpy():
    assert dl.compile(dl.exp, threads=numpy.int64(1))(dl.zeros(2)).numpy().tolist() == [1, 1]


def test_a_function_that_changes_a_list_runs_as_it_is_and_says_so():
    escaped = []

    @dl.compile
    def function(x):
        escaped.append(x * 2)
        return x + 1

    function(dl.ones(2))
    function(dl.ones(2))
    message = r"function \(test_compile.py, line \d+\) changes Python's state .*escaped was changed"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        function(dl.ones(2))
    assert caught[0].filename == __file__  # and the line is that of the call
    function(dl.ones(2))
    assert [x.tolist() for x in escaped] == [[2.0, 2.0]] * 4
    assert not function.programs


def test_assignments_take_effect_in_order():
    p, q = dl.Parameter([1.0, 2.0]), dl.Parameter([3.0, 4.0])

    def swap_and_more(x):
        old = p.copy()
        p.assign(q)
        q.assign(old)
        p.assign(p * x)
        return p + q, old

    expected_p, expected_q = copy.deepcopy((p, q))
    compiled = dl.compile(swap_and_more, poison=True)
    for _ in range(4):
        total, old = compiled(dl.tensor([2.0, 3.0]))
        before = expected_p.numpy()
        expected_p.assign(expected_q.numpy() * [2, 3])
        expected_q.assign(before)
        assert (p.tolist(), q.tolist()) == (expected_p.tolist(), expected_q.tolist())
        assert old.tolist() == before.tolist()
        assert total.tolist() == (expected_p + expected_q).tolist()


def test_returning_old_and_transposed_state():
    p = dl.Parameter(numpy.arange(4.0, dtype="float32").reshape(2, 2))

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


def test_verify_compares_with_plain_execution(rng):
    network = autoencoder()
    step = dl.compile(make_step(network, dl.Adam(network.parameters())), verify=True)
    for x in rng.random((3, 8, 12)).astype("float32"):
        step(x)
    executor = step.programs[0].executor
    broken = executor.phases[0][0].pop()
    with pytest.raises(AssertionError, match=r"verify: .* differs"):
        step(0.9 * rng.random((8, 12)).astype("float32") + 0.1)
    executor.phases[0][0].append(broken)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_verify_is_not_misled_by_state_that_is_handed_on(gpu, device):
    p, last = (dl.tensor(numpy.zeros(3), device=device) for _ in range(2))

    def function(x):
        last.assign(p)
        p.assign(p + x)
        return p[::-1], last

    step = dl.compile(function, verify=True)
    for i in range(3):
        new, old = step(dl.tensor(numpy.arange(3.0), device=device))
        assert new.tolist() == [2.0 * (i + 1), i + 1, 0]
        assert old.tolist() == last.tolist() == [0, i, 2.0 * i]


@pytest.mark.parametrize("way", ["numpy", pytest.param("c", marks=needs_c), "gpu"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_verify_allows_the_rounding_of_the_least_exact_numbers(gpu, way, dtype, rng):
    """Also where these are converted to more bits in the end."""
    step = dl.compile(
        lambda x: dl.sigmoid(dl.tanh(x * 0.5) * 3).mean(axis=1).astype("float64"),
        verify=True,
        kernels="c" if way == "c" else "numpy",
    )
    for _ in range(3):
        step(dl.tensor(rng.normal(size=(40, 30)).astype(dtype), device="gpu" if way == "gpu" else "cpu"))


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_verify_draws_what_the_replay_draws(gpu, device, rng):
    def function(first, second, x):
        return first(second(first(x)) @ x.T)

    layers, twins = ([dl.Dropout(0.5, seed=1), dl.Dropout(0.25, seed=2)] for _ in range(2))
    step = dl.compile(lambda x: function(*layers, x), verify=True)
    x = dl.tensor(rng.random((6, 5)), device=device)
    for _ in range(3):
        numpy.testing.assert_allclose(step(x).numpy(), function(*twins, x).numpy(), rtol=1e-6)


def test_a_compiled_function_inside_another_becomes_part_of_it():
    inner = dl.compile(lambda x: x * 2)
    outer = dl.compile(lambda x: inner(x) + 1)
    assert [outer(dl.ones(1)).item() for _ in range(3)] == [3, 3, 3]
    assert inner.programs == []


def test_errors_leave_nothing_behind():
    @dl.compile
    def broken(x):
        return x @ dl.ones((3, 3))

    with pytest.raises(ValueError, match="matmul"):
        broken(dl.ones((2, 2)))
    assert mode.recorder is None
    assert broken(dl.ones((2, 3))).shape == (2, 3)


def test_without_tape_and_with_are_different_programs():
    x = dl.tensor([1.0], requires_grad=True)

    @dl.compile
    def function(x):
        return x * 3 if mode.grad_enabled else x * 2

    assert function(x).item() == 3
    with dl.no_grad():
        assert function(x).item() == 2


def test_compiled_steps_run_on_device_arrays(strict_gpu, rng):
    batches = rng.random((4, 8, 12)).astype("float32")
    results = []
    for device in ("cpu", "gpu"):
        network = autoencoder().to(device)
        step = dl.compile(make_step(network, dl.Adam(network.parameters())), verify=True)
        results.append([step(dl.tensor(x, device=device)).item() for x in batches])
    numpy.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_many_replays_in_several_threads_do_not_disturb_each_other():

    errors = []

    def work(seed):
        try:
            network = autoencoder(seed)
            reference = autoencoder(seed)
            step = dl.compile(make_step(network, dl.Adam(network.parameters())))
            plain = make_step(reference, dl.Adam(reference.parameters()))
            x = numpy.random.default_rng(seed).random((16, 12)).astype("float32")
            for _ in range(20):
                numpy.testing.assert_allclose(step(x).item(), plain(dl.tensor(x)).item(), rtol=1e-5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_methods_can_be_compiled():
    class Scale:
        def __init__(self, factor):
            self.factor = dl.Parameter(factor)

        @dl.compile
        def __call__(self, x):
            """Multiply."""
            return x * self.factor

    double, triple = Scale(dl.tensor([2.0])), Scale(dl.tensor([3.0]))
    for _ in range(3):
        assert double(dl.tensor([5.0])).item() == 10
        assert triple(dl.tensor([5.0])).item() == 15
    assert len(Scale.__call__.programs) == 2
    assert Scale.__call__.__doc__ == "Multiply."


def test_threads_that_share_a_compiled_function_take_turns():
    @dl.compile
    def repeat(x):
        return x * 1.0, x * 2.0, x.sum()

    repeat(dl.zeros((300, 300)))
    wrong = []

    def work(number):
        for _ in range(50):
            first, second, total = repeat(dl.full((300, 300), number))
            if not (
                (first.data == number).all()
                and (second.data == 2 * number).all()
                and total.item() == number * 90_000
            ):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(float(number),)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("kernels", ["numpy", *(["c"] if compiler() else [])])
def test_the_first_call_gives_what_a_replay_gives_to_the_last_bit(kernels, rng):
    """Otherwise a training that is resumed, and records again, would drift from one that went on."""
    batch = rng.random((16, 12), dtype="float32")

    def steps(*, recorded_already):
        network = autoencoder(3, rate=0.2)
        optimizer = dl.Adam(network.parameters(), learning_rate=0.01)

        @dl.compile(kernels=kernels)
        def step(x):
            loss = dl.binary_cross_entropy(network(x), x)
            loss.backward()
            optimizer.step()
            return loss

        if recorded_already:
            before = network.state_dict(), optimizer.state_dict()
            generators = [(g, g.state_dict()) for _, g in network.named_generators()]
            step(batch)
            network.load_state_dict(before[0])
            optimizer.load_state_dict(before[1])
            for generator, state in generators:
                generator.load_state_dict(state)
        losses = [step(batch).item() for _ in range(3)]
        return losses, network.state_dict(), optimizer.state_dict()

    first, again = steps(recorded_already=False), steps(recorded_already=True)
    assert first[0] == again[0]
    for one, other in zip(first[1:], again[1:], strict=True):
        for name, array in one.items():
            numpy.testing.assert_array_equal(other[name], array)


def test_an_argument_that_is_passed_twice_is_one_input(rng):
    x, y = rng.random((2, 6, 4))

    @dl.compile
    def difference(a, b):
        return ((a - b) * (a - b)).sum()

    for _ in range(2):
        assert difference(x, x).item() == 0
        assert difference(x, y).item() == pytest.approx(((x - y) ** 2).sum())
    assert [len(program.inputs) for program in difference.programs] == [1, 2]


def test_images_and_features_are_both_matrices(rng):
    """A network that reshapes its output to images costs no more than one that works on features."""
    images = rng.random((16, 4, 3, 1), dtype="float32")
    layers = [dl.Flatten(), dl.Dense(12, 12, seed=0), dl.Sigmoid()]
    network = dl.Network([*layers, dl.Reshape(4, 3, 1)])
    features = dl.Network(layers)
    steps = []
    for model, batch in ((network, images), (features, images.reshape(16, 12))):
        optimizer = dl.SGD(model.parameters(), learning_rate=0.1)

        @dl.compile(verify=True)
        def step(x, model=model, optimizer=optimizer):
            loss = dl.binary_cross_entropy(model(x), x)
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(batch).item() for _ in range(2)]
        steps.append([s.name for s in step.programs[0].steps if s.name != "reshape"])
    assert losses[0] != losses[1]
    assert steps[0] == steps[1]


def test_masked_arrays_among_what_a_function_reads():
    held = {"nothing": numpy.ma.masked, "some": numpy.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])}
    step = dl.compile(lambda x: x * float(held["some"].sum()) if held["nothing"] is numpy.ma.masked else x)
    x = dl.ones(2)
    assert step(x).tolist() == step(x).tolist() == [4, 4]
    held["some"].mask = [False, False, False]
    assert step(x).tolist() == [6, 6]
    held["some"][0] = 10.0
    assert step(x).tolist() == [15, 15]


def test_a_mask_that_a_function_changes_changes_once_at_each_call():
    held = numpy.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])

    def flips(x):
        held.mask = ~held.mask
        return x + 1

    step = dl.compile(flips)

    def masks():
        for _ in range(4):
            step(dl.ones(2))
            yield held.mask.tolist()

    with pytest.warns(RuntimeWarning, match="held"):
        found = list(masks())
    assert found == 2 * [[True, False, True], [False, True, False]]
