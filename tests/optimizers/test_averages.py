"""Moving averages of weights, which every Optimizer can keep."""

import numpy
import pytest

import minidl as dl

DECAY = 0.6


def training(kernels=None, **options):
    """Return a network, its optimizer, and a step of them."""
    network = dl.Network([dl.Dense(3, 4, seed=0), dl.Tanh(), dl.Dense(4, 3, seed=1)]).astype("float64")
    optimizer = dl.SGD(network.parameters(), 0.1, **({"average_decay": DECAY} | options))

    def step(x):
        loss = dl.mean_squared_error(network(x), x)
        loss.backward()
        optimizer.step()
        return loss

    return network, optimizer, dl.compile(kernels=kernels)(step) if kernels else step


@pytest.mark.parametrize("kernels", [None, "numpy", "c"])
def test_the_average_follows_its_formula(kernels, rng):
    network, optimizer, step = training(kernels)
    expected = network.state_dict()
    for t, x in enumerate(rng.normal(size=(20, 5, 3)), 1):
        step(dl.tensor(x))
        decay = min(DECAY, (1 + t) / (10 + t))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    own = network.state_dict()
    with optimizer.averaged():
        for name, value in network.state_dict().items():
            numpy.testing.assert_allclose(value, expected[name], rtol=1e-12)
            assert not numpy.array_equal(value, own[name])
    assert all(value.tobytes() == own[name].tobytes() for name, value in network.state_dict().items())


@pytest.mark.parametrize("kernels", ["numpy", "c"])
def test_a_compiled_evaluation_sees_the_averages(kernels, rng):
    network, optimizer, step = training(kernels)
    x = dl.tensor(rng.normal(size=(5, 3)))
    evaluate = dl.compile(kernels=kernels)(lambda x: network(x))
    for _ in range(4):
        step(x)
        evaluate(x)
    with optimizer.averaged():
        inside = network(x).numpy()
        numpy.testing.assert_allclose(evaluate(x).numpy(), inside, rtol=1e-12)
    assert not numpy.allclose(evaluate(x).numpy(), inside)
    step(x)  # training goes on


def test_without_averages_training_is_the_same_to_the_bit(rng):
    one, other = training(), training(average_decay=None)
    for x in rng.normal(size=(5, 5, 3)):
        assert one[2](dl.tensor(x)).item() == other[2](dl.tensor(x)).item()


def test_a_trainer_resumes_them(tmp_path, rng):
    x = rng.normal(size=(32, 3))

    def trainer():
        network, optimizer, _ = training()
        return dl.Trainer(network, dl.mean_squared_error, optimizer, device="cpu", seed=0)

    whole, first, second = trainer(), trainer(), trainer()
    options = {"batch_size": 8, "verbose": False}
    whole.fit(x, x, epochs=4, **options)
    first.fit(x, x, epochs=2, checkpoint_folder=tmp_path, **options)
    second.fit(x, x, epochs=4, checkpoint_folder=tmp_path, resume=True, **options)
    with whole.optimizer.averaged(), second.optimizer.averaged():
        assert whole.evaluate(x, x) == second.evaluate(x, x)


def test_frozen_parameters_stay():
    free, frozen = dl.Parameter([1.0]), dl.Parameter([2.0], learning_rate_factor=0)
    optimizer = dl.SGD([free, frozen], 0.1, average_decay=0.9)
    (free * frozen).sum().backward()
    optimizer.step()
    with optimizer.averaged():
        assert frozen.item() == 2
        assert free.item() == pytest.approx(1 - (1 - 2 / 11) * 0.2)


def test_float16_averages_are_kept_in_float32():
    p = dl.Parameter(numpy.array([1.0], "float16"))
    optimizer = dl.SGD([p], 2.0**-11, momentum=0, average_decay=0.999)
    assert optimizer.averages[0].dtype == "float32"
    (p * 1).sum().backward()
    optimizer.step()
    with optimizer.averaged():
        assert p.dtype == "float16"


def test_an_error_inside_gives_the_weights_back(rng):
    network, optimizer, step = training()
    step(dl.tensor(rng.normal(size=(5, 3))))
    before = network.state_dict()
    with pytest.raises(ZeroDivisionError), optimizer.averaged():
        raise ZeroDivisionError
    assert all(value.tobytes() == before[name].tobytes() for name, value in network.state_dict().items())


def test_no_training_and_no_second_time_while_averaged(rng):
    _, optimizer, step = training()
    with optimizer.averaged():
        with pytest.raises(RuntimeError, match="no training while the weights are averaged"):
            step(dl.tensor(rng.normal(size=(5, 3))))
        with pytest.raises(RuntimeError, match="they are already"), optimizer.averaged():
            pass


@pytest.mark.parametrize("decay", [-0.1, 1, float("nan")])
def test_the_decay_is_a_share(decay):
    with pytest.raises(ValueError, match=f"average_decay must be at least 0 and below 1, got {decay}"):
        dl.Adam([dl.Parameter([1.0])], average_decay=decay)


def test_without_averages_there_are_none():
    with (
        pytest.raises(RuntimeError, match="make it with average_decay"),
        training(average_decay=None)[1].averaged(),
    ):
        pass
