"""RBM: its free energy and its gradients against enumeration of all states, and what it learns."""

from itertools import product

import numpy
import pytest

import minidl as dl
from minidl.checks import assert_layer

HOW = [None, {"kernels": "numpy"}, {"kernels": "c"}]


def states(count):
    return numpy.array(list(product([0.0, 1.0], repeat=count)))


def tiny(v_units=4, h_units=3, scale=0.8, **kinds):
    """Return an RBM with weights and biases far from 0, in float64, and these as arrays."""
    rbm = dl.RBM(v_units, h_units, seed=1, **kinds).astype("float64")
    random = numpy.random.default_rng(2)
    for parameter in rbm.parameters():
        parameter.assign(scale * random.normal(size=parameter.shape))
    return rbm, *(p.numpy() for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def test_the_free_energy_is_that_of_all_hidden_states():
    rbm, weight, b, c = tiny()
    h = states(3)
    for v, energy in zip(states(4), rbm.free_energy(dl.tensor(states(4))).numpy(), strict=True):
        energies = -(v @ b) - h @ c - h @ (v @ weight)
        assert energy == pytest.approx(-numpy.log(numpy.exp(-energies).sum()), rel=1e-12)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_the_free_energy_with_a_gaussian_hidden_unit_is_an_integral(visible):
    rbm, weight, b, c = tiny(3, 1, visible=visible, hidden="gaussian")
    h = numpy.linspace(-15, 15, 20_001)
    v = states(3)
    energies = 0.5 * (h - c) ** 2 - (v @ weight) * h
    at_v = -(v @ b) if visible == "bernoulli" else 0.5 * ((v - b) ** 2).sum(axis=1)
    integral = at_v - numpy.log(numpy.exp(-energies).sum(axis=1) * (h[1] - h[0]) / numpy.sqrt(2 * numpy.pi))
    numpy.testing.assert_allclose(rbm.free_energy(dl.tensor(v)).numpy(), integral, rtol=1e-9, atol=1e-12)


def test_means_are_conditional_probabilities():
    rbm, weight, b, c = tiny()
    for v in states(4):
        p = numpy.exp(states(3) @ (c + v @ weight))
        expected = (p[:, None] * states(3)).sum(axis=0) / p.sum()
        numpy.testing.assert_allclose(rbm(dl.tensor(v[None])).numpy()[0], expected)
    h = states(3)
    numpy.testing.assert_allclose(rbm.reconstruct(dl.tensor(h)).numpy(), sigmoid(h @ weight.T + b))


def test_drawn_units_have_their_means_and_noise():
    for kind in ("bernoulli", "gaussian"):
        rbm, *_ = tiny(visible=kind, hidden=kind)
        v = dl.tensor(numpy.repeat([[1.0, 0, 1, 0]], 20_000, axis=0))
        drawn = rbm.sample_hidden(v).numpy()
        mean = rbm(v).numpy()[0]
        numpy.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03)
        variance = mean * (1 - mean) if kind == "bernoulli" else numpy.ones(3)
        numpy.testing.assert_allclose(drawn.var(axis=0), variance, atol=0.05)
        assert rbm.sample_visible(rbm.sample_hidden(v)).shape == v.shape


def gradients(rbm, v, how, **options):
    """Return the gradients after contrastive divergence, plain or compiled."""

    def step(v):
        rbm.contrastive_divergence(v, **options)
        return [p.grad for p in rbm.parameters()]

    step = step if how is None else dl.compile(step, **how)
    result = [g.numpy() for g in step(dl.tensor(v))]
    for parameter in rbm.parameters():
        parameter.grad = None
    return result


@pytest.mark.parametrize("how", HOW)
def test_cd_1_has_the_mean_of_all_hidden_states(how):
    """The expectation over h given v, in full, beside the mean of 40,000 draws."""
    rbm, weight, b, c = tiny()
    v = numpy.array([1.0, 0, 0.5, 1])
    first, h = sigmoid(v @ weight + c), states(3)
    p = numpy.prod(numpy.where(h == 1, first, 1 - first), axis=1)
    model = sigmoid(h @ weight.T + b)
    after = sigmoid(model @ weight + c)
    expected = [
        numpy.einsum("s,sv,sh->vh", p, model, after) - numpy.outer(v, first),
        p @ model - v,
        p @ after - first,
    ]
    for got, exact in zip(gradients(rbm, numpy.tile(v, (40_000, 1)), how), expected, strict=True):
        numpy.testing.assert_allclose(got, exact, atol=0.008)


