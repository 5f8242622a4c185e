"""check_gradients: what it finds, what it says, what it leaves alone."""

import numpy
import pytest

import minidl as dl
from minidl.checks import check_gradients
from minidl.primitives.primitive import elementwise
from tests.checks.mistakes import doubled_in_backward, message_of, multiply_with, named, parameter
from tests.networks import TiedAutoencoder

# --- what is compared -----------------------------------------------------------------------------


def test_every_input_and_parameter_is_compared_by_name(rng):
    network = dl.Network([dl.Dense(4, 3, seed=0), dl.Tanh(), dl.Dense(3, 2, seed=1)])
    report = check_gradients(network, rng.normal(size=(5, 4)), order=2)
    names = ["input 0", "0.weight", "0.bias", "2.weight", "2.bias"]
    assert [c.name for c in report.comparisons] == names + [f"second order, {name}" for name in names]
    assert [c.count for c in report.comparisons[:5]] == [20, 12, 3, 6, 2]
    assert report.checked == 2 * 43
    assert report.kinks == 0
    assert all(c.largest_error < 1e-5 for c in report.comparisons)
    lines = str(report).splitlines()
    assert lines[0].split() == ["gradient", "of", "shape", "agree", "largest", "relative", "error", "skipped"]
    assert lines[2].startswith("0.weight")
    assert "12 elements" in lines[2]


def test_a_shared_parameter_is_compared_once(rng):
    report = check_gradients(TiedAutoencoder(5, 4, 3), rng.uniform(size=(2, 5)), order=2)
    assert len(report.comparisons) == 2 * 7


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_shared_layers_at_several_depths(depth, rng):
    shared = dl.Dense(3, 3, seed=0)
    network = shared
    for _ in range(depth):
        network = dl.Network([network, dl.Tanh(), dl.Network([shared, dl.Sigmoid()]), network])
    report = check_gradients(network, rng.normal(size=(2, 3)), order=2)
    assert len(report.comparisons) == 2 * 3


def test_integer_inputs_are_passed_as_they_are(rng):
    table = dl.Parameter(rng.normal(size=(5, 2)))
    report = check_gradients(lambda words: table[words], numpy.array([[0, 3], [3, 4]]))
    assert [c.name for c in report.comparisons] == ["table"]


def test_a_function_without_inputs():
    weight = parameter(3)
    assert [c.name for c in check_gradients(lambda: (weight * weight).sum(), order=2).comparisons] == [
        "weight",
        "second order, weight",
    ]


def test_within_no_grad():
    with dl.no_grad():
        assert check_gradients(dl.Dense(3, 2, seed=0), numpy.ones((2, 3))).checked == 14


def test_outputs_in_nests(rng):
    check_gradients(
        lambda x: {"a": x * 2, "b": [x.sum(), (x**2, x.argmax())]}, rng.normal(size=(2, 3)), order=2
    )


def test_a_wrong_second_derivative_is_found(rng):
    square = elementwise(
        named("square"),
        lambda xp, x, out=None: xp.multiply(x, x, out=out),
        gradients=(lambda g, out, x: g * 2 * x.detach(),),
    )
    x = rng.normal(size=3)
    check_gradients(square, x)
    assert message_of(square, x, order=2).startswith("second order, input 0 (3,): 3 of 3 gradients are wrong")


# --- what a failure says --------------------------------------------------------------------------


def test_a_failure_says_where_how_much_why_and_draws_it():
    scale = multiply_with(lambda g, out, a, b: g * b, lambda g, out, a, b: -g * a)

    class Scale(dl.Layer):
        def __init__(self):
            self.gain = parameter(2, 3)

        def forward(self, x):
            return scale(x, self.gain)

    message = message_of(Scale(), numpy.arange(6.0).reshape(2, 3))
    assert "gain (2, 3): 5 of 6 gradients are wrong" in message
    assert "at (1, 2), backward gives -" in message
    assert "relative error 2" in message
    assert "likely cause: the gradient rule of" in message
    assert "test_gradients.py, line" in message
    assert "return scale(x, self.gain)" in message
    assert "|.xx|\n" in message
    assert message.endswith("|xxx|")


def test_all_that_is_wrong_is_told():
    scale = multiply_with(lambda g, out, a, b: -g * b, lambda g, out, a, b: -g * a)
    message = message_of(scale, numpy.ones(3), numpy.ones(3))
    assert "input 0 (3,)" in message
    assert "input 1 (3,)" in message


def test_a_large_array_is_drawn_small(rng):
    double = doubled_in_backward()
    message = message_of(
        lambda x: dl.concatenate([double(x[:, :20]), x[:, 20:]], axis=1), rng.normal(size=(30, 40))
    )
    drawing = [line.strip() for line in message.splitlines() if line.strip().startswith("|")]
    assert len(drawing) == 8
    assert max(map(len, drawing)) <= 18


# --- large functions ------------------------------------------------------------------------------


