import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights

SETTINGS = [False, {"kernels": "numpy"}, {"kernels": "c"}]


def sgd(network):
    return dl.SGD(network.parameters(), dl.schedules.Step(0.1, 3), momentum=0.9)


@pytest.fixture(params=["range", "overfit"])
def trial(request, data):
    if request.param == "range":
        return lambda trainer: trainer.find_learning_rate(*data, batch_size=32, steps=20)
    return lambda trainer: trainer.check_overfit(*data, steps=5)


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
@pytest.mark.parametrize("optimizer", ["adam", sgd])
def test_a_trial_leaves_everything_as_it_was(make_trainer, data, trial, compile, optimizer):
    """Weights, state of the optimizer, its schedule, generators and modes."""
    tried, other = (make_trainer(rate=0.3, compile=compile, optimizer=optimizer) for _ in range(2))
    tried.network.eval()
    trial(tried)
    assert not any(layer.training for layer in tried.network)
    assert_same_weights(tried, other)
    histories = [trainer.fit(*data, epochs=2, batch_size=32, **QUIET) for trainer in (tried, other)]
    assert histories[0].steps == histories[1].steps
    assert_same_weights(tried, other)
    trial(tried)


def test_a_trial_that_fails_leaves_everything_as_it_was(make_trainer, data):
    tried, other = make_trainer(), make_trainer()
    with pytest.raises(ValueError, match="mean_squared_error"):
        tried.find_learning_rate(lambda: iter([data, (data[0], data[1][:, :1])]))
    assert_same_weights(tried, other)


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
def test_the_rates_grow_until_the_loss_explodes(make_trainer, data, compile):
    trainer = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), 0.1), compile=compile)
    result = trainer.find_learning_rate(*data, low=1e-4, high=1e4, steps=80, batch_size=32)
    ratios = numpy.array(result.rates[1:]) / result.rates[:-1]
    numpy.testing.assert_allclose(ratios, 1e8 ** (1 / 79))
    assert result.rates[0] == 1e-4
    assert len(result.rates) < 80
    lowest = numpy.argmin(result.smoothed)
    assert result.suggestion == result.rates[lowest] / 10
    assert 1e-3 < result.suggestion < 1.0
    assert repr(result).startswith(f"RangeTest({len(result.rates)} steps, rates 0.0001 to ")
    assert result.losses[0] == pytest.approx(result.smoothed[0])


def test_its_picture(make_trainer, data, tmp_path):
    result = make_trainer().find_learning_rate(*data, batch_size=32)
    figure = result.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "learning rate"
    assert axes.lines[0].get_xdata().tolist() == pytest.approx(result.rates)


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
def test_a_network_that_learns_a_mini_batch(make_trainer, data, compile):
    trainer = make_trainer(optimizer=lambda n: dl.Adam(n.parameters(), 0.02), compile=compile)
    result = trainer.check_overfit(*data)
    assert result
    assert result.unchanged == []
    assert len(result.losses) == 200
    assert "the network can learn it" in repr(result)


def test_a_network_that_cannot(make_trainer, data):
    result = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), 1e-6)).check_overfit(*data, steps=20)
    assert not result
    assert "cannot learn a mini-batch by heart often has a mistake" in repr(result)


def test_parameters_that_never_change_are_named(data):
    class Cut(dl.Layer):
        def __init__(self):
            self.used, self.cut = dl.Dense(4, 2, seed=0), dl.Dense(4, 2, seed=1)

        def forward(self, x):
            return self.used(x) + self.cut(x).detach()

    optimizer = lambda network: dl.Adam(network.parameters(), 0.05)
    network = Cut()
    trainer = dl.Trainer(network, dl.mean_squared_error, optimizer(network), device="cpu", seed=0)
    result = trainer.check_overfit(*data, batch_size=2)
    assert not result
    assert result.unchanged == ["cut.weight", "cut.bias"]
    assert "these Parameters have not changed: cut.weight, cut.bias" in repr(result)


def test_a_loss_whose_smallest_value_is_not_zero(make_trainer, data):
    trainer = make_trainer(optimizer=lambda n: dl.Adam(n.parameters(), 0.02))
    trainer.loss = lambda prediction, target: dl.mean_squared_error(prediction, target) + 10
    assert not trainer.check_overfit(*data)
    assert trainer.check_overfit(*data, floor=10)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_explodes_at_once(make_trainer, data):
    result = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), 1e30)).check_overfit(*data)
    assert not result
    assert "a lower learning rate may help" in repr(result)
    nan = dl.Trainer(dl.Dense(4, 2), lambda p, t: dl.log(-(p * p).sum()), device="cpu")
    with pytest.raises(FloatingPointError, match="not finite at the first step"):
        nan.find_learning_rate(*data)


@pytest.mark.parametrize("options", [{"low": 0}, {"low": 1, "high": 0.1}, {"steps": 1}, {"high": numpy.inf}])
def test_wrong_options_are_refused(make_trainer, data, options):
    with pytest.raises(ValueError, match="a range test needs"):
        make_trainer().find_learning_rate(*data, **options)
    with pytest.raises(ValueError, match="an overfit test needs"):
        make_trainer().check_overfit(*data, steps=0)
    with pytest.raises(TypeError, match="which LBFGS does not: use Adam or SGD"):
        make_trainer(optimizer="lbfgs").find_learning_rate(*data)