@pytest.mark.parametrize("how", HOW)
def test_cd_1_with_gaussian_hidden_units_has_its_expectation(how):
    """With linear visible units, too, expectations are formulas: model = (first + noise) W^T + b."""
    rbm, weight, b, c = tiny(scale=0.3, visible="gaussian", hidden="gaussian")
    v = numpy.array([1.0, -0.5, 0.5, 2])
    first = v @ weight + c
    mean = first @ weight.T + b
    second = numpy.outer(mean, mean) + weight @ weight.T  # E[model model^T]
    expected = [second @ weight + numpy.outer(mean, c) - numpy.outer(v, first), mean - v]
    expected.append(mean @ weight + c - first)
    for got, exact in zip(gradients(rbm, numpy.tile(v, (40_000, 1)), how), expected, strict=True):
        numpy.testing.assert_allclose(got, exact, atol=0.02)


@pytest.mark.parametrize("how", HOW)
def test_many_steps_follow_the_gradient_of_the_log_likelihood(how):
    """CD-25 with drawn visible units, beside the exact gradient from all 16 visible states."""
    rbm, *_ = tiny(scale=0.5)
    v = dl.tensor(states(4)[[3, 5, 5, 9]])
    everything = dl.tensor(states(4))
    loss = rbm.free_energy(v).mean() + dl.logsumexp(-rbm.free_energy(everything))
    exact = dl.grad(loss, rbm.parameters())
    data = numpy.tile(v.numpy(), (20_000, 1))
    for got, true in zip(gradients(rbm, data, how, steps=25, sample_visible=True), exact, strict=True):
        numpy.testing.assert_allclose(got, true.numpy(), atol=0.01)


@pytest.mark.parametrize("how", HOW)
def test_training_raises_the_likelihood_of_the_data(how):
    v = numpy.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], "float32")
    everything = dl.tensor(states(6).astype("float32"))
    rbm = dl.RBM(6, 2, seed=0)
    optimizer = dl.SGD(rbm.parameters(), learning_rate=0.1, momentum=0.5, l2=2e-4)

    def step(v):
        error = rbm.contrastive_divergence(v)
        optimizer.step()
        return error

    step = step if how is None else dl.compile(step, **how)
    errors = [step(dl.tensor(v)).item() for _ in range(600)]
    energies = rbm.free_energy(everything)
    likelihood = -rbm.free_energy(dl.tensor(v)).mean() - dl.logsumexp(-energies)
    assert likelihood.item() > numpy.log(1 / 64) + 2  # at first all 64 states are alike
    assert errors[-1] < 0.2 * errors[0]
    assert all(parameter.grad is None for parameter in rbm.parameters())


def test_compiled_steps_draw_what_plain_ones_do():
    v = numpy.random.default_rng(0).uniform(size=(50, 6)).astype("float32")
    results = []
    for how in HOW:
        rbm = dl.RBM(6, 4, hidden="gaussian", seed=3)
        results.append([gradients(rbm, v, how, steps=2)[0] for _ in range(2)])
    assert (results[0][0] != results[0][1]).any()
    for other in results[1:]:
        numpy.testing.assert_allclose(other, results[0], rtol=1e-4, atol=1e-6)


def test_it_is_a_layer():
    reason = "the visible bias is for reconstruct(), not for forward()"
    assert_layer(dl.RBM(5, 3, seed=0), (5,), skip={"gradients exist": reason})
    assert repr(dl.RBM(5, 3)) == "RBM(5, 3)"
    assert repr(dl.RBM(5, 3, hidden="gaussian")) == "RBM(5, 3, hidden='gaussian')"
    assert dl.RBM(5, 3).visible_bias.l2_factor == 0
    assert dl.RBM(5, 3).weight.l2_factor == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least one unit"):
        dl.RBM(0, 3)
    with pytest.raises(ValueError, match="hidden must be one of bernoulli, gaussian; got 'softmax'"):
        dl.RBM(4, 3, hidden="softmax")
    rbm = dl.RBM(4, 3)
    with pytest.raises(ValueError, match=r"RBM\(4, 3\) takes inputs \(batch, 4\); got \(2, 5\)"):
        rbm(dl.ones((2, 5)))
    with pytest.raises(ValueError, match="at least 1 step"):
        rbm.contrastive_divergence(dl.ones((2, 4)), steps=0)
    with pytest.raises(TypeError, match="float32"):
        rbm.free_energy(dl.ones((2, 4), "float64"))