def test_the_whole_autoencoder_in_seconds(rng):
    network = TiedAutoencoder(784, 784, 392, 196)
    assert network.parameter_count() == 1_002_148
    images = rng.uniform(size=(4, 784))
    report = check_gradients(lambda x: dl.binary_cross_entropy(network(x), images), images, sample=4)
    assert {c.count for c in report.comparisons} == {4}
    assert {c.unit for c in report.comparisons} == {"directions"}
    assert len(report.comparisons) == 10
    assert report.kinks < 4


# --- compiled functions, and functions that call backward themselves ------------------------------


def test_a_compiled_function_is_compared_by_its_replays(rng):
    layer = dl.Dense(3, 2, seed=0)
    report = check_gradients(dl.compile(lambda x: dl.tanh(layer(x))), rng.normal(size=(4, 3)))
    assert [c.name for c in report.comparisons] == ["input 0", "layer.weight", "layer.bias"]


def test_a_compiled_function_that_is_no_longer_what_is_written():
    calls = []

    @dl.compile
    def function(x):
        calls.append(x)
        return x * len(calls)

    assert "compiled, the function gives" in message_of(function, [1.0, 2.0])


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_that_calls_backward_itself(compiled, rng):
    layer, x = dl.Dense(3, 2, seed=0), rng.normal(size=(4, 3))

    def step(x):
        loss = (layer(x) ** 2).mean()
        loss.backward()
        return loss

    report = check_gradients(dl.compile(step) if compiled else step, x)
    names = [c.name for c in report.comparisons]
    assert names == ["input 0"] * (not compiled) + ["layer.weight", "layer.bias"]
    assert layer.weight.grad is None


def test_a_step_with_wrong_gradients(rng):
    layer = dl.Dense(3, 2, seed=0)

    def step(words):
        loss = (layer(words.astype(layer.weight.dtype)) ** 2).mean()
        (2 * loss).backward()
        return loss

    assert "layer.weight (3, 2): 6 of 6" in message_of(step, rng.integers(1, 5, (4, 3)))


def test_a_step_that_updates_is_refused(rng):
    layer = dl.Dense(3, 2, seed=0)
    optimizer = dl.SGD(layer.parameters())
    before = layer.state_dict()

    def step(x):
        loss = (layer(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    assert "assigns new values to layer.weight, layer.bias" in message_of(step, rng.normal(size=(4, 3)))
    for name, value in layer.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [({"order": 3}, "order must be 1 or 2, got 3"), ({"sample": 0}, "sample must be at least 1")],
)
def test_wrong_options(options, match):
    with pytest.raises(ValueError, match=match):
        check_gradients(dl.sin, [1.0], **options)


def test_a_function_without_floating_point_results():
    with pytest.raises(ValueError, match="returns no floating-point Tensor"):
        check_gradients(lambda x: x.argmax(), [1.0])
    with pytest.raises(TypeError, match="returned ndarray; it must return Tensors"):
        check_gradients(lambda x: x.numpy(), [1.0])


def test_a_function_of_integers_alone():
    with pytest.raises(ValueError, match="no floating-point input and no Parameter"):
        check_gradients(lambda x: x * 2.0, numpy.array([1, 2]))


def test_not_inside_a_compiled_function():
    with pytest.raises(RuntimeError, match="cannot be part of a compiled function"):
        dl.compile(lambda x: check_gradients(dl.sin, x))([1.0])


def test_results_of_a_fixed_dtype():
    assert "returns float32 where all that went in is float64" in message_of(
        lambda x: x.astype("float32"), [1.0]
    )


def test_a_step_returns_its_loss_alone():
    weight = parameter(2)

    def step(x):
        y = x * weight
        y.sum().backward()
        return y

    with pytest.raises(ValueError, match="must return the loss alone"):
        check_gradients(step, [1.0, 2.0])


def test_second_order_needs_a_function_that_does_not_differentiate():
    weight = parameter(2)

    def step(x):
        loss = (x * weight).sum()
        loss.backward()
        return loss

    check_gradients(step, [1.0, 2.0])
    with pytest.raises(ValueError, match="order=2 needs a function that does not call backward"):
        check_gradients(step, [1.0, 2.0], order=2)


# --- GPU ------------------------------------------------------------------------------------------


def on_the_gpu(rng):
    network = dl.Network([dl.Dense(3, 3, seed=0), dl.Dropout(0.4, seed=1), dl.Tanh()]).to("gpu")
    x = dl.tensor(rng.normal(size=(4, 3)), device="gpu")
    report = check_gradients(network, x, order=2)
    assert report.checked == 2 * (12 + 9 + 3)
    assert network[0].weight.device == "gpu:0"
    scale = multiply_with(lambda g, out, a, b: g * b, lambda g, out, a, b: -g * a)
    assert "wrong sign" in message_of(scale, x, dl.tensor(numpy.ones(3), device="gpu"))
    assert "directions" in str(check_gradients(dl.tanh, x, sample=3))


def test_on_a_stand_in_for_the_gpu(strict_gpu, rng):
    on_the_gpu(rng)


@pytest.mark.gpu
@pytest.mark.skipif(dl.devices.gpu_problem() is not None, reason=str(dl.devices.gpu_problem()))
def test_on_the_gpu(rng):
    on_the_gpu(rng)
