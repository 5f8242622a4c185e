import numpy
import pytest

import minidl as dl
from tests.optimizers import reference

OPTIMIZERS = {
    "SGD": dl.SGD,
    "Nesterov": lambda parameters, learning_rate=0.01, **options: dl.SGD(
        parameters, learning_rate, nesterov=True, **options
    ),
    "RMSProp": dl.RMSProp,
    "Adam": dl.Adam,
    "AdamW": dl.AdamW,
    "Nadam": dl.Nadam,
    "Adagrad": dl.Adagrad,
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
CLIPPING = ["clip_value", "clip_norm", "clip_global_norm"]


def step_with(optimizer, *gradients):
    """Make one step with these gradients, in the order of the optimizer's Parameters."""
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else dl.tensor(gradient, parameter.dtype)
    optimizer.step()


def moved_by(*gradients, l2=0.0, **options):
    """Return how plain gradient descent with rate 1 moves Parameters that start at 0."""
    parameters = [dl.Parameter(numpy.zeros(numpy.shape(gradient))) for gradient in gradients]
    step_with(dl.SGD(parameters, 1.0, momentum=0, l2=l2, **options), *gradients)
    return [-parameter.numpy() for parameter in parameters]


# --- steps ----------------------------------------------------------------------------------------


@every_optimizer
def test_a_step_without_backward_is_refused_and_changes_nothing(make):
    p = dl.Parameter([1.0])
    optimizer = make([p])
    with pytest.raises(RuntimeError, match=r"\.step\(\): no gradients; call loss\.backward\(\) first"):
        optimizer.step()
    assert p.tolist() == [1]
    assert optimizer.step_count.item() == 0


@every_optimizer
def test_a_step_applies_and_clears_the_gradients(make):
    p = dl.Parameter([1.0, 2.0])
    optimizer = make([p])
    (p * p).sum().backward()
    optimizer.step()
    assert (p.numpy() < [1, 2]).all()
    assert p.grad is None
    assert p.requires_grad
    assert p.primitive is None
    assert optimizer.step_count.item() == 1
    with pytest.raises(RuntimeError, match="no gradients"):
        optimizer.step()


@every_optimizer
def test_parameters_are_changed_in_place(make):
    p = dl.Parameter([1.0])
    array = p.data
    step_with(make([p]), [1.0])
    assert p.data is array


@every_optimizer
def test_a_parameter_without_a_gradient_keeps_value_and_state(make):
    used, unused = dl.Parameter([1.0]), dl.Parameter([[1.0]])
    optimizer = make([used, unused], l2=0.1)
    step_with(optimizer, [1.0], None)
    assert used.item() < 1
    assert unused.item() == 1
    assert all(x.item() == 0 for x in optimizer.states[1].values())


@every_optimizer
def test_a_parameter_listed_twice_is_trained_once(make):
    twice, once = dl.Parameter([1.0]), dl.Parameter([1.0])
    step_with(make(iter([twice, twice])), [0.5])
    step_with(make([once]), [0.5])
    assert twice.item() == once.item()


@every_optimizer
def test_a_shared_parameter_is_trained_once_with_the_sum_of_its_gradients(make):
    class Twice(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(3, 3, seed=0)
            self.again = [self.dense, dl.Network([self.dense])]

        def forward(self, x):
            return self.again[1](self.dense(x)) @ self.dense.weight.T

    network = Twice()
    optimizer = make(network.parameters())
    x = dl.ones((2, 3))
    network(x).sum().backward()
    alone = dl.Parameter(network.dense.weight)
    gradient = network.dense.weight.grad.numpy()
    optimizer.step()
    step_with(make([alone]), gradient)
    assert len(optimizer.parameters) == 2
    numpy.testing.assert_array_equal(network.dense.weight.numpy(), alone.numpy())


def test_zero_grad_drops_gradients_without_a_step():
    p = dl.Parameter([1.0])
    optimizer = dl.SGD([p])
    (p * p).sum().backward()
    optimizer.zero_grad()
    assert p.grad is None
    assert p.item() == 1


def test_backward_twice_before_a_step_adds_up():
    one, other = dl.Parameter([1.0]), dl.Parameter([1.0])
    for _ in range(2):
        (one * 3).sum().backward()
    dl.SGD([one]).step()
    step_with(dl.SGD([other]), [6.0])
    assert one.item() == other.item()


def test_an_optimizer_of_ones_own():
    class SignDescent(dl.Optimizer):
        def initial_state(self, parameter):
            return {"steps": parameter.zeros_like()}

        def update(self, parameter, gradient, rate, steps):
            steps.assign(steps + 1)
            parameter.assign(parameter - rate.astype(parameter.dtype) * dl.sign(gradient))

    p = dl.Parameter([1.0, 1.0, 1.0])
    optimizer = SignDescent([p], learning_rate=0.25, l2=1.0)
    step_with(optimizer, [5.0, -0.1, 0.0])
    assert p.tolist() == [0.75, 1.25, 1]
    assert optimizer.states[0]["steps"].tolist() == [1, 1, 1]


def test_the_base_class_has_no_update():
    with pytest.raises(NotImplementedError):
        step_with(dl.Optimizer([dl.Parameter([1.0])], 0.1), [1.0])


# --- regularisation and factors -------------------------------------------------------------------


def test_l2_applies_to_weights_and_not_to_biases_by_default():
    dense = dl.Dense(2, 2, weight_initializer="ones", bias_initializer="ones")
    kernel, gain = dl.Parameter(numpy.ones((3, 3, 1, 1))), dl.Parameter(1.0)
    optimizer = dl.SGD([dense.weight, dense.bias, kernel, gain], 1.0, momentum=0, l2=0.25)
    step_with(optimizer, *(numpy.zeros(p.shape) for p in optimizer.parameters))
    assert numpy.unique(dense.weight.numpy()) == numpy.unique(kernel.numpy()) == 0.75
    assert numpy.unique(dense.bias.numpy()) == gain.item() == 1


def test_the_l2_factor_of_a_parameter_decides():
    parameters = [dl.Parameter([[1.0]], l2_factor=factor) for factor in (0, 0.5, 2)]
    step_with(dl.SGD(parameters, 1.0, momentum=0, l2=0.25), *[[[0.0]]] * 3)
    assert [p.item() for p in parameters] == [1, 0.875, 0.5]


def test_factors_can_be_changed_later():
    p = dl.Parameter([[1.0]])
    optimizer = dl.SGD([p], 1.0, momentum=0, l2=0.5)
    p.l2_factor = 0
    p.learning_rate_factor = 0.25
    step_with(optimizer, [[1.0]])
    assert p.item() == 0.75


@every_optimizer
def test_the_learning_rate_factor_multiplies_the_learning_rate(make):
    factored, direct = dl.Parameter([1.0], learning_rate_factor=0.1), dl.Parameter([1.0])
    for p, rate in ((factored, 0.5), (direct, 0.05)):
        optimizer = make([p], rate)
        for gradient in (1.0, -3.0, 2.0):
            step_with(optimizer, [gradient])
    assert factored.item() == pytest.approx(direct.item(), rel=1e-6)


@every_optimizer
def test_a_factor_of_0_freezes(make):
    frozen, free = dl.Parameter([[1.0]], learning_rate_factor=0), dl.Parameter([[1.0]])
    optimizer = make([frozen, free], l2=0.1)
    step_with(optimizer, [[numpy.inf]], [[1.0]])
    assert frozen.item() == 1
    assert frozen.grad is None
    assert all(x.item() == 0 for x in optimizer.states[0].values())
    assert free.item() < 1
    frozen.learning_rate_factor = 1.0
    step_with(optimizer, [[1.0]], None)
    assert frozen.item() < 1


# --- clipping -------------------------------------------------------------------------------------


def test_clip_value_limits_each_element():
    (moved,) = moved_by([-3.0, -0.5, 0.0, 0.5, 3.0], clip_value=1.0)
    assert moved.tolist() == [-1, -0.5, 0, 0.5, 1]


def test_clip_norm_limits_each_gradient_by_itself():
    long, short = moved_by([[3.0, 4.0]], [0.3, 0.4], clip_norm=1.0)
    numpy.testing.assert_allclose(long, [[0.6, 0.8]], rtol=1e-12)
    numpy.testing.assert_array_equal(short, [0.3, 0.4])


def test_clip_global_norm_limits_all_together():
    moved = moved_by([[3.0, 0.0]], [0.0, 4.0], [[[12.0]]], clip_global_norm=6.5)  # the norm is 13
    for part, expected in zip(moved, ([[1.5, 0]], [0, 2], [[[6]]]), strict=True):
        numpy.testing.assert_allclose(part, expected, rtol=1e-12)
    unclipped = moved_by([[3.0, 0.0]], [0.0, 4.0], [[[12.0]]], clip_global_norm=13.0)
    assert unclipped[2].item() == pytest.approx(12)


def test_the_direction_is_kept():
    gradient = numpy.random.default_rng(0).normal(size=(5, 4))
    for clipping in ("clip_norm", "clip_global_norm"):
        (moved,) = moved_by(gradient, **{clipping: 0.1})
        numpy.testing.assert_allclose(moved, gradient * 0.1 / numpy.linalg.norm(gradient), rtol=1e-12)


def test_clipping_comes_before_regularisation():
    p = dl.Parameter([[4.0]])
    step_with(dl.SGD([p], 1.0, momentum=0, l2=0.5, clip_value=1.0), [[100.0]])
    assert p.item() == 4 - (1 + 0.5 * 4)


@pytest.mark.parametrize("clipping", CLIPPING)
@pytest.mark.parametrize("limit", [0, 1e-3, 1.0, 10.0, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_zeros_is_clipped_to_zeros(clipping, limit, dtype):
    p = dl.Parameter(numpy.ones((2, 2), dtype))
    step_with(dl.SGD([p], 1.0, **{clipping: limit}), numpy.zeros((2, 2)))
    numpy.testing.assert_array_equal(p.numpy(), numpy.ones((2, 2)))


@pytest.mark.parametrize("clipping", CLIPPING)
def test_a_limit_of_0_stops_everything(clipping):
    (moved,) = moved_by([3.0, -4.0], **{clipping: 0})
    assert not moved.any()


@every_optimizer
@pytest.mark.parametrize("clipping", CLIPPING)
def test_a_limit_that_is_never_reached_changes_nothing(make, clipping):
    clipped, free = dl.Parameter([1.0, 2.0]), dl.Parameter([1.0, 2.0])
    step_with(make([clipped], **{clipping: 100.0}), [0.5, -0.25])
    step_with(make([free]), [0.5, -0.25])
    numpy.testing.assert_array_equal(clipped.numpy(), free.numpy())


def test_the_global_norm_may_span_dtypes():
    single, double = dl.Parameter(numpy.zeros(1, "float32")), dl.Parameter(numpy.zeros(1))
    step_with(dl.SGD([single, double], 1.0, clip_global_norm=1.0), [3.0], [4.0])
    assert (single.dtype, double.dtype) == ("float32", "float64")
    assert single.item() == pytest.approx(-0.6)
    assert double.item() == pytest.approx(-0.8)


# --- learning rate --------------------------------------------------------------------------------


@every_optimizer
def test_the_learning_rate_can_be_changed(make):
    changed, other = dl.Parameter([1.0]), dl.Parameter([1.0])
    optimizer = make([changed], 0.5)
    optimizer.set_learning_rate(0.125)
    assert optimizer.learning_rate.item() == 0.125
    step_with(optimizer, [1.0])
    step_with(make([other], 0.125), [1.0])
    assert changed.item() == other.item()


def test_setting_the_learning_rate_ends_a_schedule():
    p = dl.Parameter([0.0])
    optimizer = dl.SGD([p], dl.schedules.Step(1.0, period=1), momentum=0)
    for expected in (-1, -1.1):
        step_with(optimizer, [1.0])
        assert p.item() == pytest.approx(expected)
    optimizer.set_learning_rate(2.0)
    for expected in (-3.1, -5.1):
        step_with(optimizer, [1.0])
        assert p.item() == pytest.approx(expected)


def test_a_schedule_may_return_a_number():
    p = dl.Parameter([0.0])
    optimizer = dl.SGD([p], lambda step: 0.5 if step < 1 else 0.25, momentum=0)
    step_with(optimizer, [1.0])
    step_with(optimizer, [1.0])
    assert p.item() == -0.75


def test_a_learning_rate_of_0_stands_still():
    p = dl.Parameter([1.0])
    step_with(dl.Adam([p], 0), [1.0])
    assert p.item() == 1


# --- state, dtypes and devices --------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_has_the_dtype_of_its_parameter(make, dtype):
    p = dl.Parameter(numpy.ones(2, dtype))
    optimizer = make([p])
    step_with(optimizer, [1.0, 2.0])
    assert p.dtype == dtype
    assert {x.dtype for x in optimizer.states[0].values()} == {numpy.dtype(dtype)}
    assert not any(x.requires_grad for x in optimizer.states[0].values())


@every_optimizer
def test_state_follows_a_network_to_another_dtype(make):
    layer = dl.Dense(2, 1, seed=0)
    optimizer = make(layer.parameters())
    for dtype in ("float32", "float64"):
        layer.astype(dtype)(numpy.ones((1, 2), dtype)).sum().backward()
        optimizer.step()
    assert layer.weight.dtype == numpy.float64
    assert {x.dtype for state in optimizer.states for x in state.values()} == {numpy.dtype("float64")}


@every_optimizer
def test_an_optimizer_of_parameters_on_a_device_is_there_too(make, gpu):
    p = dl.Parameter(dl.ones(2, device="gpu"))
    optimizer = make([p], dl.schedules.Warmup(0.1, steps=3), clip_value=1.0, clip_norm=1.0, l2=0.1)
    p.grad = dl.ones(2, device="gpu")
    optimizer.step()
    everything = [optimizer.step_count, optimizer.learning_rate, *optimizer.states[0].values(), p]
    assert {x.device for x in everything} == {"gpu:0"}
    assert (p.numpy() < 1).all()


@every_optimizer
def test_a_compiled_step_follows_a_network_that_was_moved_and_converted(make, gpu, rng):
    x = rng.normal(size=(5, 3))
    weights = []
    for compiled in (False, True):
        layer = dl.Dense(3, 2, seed=0)
        optimizer = make(layer.parameters(), dl.schedules.Warmup(0.1, steps=3))
        layer.to("gpu").astype("float64")

        def train_step(x, layer=layer, optimizer=optimizer):
            loss = (layer(x) * layer(x)).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = dl.compile(train_step) if compiled else train_step
        for _ in range(3):
            step(dl.tensor(x, device="gpu"))
        assert {x.device for x in optimizer.named_tensors().values()} == {"gpu:0"}
        assert optimizer.step_count.item() == 3
        weights.append(layer.weight.numpy())
    numpy.testing.assert_allclose(*weights, rtol=1e-12)


# --- training -------------------------------------------------------------------------------------

RATES = {
    "SGD": 0.02,
    "Nesterov": 0.02,
    "RMSProp": 0.05,
    "Adam": 0.05,
    "AdamW": 0.05,
    "Nadam": 0.1,
    "Adagrad": 1.0,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finds_the_least_squares_solution(name, rng):
    x = rng.normal(size=(40, 3)).astype("float32")
    target = x @ numpy.float32([[1], [-2], [0.5]]) + 3
    layer = dl.Dense(3, 1, seed=0)
    decay = {"weight_decay": 0.0} if name == "AdamW" else {}
    schedule = dl.schedules.Cosine(RATES[name], steps=400)
    optimizer = OPTIMIZERS[name](layer.parameters(), schedule, **decay)
    for _ in range(400):
        dl.mean_squared_error(layer(x), target).backward()
        optimizer.step()
    numpy.testing.assert_allclose(layer.weight.numpy(), [[1], [-2], [0.5]], atol=0.01)
    numpy.testing.assert_allclose(layer.bias.numpy(), [3], atol=0.01)


def short_training(make):
    """Return the weights after a few steps of everything that is random, from one seed."""
    generator = dl.Generator(7)
    network = dl.Network(
        [
            dl.Dense(6, 8, seed=generator),
            dl.ReLU(),
            dl.Dropout(0.3, seed=generator),
            dl.Dense(8, 6, seed=generator),
            dl.Sigmoid(),
        ]
    )
    optimizer = make(network.parameters(), dl.schedules.Warmup(0.01, steps=5), l2=1e-4, clip_global_norm=1.0)
    x = numpy.random.default_rng(0).uniform(size=(16, 6)).astype("float32")
    for _ in range(10):
        dl.binary_cross_entropy(network(x), x).backward()
        optimizer.step()
    return network.state_dict()


@every_optimizer
def test_one_seed_gives_the_same_weights_bit_for_bit(make):
    first, second = short_training(make), short_training(make)
    assert list(first) == list(second)
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


# --- bad arguments --------------------------------------------------------------------------------


@every_optimizer
def test_no_parameters_are_refused(make):
    with pytest.raises(ValueError, match="got no parameters to train"):
        make(dl.Network([dl.ReLU()]).parameters())


@every_optimizer
@pytest.mark.parametrize(
    "what", [dl.zeros(2), numpy.zeros(2), "weight", dl.Dense(1, 1)], ids=lambda x: type(x)
)
def test_what_is_no_parameter_is_refused(make, what):
    with pytest.raises(TypeError, match=f"trains Parameters, got {type(what).__name__}"):
        make([dl.Parameter([1.0]), what])


@every_optimizer
@pytest.mark.parametrize("rate", [-0.1, numpy.nan, numpy.inf])
def test_a_learning_rate_must_be_finite_and_not_negative(make, rate):
    with pytest.raises(ValueError, match=f"learning_rate must be finite and not negative, got {rate}"):
        make([dl.Parameter([1.0])], rate)
    optimizer = make([dl.Parameter([1.0])], 0.5)
    with pytest.raises(ValueError, match="learning_rate must be finite"):
        optimizer.set_learning_rate(rate)
    assert optimizer.learning_rate.item() == 0.5


@every_optimizer
@pytest.mark.parametrize("name", ["l2", *CLIPPING])
@pytest.mark.parametrize("value", [-0.1, numpy.nan])
def test_strengths_and_limits_must_not_be_negative(make, name, value):
    with pytest.raises(ValueError, match=f"{name} must not be negative, got {value}"):
        make([dl.Parameter([1.0])], **{name: value})


@every_optimizer
def test_an_unknown_option_is_refused(make):
    with pytest.raises(TypeError, match="learning_rte"):
        make([dl.Parameter([1.0])], learning_rte=0.1)


def test_the_reference_itself_clips_to_its_limits():
    """The other files compare with this loop, so it is checked against what a norm is."""
    _, gradients = reference.draw()
    for step in gradients:
        short = reference.clipped(step, clip_norm=1.0)
        assert max(numpy.sqrt((g**2).sum()) for g in short) <= 1 + 1e-12
        together = reference.clipped(step, clip_global_norm=2.0)
        assert numpy.sqrt(sum((g**2).sum() for g in together)) <= 2 + 1e-12


# --- float16, and limits without effect ------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.AdamW, dl.RMSProp])
def test_a_float16_parameter_without_gradient_stays(optimizer):
    p = dl.Parameter(dl.ones(2, "float16"))
    step = optimizer([p], 0.1)
    (p * dl.tensor(numpy.array([0.0, 1e-4], "float16"))).sum().backward()
    step.step()
    assert p.dtype == numpy.float16
    assert p.numpy()[0] == 1
    assert 0 < p.numpy()[1] < 1


def test_clip_norm_of_a_long_float16_gradient():
    p = dl.Parameter(dl.zeros(2, "float16"))
    optimizer = dl.SGD([p], 1.0, momentum=0.0, clip_norm=1.0)
    (p * dl.tensor(numpy.array([300.0, 400.0], "float16"))).sum().backward()
    optimizer.step()
    numpy.testing.assert_allclose(p.numpy(), [-0.6, -0.8], rtol=1e-3)


@pytest.mark.parametrize("limit", ["clip_norm", "clip_global_norm", "clip_value"])
def test_an_infinite_limit_changes_nothing(limit):
    p = dl.Parameter([1.0, 2.0])
    (p * 3).sum().backward()
    dl.SGD([p], 1.0, momentum=0.0, **{limit: numpy.inf}).step()
    numpy.testing.assert_array_equal(p.numpy(), [-2, -1])


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.AdamW, dl.RMSProp])
def test_a_negative_epsilon_is_refused(optimizer):
    with pytest.raises(ValueError, match="epsilon must not be negative, got -1"):
        optimizer([dl.Parameter([1.0])], epsilon=-1)


def test_lbfgs_refuses_a_closure_without_backward():
    p = dl.Parameter([1.0])
    with pytest.raises(RuntimeError, match=r"the closure did not call loss.backward\(\)"):
        dl.LBFGS([p]).minimize(lambda: (p * p).sum())
