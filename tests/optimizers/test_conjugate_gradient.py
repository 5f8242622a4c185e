from functools import partial

import numpy
import pytest
from scipy.optimize import minimize

import minidl as dl


def closure_of(function):
    """Return a closure that computes a loss and its gradients, and counts its calls."""

    def closure():
        closure.calls += 1
        loss = function()
        loss.backward()
        return loss

    closure.calls = 0
    return closure


def rosenbrock(p):
    return (100 * (p[1:] - p[:-1] * p[:-1]) ** 2 + (1 - p[:-1]) ** 2).sum()


def precise(parameters, **options):
    return dl.ConjugateGradient(parameters, gradient_tolerance=1e-9, loss_tolerance=0, **options)


def quadratic(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T + numpy.eye(size), rng.normal(size=size)


def parabola(x, A, b):
    return 0.5 * (x * (A @ x)).sum() - (b * x).sum()


@pytest.mark.parametrize("size", [2, 5, 20])
def test_rosenbrocks_valley(size):
    p = dl.Parameter(numpy.full(size, -0.7))
    closure = closure_of(lambda: rosenbrock(p))
    assert "convergence" in precise([p]).minimize(closure)
    numpy.testing.assert_allclose(p.numpy(), 1, atol=1e-6)


def test_not_many_more_evaluations_than_scipy_needs():
    from scipy.optimize import rosen, rosen_der

    start = numpy.random.default_rng(3).uniform(0, 0.5, size=30)
    p = dl.Parameter(start)
    closure = closure_of(lambda: rosenbrock(p))
    precise([p], max_iterations=3000).minimize(closure)
    theirs = minimize(rosen, start, jac=rosen_der, method="CG", options={"gtol": 1e-9, "maxiter": 3000})
    assert closure.calls < 2 * theirs.nfev
    assert rosen(p.numpy()) < 1e-12


def test_a_quadratic_of_n_variables_takes_n_line_searches(rng):
    """As the linear method does: the directions are conjugate."""
    A, b = quadratic(rng, 8)
    p, losses = dl.Parameter(numpy.zeros(8)), []
    loss = partial(parabola, p, dl.tensor(A), dl.tensor(b))
    optimizer = precise([p])
    optimizer.curvature = 1e-6
    optimizer.minimize(closure_of(loss), losses.append)
    numpy.testing.assert_allclose(p.numpy(), numpy.linalg.solve(A, b), atol=1e-7)
    assert len(losses) <= 12
    assert losses == sorted(losses, reverse=True)


def test_each_minimize_begins_along_the_gradient(rng):
    """With one line search for each mini-batch it is steepest descent."""
    p = dl.Parameter(numpy.zeros(4))
    optimizer = dl.ConjugateGradient([p], max_iterations=1)
    for _ in range(3):
        A, b = quadratic(rng, 4)
        before = p.numpy()
        gradient = A @ before - b
        optimizer.minimize(closure_of(partial(parabola, p, dl.tensor(A), dl.tensor(b))))
        moved = p.numpy() - before
        cosine = -(moved @ gradient) / numpy.linalg.norm(moved) / numpy.linalg.norm(gradient)
        assert cosine == pytest.approx(1)


@pytest.mark.parametrize("kind", [dl.ConjugateGradient, dl.LBFGS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_interrupted_search_goes_on_bit_for_bit(kind, dtype):
    def made():
        p = dl.Parameter(numpy.full(6, -0.7, dtype))
        return p, kind([p], max_iterations=15)

    whole, optimizer = made()
    losses = []
    optimizer.minimize(closure_of(lambda: rosenbrock(whole)), losses.append)
    p, first = made()
    seen = []
    first.minimize(closure_of(lambda: rosenbrock(p)), lambda loss: seen.append(loss) or len(seen) == 7)
    state, values = first.state_dict(), p.numpy()
    q, second = made()
    q.assign(values)
    second.load_state_dict(state)
    second.minimize(closure_of(lambda: rosenbrock(q)), seen.append, resume=True)
    assert seen == losses
    assert q.numpy().tobytes() == whole.numpy().tobytes()


@pytest.mark.parametrize("kind", [dl.ConjugateGradient, dl.LBFGS])
def test_a_compiled_closure_serves(kind, rng):
    x, t = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)

    def trained(compiled):
        dense = dl.Dense(4, 3, seed=0).astype("float64")
        closure = lambda: (lambda loss: (loss.backward(), loss)[1])(dl.softmax_cross_entropy(dense(x), t))
        kind(dense.parameters(), l2=0.01).minimize(dl.compile(closure) if compiled else closure)
        return dense.weight.numpy()

    numpy.testing.assert_allclose(trained(True), trained(False), atol=1e-4)


def test_a_start_that_is_not_finite_is_said():
    p = dl.Parameter(numpy.array([numpy.nan]))
    assert dl.ConjugateGradient([p]).minimize(closure_of(lambda: (p * p).sum())) == "the loss is nan"


def test_negative_tolerances_are_refused():
    with pytest.raises(ValueError, match="gradient_tolerance must not be negative, got -1"):
        dl.ConjugateGradient([dl.Parameter([1.0])], gradient_tolerance=-1)
