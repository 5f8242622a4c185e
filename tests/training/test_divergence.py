import math

import numpy
import pytest

import minidl as dl
from minidl.errors import DivergenceError
from minidl.training import checkpoints
from tests.training.helpers import QUIET, assert_same_weights


def finite(network):
    return all(numpy.isfinite(array).all() for array in network.state_dict().values())


def relu_trainer(rate, **options):
    network = dl.Network([dl.Dense(4, 16, seed=1), dl.ReLU(), dl.Dense(16, 2, seed=3)])
    optimizer = dl.SGD(network.parameters(), learning_rate=rate)
    return dl.Trainer(network, dl.mean_squared_error, optimizer, seed=0, device="cpu", **options)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("compile", [True, False])
def test_divergence_names_step_batch_and_layer(data, compile):
    trainer = relu_trainer(1e6, compile=compile)
    with pytest.raises(DivergenceError) as raised:
        trainer.fit(*data, epochs=50, batch_size=16, **QUIET)
    message, step = str(raised.value), raised.value.step
    epoch, position = divmod(step - 1, 6)
    assert f"at step {step} (epoch {epoch + 1}, mini-batch {position + 1})" in message
    assert "the first layer whose output was not finite is 2, Dense(16, 2)" in message or (
        "left weights that are not finite" in message
    )
    assert "last good weights" in message
    assert finite(trainer.network)
    assert len(raised.value.history) == step
    assert not math.isfinite(raised.value.history.steps["loss"][-1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_weights_after_divergence_are_those_before_the_step(data):
    """A training that is stopped just before the step that failed has the same weights."""
    trainer = relu_trainer(1e6)
    with pytest.raises(DivergenceError) as raised:
        trainer.fit(*data, epochs=50, batch_size=16, **QUIET)
    good = int(str(raised.value).rpartition("of step ")[2].split(".")[0])
    assert 0 < good < raised.value.step
    other = relu_trainer(1e6)
    other.fit(*data, epochs=50, batch_size=16, callbacks=[lambda fit: fit.step == good], **QUIET)
    assert_same_weights(trainer, other)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_returns_the_best_network_if_there_is_one(data):
    constant = dl.schedules.Constant
    trainer = relu_trainer(dl.schedules.Sequence((constant(0.01), 20), (constant(1e9), 1)))
    with pytest.raises(DivergenceError, match="the best weights, of step") as raised:
        trainer.fit(*data, epochs=50, batch_size=16, validation_data=data, validation_frequency=5, **QUIET)
    history = raised.value.history
    assert history.best_step <= 20
    assert trainer.evaluate(*data)["loss"] == pytest.approx(min(history.validation["loss"]), rel=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_long_after_the_start_is_traced_from_the_last_snapshot(data):
    constant = dl.schedules.Constant
    trainer = relu_trainer(dl.schedules.Sequence((constant(1e-3), 520), (constant(1e9), 1)))
    with pytest.raises(DivergenceError) as raised:
        trainer.fit(*data, epochs=200, batch_size=16, **QUIET)
    good = int(str(raised.value).rpartition("of step ")[2].split(".")[0])
    assert 520 <= good < raised.value.step
    other = relu_trainer(dl.schedules.Sequence((constant(1e-3), 520), (constant(1e9), 1)))
    other.fit(*data, epochs=200, batch_size=16, callbacks=[lambda fit: fit.step == good], **QUIET)
    assert_same_weights(trainer, other)


def test_divergence_in_data_that_cannot_be_repeated_names_the_mini_batch(data):
    x, y = data
    bad = x[:16].copy()
    bad[3, 1] = numpy.nan
    batches = [(x[:16], y[:16]), (x[16:32], y[16:32]), (bad, y[:16]), (x[32:48], y[32:48])]
    epochs = iter([batches[:2] * 2, batches])
    with pytest.raises(DivergenceError, match=r"became nan at step 7 \(epoch 2, mini-batch 3\)"):
        relu_trainer(1e-3).fit(lambda: next(epochs), epochs=2, **QUIET)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("number", [-1, 3])
def test_a_class_that_does_not_exist_ends_the_training(gpu, device, compile, number, rng):
    """Also in a later mini-batch, and on a GPU, where nobody looks at the numbers."""
    x, classes = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)
    classes[60] = number
    network = dl.Network([dl.Dense(4, 3, seed=0)])
    trainer = dl.Trainer(network, dl.softmax_cross_entropy, device=device, compile=compile, seed=0)
    with pytest.raises((DivergenceError, ValueError), match=r"became nan at step 4|class numbers"):
        trainer.fit(x, classes, epochs=2, batch_size=16, shuffle="never", **QUIET)
    assert finite(network)


def test_a_batch_that_is_not_finite_is_named(make_trainer, data):
    x, y = data[0].copy(), data[1]
    x[50, 1] = numpy.nan
    with pytest.raises(ValueError, match=r"the training inputs has 1 of 384 values.*\(50, 1\)"):
        make_trainer().fit(x, y, **QUIET)
    batches = [(x[:32], y[:32]), (x[32:64], y[32:64])]
    trainer = make_trainer()
    with pytest.raises(DivergenceError, match="at step 2"):
        trainer.fit(batches, epochs=1, **QUIET)
    assert finite(trainer.network)


def test_a_custom_layer_that_gives_nan_is_named(data):
    class Logarithm(dl.Layer):
        def forward(self, x):
            return dl.log(x)

    network = dl.Network([dl.Dense(4, 4, seed=0), dl.Network([Logarithm()]), dl.Dense(4, 2, seed=1)])
    trainer = dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")
    with pytest.warns(RuntimeWarning), pytest.raises(DivergenceError, match=r"is 1\.0, Logarithm\(\)"):
        trainer.fit(*data, epochs=1, **QUIET)


class NanGradient(dl.Layer):
    """Its output is finite; its gradient is NaN where an observation begins with 7."""

    def __init__(self):
        self.dense = dl.Dense(4, 2, seed=0)

    def forward(self, x):
        y = self.dense(x)
        distance = abs(x[:, :1] - 7)
        return y + dl.sqrt(distance * (y * y).mean(axis=-1, keepdims=True)) * (distance > 0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("frequency", ["epoch", 1, None])
def test_a_finite_loss_with_nan_gradients_in_the_last_step_of_an_epoch(data, tmp_path, frequency, compile):
    """No checkpoint holds the weights that its update spoiled, and the last good ones come back."""
    x, y = data[0].copy(), data[1]
    x[80, 0] = 7
    trainer = dl.Trainer(NanGradient(), dl.mean_squared_error, seed=0, device="cpu", compile=compile)
    options = {} if frequency is None else {"checkpoint_folder": tmp_path, "checkpoint_frequency": frequency}
    with pytest.raises(DivergenceError, match=r"the update of step 6 left weights that are not finite"):
        trainer.fit(x, y, epochs=1, batch_size=16, shuffle="never", **options, **QUIET)
    assert finite(trainer.network)
    for path in tmp_path.glob("checkpoint-*"):
        assert all(numpy.isfinite(array).all() for array in checkpoints.read(path).part("network").values())


def test_a_frozen_parameter_may_be_infinite(data):
    """A mask of -infinity, for example, that belongs to the network and is not trained."""
    network = dl.Network([dl.Dense(4, 2, seed=0)])
    network.mask = dl.Parameter([-math.inf, 0.0], learning_rate_factor=0)
    trainer = dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")
    assert len(trainer.fit(*data, epochs=1, batch_size=48, **QUIET)) == 2
