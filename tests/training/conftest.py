import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET


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


@pytest.fixture
def history(make_trainer, data):
    return make_trainer().fit(
        *data, epochs=6, batch_size=32, validation_data=data, validation_frequency=4, **QUIET
    )


@pytest.fixture
def overfitting(make_trainer):
    """Noise to learn by heart: the validation loss falls, then rises."""
    rng = numpy.random.default_rng(0)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = (0.5 * x[:, :2] + rng.normal(size=(96, 2))).astype("float32")
    trainer = make_trainer(optimizer=lambda n: dl.Adam(n.parameters(), learning_rate=0.05))
    options = {"validation_data": (x[48:], y[48:]), "validation_frequency": 2, "batch_size": 16, **QUIET}
    return trainer, (x[:48], y[:48]), options


@pytest.fixture
def checkpoint_file(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    return next(tmp_path.glob("checkpoint-*"))
