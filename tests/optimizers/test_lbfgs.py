import numpy
import pytest

import minidl as dl


def rosenbrock(x, y):
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def closure_of(function):
    """Return a closure that computes a loss and its gradients, and counts its calls."""

    def closure():
        closure.calls += 1
        loss = function()
        loss.backward()
        return loss

    closure.calls = 0
    return closure


def quadratic(rng, size=6):
    """Return A, b of the convex loss x A x / 2 - b x, and its minimum."""
    root = rng.normal(size=(size, size))
    A, b = root @ root.T + numpy.eye(size), rng.normal(size=size)
    return A, b, numpy.linalg.solve(A, b)


def precise(parameters, **options):
    return dl.LBFGS(parameters, gradient_tolerance=1e-10, loss_tolerance=0, **options)


# --- minima ---------------------------------------------------------------------------------------


def test_rosenbrocks_valley():
    x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
    closure = closure_of(lambda: rosenbrock(x, y))
    message = precise([x, y]).minimize(closure)
    assert x.item() == pytest.approx(1, abs=1e-7)
    assert y.item() == pytest.approx(1, abs=1e-7)
    assert "convergence" in message
    assert closure.calls < 100  # gradient descent takes thousands


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-3)])
def test_a_convex_quadratic(dtype, tolerance, rng):
    A, b, minimum = quadratic(rng)
    x = dl.Parameter(numpy.zeros(6, dtype))
    A, b = dl.tensor(A, dtype), dl.tensor(b, dtype)
    precise([x]).minimize(closure_of(lambda: 0.5 * (x * (A @ x)).sum() - (b * x).sum()))
    assert x.dtype == dtype
    numpy.testing.assert_allclose(x.numpy(), minimum, atol=tolerance)


def test_parameters_of_several_shapes_get_their_own_values():
    targets = [numpy.arange(6.0).reshape(2, 3), numpy.array(-7.0), numpy.array([8.0, 9.0])]
    parameters = [dl.Parameter(numpy.zeros_like(target)) for target in targets]

    def loss():
        return sum(((p - t) ** 2).sum() for p, t in zip(parameters, targets, strict=True))

    precise(parameters).minimize(closure_of(loss))
    for parameter, target in zip(parameters, targets, strict=True):
        numpy.testing.assert_allclose(parameter.numpy(), target, atol=1e-8)


def test_the_gradient_of_the_penalised_loss_is_zero_at_the_end(rng):
    x, t = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    dense = dl.Dense(4, 3, seed=0).astype("float64")
    dense.weight.l2_factor, dense.bias.l2_factor = 2.0, 0.5
    closure = closure_of(lambda: dl.softmax_cross_entropy(dense(x), t))
    precise(dense.parameters(), l2=0.1).minimize(closure)
    closure()
    for parameter in dense.parameters():
        pulled = parameter.grad.numpy() + 0.1 * parameter.l2_factor * parameter.numpy()
        numpy.testing.assert_allclose(pulled, 0, atol=1e-8)
        assert abs(parameter.grad.numpy()).max() > 1e-3  # the penalty is felt


def test_biases_are_not_pulled_unless_asked():
    weight, bias = dl.Parameter(numpy.zeros((1, 1))), dl.Parameter(numpy.zeros(1))
    closure = closure_of(lambda: ((weight - 3) ** 2).sum() + ((bias - 3) ** 2).sum())
    precise([weight, bias], l2=2.0).minimize(closure)
    assert weight.item() == pytest.approx(1.5)  # of (w - 3)^2 + w^2
    assert bias.item() == pytest.approx(3)


# --- which Parameters -----------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
def test_frozen_parameters_stay_and_keep_no_gradient(compiled):
    free, frozen = dl.Parameter([[1.0, 1.0]]), dl.Parameter([2.0, 2.0], learning_rate_factor=0)

    def step():
        loss = ((free @ frozen - 3) ** 2).sum()
        loss.backward()
        return loss

    dl.LBFGS([free, frozen]).minimize(dl.compile(step) if compiled else step)
    assert frozen.tolist() == [2, 2]
    assert (free @ frozen).item() == pytest.approx(3)
    assert free.grad is None
    assert frozen.grad is None


def test_a_parameter_listed_twice_is_one_variable():
    p = dl.Parameter([5.0])
    optimizer = precise([p, p])
    assert optimizer.parameters == [p]
    optimizer.minimize(closure_of(lambda: ((p - 2) ** 2).sum()))
    assert p.item() == pytest.approx(2)


def test_a_shared_parameter_gets_the_gradients_of_all_its_uses():
    """The least squares solution of a tied chain: x W W^T should give x back."""
    weight = dl.Parameter(numpy.array([[1.0, 0.3], [-0.2, 0.7]]))
    x = dl.tensor(numpy.eye(2))
    precise([weight]).minimize(closure_of(lambda: ((x @ weight @ weight.T - 2 * x) ** 2).sum()))
    numpy.testing.assert_allclose(weight.numpy() @ weight.numpy().T, 2 * numpy.eye(2), atol=1e-6)


