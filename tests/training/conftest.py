import numpy
import pytest

import minidl as dl


@pytest.fixture
def data():
    """A small regression: 96 observations of 4 features, 2 targets."""
    rng = numpy.random.default_rng(5)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = numpy.stack([numpy.sin(x[:, 0]) + x[:, 1], x[:, 2] * x[:, 3]], axis=1).astype("float32")
    return x, y


@pytest.fixture
def make_trainer():
    def make(rate=0.0, optimizer="adam", seed=0, **options):
        network = dl.Network(
            [dl.Dense(4, 16, seed=1), dl.Tanh(), dl.Dropout(rate, seed=2), dl.Dense(16, 2, seed=3)]
        )
        if callable(optimizer):
            optimizer = optimizer(network)
        options = {"metrics": [dl.rmse], "device": "cpu", **options}
        return dl.Trainer(network, dl.mean_squared_error, optimizer, seed=seed, **options)

    return make


def assert_same_weights(one, other):
    states = one.network.state_dict(), other.network.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        numpy.testing.assert_array_equal(states[1][name], array, err_msg=name)
