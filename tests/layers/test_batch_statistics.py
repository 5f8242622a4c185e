import numpy
import pytest

import minidl as dl


def network():
    norm = dl.BatchNorm(4)
    return dl.Network(
        [dl.Dense(3, 4, seed=0), norm, dl.ReLU(), dl.Dropout(0.5, seed=1), dl.Dense(4, 2, seed=2)]
    )


def test_the_statistics_are_those_of_all_the_data(rng):
    net = network()
    x = rng.normal(3, 2, size=(50, 3)).astype("float32")
    reached = net[0](x).numpy().astype("float64")
    others = {name: value for name, value in net.state_dict().items() if "running" not in name}
    generators = [g.state_dict() for _, g in net.named_generators()]
    dl.fit_batch_norm(net, dl.data.batches(x, batch_size=16))
    numpy.testing.assert_allclose(net[1].running_mean.numpy(), reached.mean(axis=0), rtol=1e-6)
    numpy.testing.assert_allclose(net[1].running_variance.numpy(), reached.var(axis=0, ddof=1), rtol=1e-5)
    assert all(net.state_dict()[name].tobytes() == value.tobytes() for name, value in others.items())
    assert [g.state_dict() for _, g in net.named_generators()] == generators
    assert all(layer.training for layer in net)


def test_a_second_layer_sees_what_the_first_makes_of_each_mini_batch(rng):
    first, second = dl.BatchNorm(3), dl.BatchNorm(3)
    net = dl.Network([first, dl.Tanh(), second]).astype("float64")
    net.eval()
    x = rng.normal(3, 2, size=(24, 3))
    dl.fit_batch_norm(net, list(x.reshape(3, 8, 3)))
    parts = [(b - b.mean(axis=0)) / numpy.sqrt(b.var(axis=0) + first.epsilon) for b in x.reshape(3, 8, 3)]
    reached = numpy.tanh(numpy.concatenate(parts))
    numpy.testing.assert_allclose(second.running_mean.numpy(), reached.mean(axis=0), atol=1e-12)
    numpy.testing.assert_allclose(second.running_variance.numpy(), reached.var(axis=0, ddof=1), rtol=1e-10)
    assert not any(layer.training for layer in net)


def test_images_and_a_large_mean(rng):
    layer = dl.BatchNorm(2)
    x = rng.normal(1000, 0.1, size=(20, 5, 4, 2)).astype("float32")
    dl.fit_batch_norm(layer, [x[:8], x[8:]])
    expected = x.astype("float64").reshape(-1, 2)
    numpy.testing.assert_allclose(layer.running_variance.numpy(), expected.var(axis=0, ddof=1), rtol=1e-4)


def test_evaluation_is_better_after_a_short_training(rng):
    """Running statistics need many steps; these are right at once."""
    x = rng.normal(20, 3, size=(64, 3)).astype("float32")
    layer = dl.BatchNorm(3, momentum=0.01)
    layer(dl.tensor(x))
    before = abs(layer.eval()(dl.tensor(x)).numpy().mean())
    dl.fit_batch_norm(layer, [x])
    after = layer(dl.tensor(x)).numpy()
    assert before > 5
    assert abs(after.mean(axis=0)).max() < 1e-4
    numpy.testing.assert_allclose(after.std(axis=0), 1, rtol=0.01)


@pytest.mark.parametrize("batches", [[], [numpy.zeros((4, 3), "float32"), numpy.zeros((1, 3), "float32")]])
def test_an_error_changes_nothing(batches):
    layer = dl.BatchNorm(3)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"no mini-batches|at least two values"):
        dl.fit_batch_norm(layer, batches)
    assert all(layer.state_dict()[name].tobytes() == value.tobytes() for name, value in before.items())


def test_a_layer_that_is_not_reached_keeps_its_statistics(rng):
    net = network()
    net.unused = dl.BatchNorm(3)
    net.unused.running_mean.assign([1.0, 2.0, 3.0])
    dl.fit_batch_norm(net, [rng.normal(size=(8, 3)).astype("float32")])
    assert net.unused.running_mean.tolist() == [1, 2, 3]


def test_a_network_without_them_is_left_alone():
    dl.fit_batch_norm(dl.Network([dl.Dense(3, 2, seed=0)]), [])