def test_a_parameter_that_the_loss_does_not_use_stays():
    used, unused = dl.Parameter([4.0]), dl.Parameter([4.0])
    precise([used, unused]).minimize(closure_of(lambda: (used**2).sum()))
    assert abs(used.item()) < 1e-6
    assert unused.item() == 4


def test_gradients_from_before_do_not_count():
    p = dl.Parameter([5.0])
    (1000 * p).sum().backward()
    precise([p]).minimize(closure_of(lambda: ((p - 2) ** 2).sum()))
    assert p.item() == pytest.approx(2)


# --- how it ends ----------------------------------------------------------------------------------


def test_the_callback_sees_each_loss_without_l2_and_the_parameters_of_that_step():
    p = dl.Parameter(numpy.array([[-1.2, 1.0]]))

    def loss():
        return rosenbrock(p[0, 0], p[0, 1])

    losses = []

    def callback(value):
        with dl.no_grad():
            assert value == pytest.approx(loss().item(), rel=1e-9)
        losses.append(value)

    precise([p], l2=0.01).minimize(closure_of(loss), callback)
    assert len(losses) > 10
    assert losses[-1] < losses[0]


def test_the_callback_stops():
    x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
    losses = []

    def callback(loss):
        losses.append(loss)
        return len(losses) == 5

    message = precise([x, y]).minimize(closure_of(lambda: rosenbrock(x, y)), callback)
    assert len(losses) == 5
    assert "callback" in message
    assert rosenbrock(x, y).item() == pytest.approx(losses[-1])


def test_so_many_steps_at_most():
    x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
    losses = []
    dl.LBFGS([x, y], max_iterations=3).minimize(closure_of(lambda: rosenbrock(x, y)), losses.append)
    assert len(losses) == 3


def test_looser_tolerances_end_sooner():
    def calls(**options):
        x, y = dl.Parameter(numpy.array(-1.2)), dl.Parameter(numpy.array(1.0))
        closure = closure_of(lambda: rosenbrock(x, y))
        dl.LBFGS([x, y], **options).minimize(closure)
        return closure.calls

    strict = calls(gradient_tolerance=1e-10, loss_tolerance=0)
    assert calls(gradient_tolerance=1.0, loss_tolerance=0) < strict
    assert calls(gradient_tolerance=0, loss_tolerance=0.1) < strict


def test_a_loss_that_becomes_nan_does_not_end_worse_than_it_began():
    p = dl.Parameter(numpy.array([1.0, 2.0]))

    def loss():
        total = (p * p).sum()
        return total * numpy.nan if abs(p.numpy()[0]) < 0.9 else total

    dl.LBFGS([p]).minimize(closure_of(loss))
    assert (p.numpy() ** 2).sum() <= 5


def test_an_error_in_the_closure_is_the_users():
    p = dl.Parameter([1.0])

    def closure():
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        dl.LBFGS([p]).minimize(closure)


# --- bad arguments --------------------------------------------------------------------------------


def test_nothing_to_train_is_refused():
    for parameters in ([], [dl.Parameter([1.0], learning_rate_factor=0)]):
        with pytest.raises(ValueError, match="got no parameters to train"):
            dl.LBFGS(parameters)


def test_what_is_no_parameter_is_refused():
    with pytest.raises(TypeError, match="LBFGS trains Parameters, got Tensor"):
        dl.LBFGS([dl.zeros(2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iterations": 0}, "LBFGS: max_iterations must be at least 1, got 0"),
        ({"history_size": 0}, "LBFGS: history_size must be at least 1, got 0"),
        ({"l2": -1}, "LBFGS: l2 must not be negative, got -1"),
        ({"l2": numpy.nan}, "LBFGS: l2 must not be negative, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dl.LBFGS([dl.Parameter([1.0])], **options)


def test_history_is_a_deprecated_name_of_history_size():
    with pytest.warns(DeprecationWarning, match="history is now called history_size") as warned:
        optimizer = dl.LBFGS([dl.Parameter([1.0])], history=3)
    assert warned[0].filename == __file__
    assert optimizer.history_size == 3
    with pytest.warns(DeprecationWarning, match="history_size") as warned:
        assert optimizer.history == 3
    assert warned[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="history_size"):
        optimizer.history = 4
    assert optimizer.history_size == 4


def test_on_a_device(strict_gpu):
    p = dl.Parameter(numpy.array([5.0]))
    p.data = strict_gpu.asarray(p.data)
    precise([p]).minimize(closure_of(lambda: ((p - 2) * (p - 2)).sum()))
    assert p.device == "gpu:0"
    assert p.item() == pytest.approx(2)
