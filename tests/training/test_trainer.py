import math
import os
import signal
import threading

import numpy
import pytest

import minidl as dl
from minidl.errors import DivergenceError
from minidl.training import metric_averages
from tests import strict_device
from tests.training.conftest import assert_same_weights

QUIET = {"verbose": False}


# --- what fit does ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [True, False])
def test_fit_is_the_plain_loop(make_trainer, data, compile):
    """Written out: Adam on mini-batches in the order that the seed gives."""
    x, y = data
    trainer = make_trainer(compile=compile)
    history = trainer.fit(x, y, epochs=3, batch_size=32, **QUIET)

    other = make_trainer()
    optimizer = dl.Adam(other.network.parameters(), learning_rate=0.001, l2=1e-4)
    losses = []
    for epoch in (1, 2, 3):
        order = numpy.random.default_rng([0, epoch]).permutation(96)
        for start in range(0, 96, 32):
            batch = order[start : start + 32]
            loss = dl.mean_squared_error(other.network(dl.tensor(x[batch])), y[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    numpy.testing.assert_allclose(history.steps["loss"], losses, rtol=1e-5)
    numpy.testing.assert_allclose(history.steps["rmse"], numpy.sqrt(losses), rtol=1e-5)
    for name, array in other.network.state_dict().items():
        numpy.testing.assert_allclose(trainer.network.state_dict()[name], array, atol=1e-5)


def test_history_has_steps_epochs_and_validation(make_trainer, data):
    x, y = data
    history = make_trainer().fit(
        x, y, epochs=4, batch_size=40, validation_data=(x[:30], y[:30]), validation_frequency=3, **QUIET
    )
    assert len(history) == 8  # the last mini-batch of each epoch, with 16 observations, is dropped
    assert {name: len(column) for name, column in history.steps.items()} == {
        "loss": 8,
        "rmse": 8,
        "learning_rate": 8,
    }
    assert history.epochs["epoch"] == [1, 2, 3, 4]
    assert history.epochs["step"] == [2, 4, 6, 8]
    assert history.epochs["loss"][1] == pytest.approx(numpy.mean(history.steps["loss"][2:4]))
    mean_square = numpy.mean(numpy.square(history.steps["rmse"][2:4]))
    assert history.epochs["rmse"][1] == pytest.approx(math.sqrt(mean_square))  # not a mean of roots
    assert history.validation["step"] == [3, 6, 8]  # and after the last step
    assert history.stop_reason == "all epochs completed"
    assert history.seconds > 0
    assert history.settings["batch_size"] == 40
    assert history.settings["optimizer"] == "Adam"


@pytest.mark.parametrize(("shuffle", "equal"), [("every-epoch", False), ("once", True), ("never", True)])
def test_shuffling(make_trainer, data, shuffle, equal):
    x, y = data
    seen = []

    def loss(prediction, target):
        return dl.mean_squared_error(prediction, target)

    trainer = make_trainer(compile=False)
    inner = trainer.train_step
    trainer.train_step = lambda inputs, targets: (seen.append(targets[0].copy()), inner(inputs, targets))[1]
    trainer.fit(x, y, epochs=2, batch_size=96, shuffle=shuffle, **QUIET)
    assert numpy.array_equal(*seen) == equal
    assert numpy.array_equal(seen[0], y) == (shuffle == "never")
    for targets in seen:
        numpy.testing.assert_array_equal(numpy.sort(targets, axis=0), numpy.sort(y, axis=0))


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 2), (False, 3)])
def test_the_last_mini_batch(make_trainer, data, drop_last, steps):
    history = make_trainer().fit(*data, epochs=1, batch_size=40, drop_last=drop_last, **QUIET)
    assert len(history) == steps


def test_the_same_seed_gives_the_same_weights(make_trainer, data):
    first, again, other = make_trainer(rate=0.3), make_trainer(rate=0.3), make_trainer(rate=0.3, seed=1)
    for trainer in (first, again, other):
        trainer.fit(*data, epochs=2, batch_size=32, **QUIET)
    assert_same_weights(first, again)
    assert (first.network[0].weight.data != other.network[0].weight.data).any()


def test_modes_and_signal_handlers_are_left_as_they_were(make_trainer, data):
    trainer = make_trainer()
    trainer.network.eval()
    trainer.network[0].training = True
    before = signal.getsignal(signal.SIGINT)
    trainer.fit(*data, epochs=1, validation_data=data, **QUIET)
    trainer.predict(data[0])
    assert [layer.training for layer in trainer.network] == [True, False, False, False]
    assert signal.getsignal(signal.SIGINT) is before


def test_dropout_is_on_while_training_and_off_for_validation(make_trainer, data):
    x, y = data
    trainer = make_trainer(rate=0.5)
    history = trainer.fit(
        x, y, epochs=1, batch_size=96, validation_data=(x, y), output_network="last", **QUIET
    )
    with dl.no_grad(), trainer.network.evaluating():
        expected = dl.mean_squared_error(trainer.network(x), y).item()
    assert history.validation["loss"] == [pytest.approx(expected, rel=1e-5)]


def test_float64_data_for_a_float32_network_and_tensors(make_trainer, data):
    first, other = make_trainer(), make_trainer()
    first.fit(*data, epochs=1, batch_size=32, **QUIET)
    other.fit(data[0].astype(float), dl.tensor(data[1].astype(float)), epochs=1, batch_size=32, **QUIET)
    assert_same_weights(first, other)
    assert first.predict(data[0].astype(float)).dtype == numpy.float32


def test_several_inputs_and_outputs(data):
    class Both(dl.Layer):
        def __init__(self):
            self.left, self.right = dl.Dense(4, 2, seed=0), dl.Dense(2, 2, seed=1)

        def forward(self, x, z):
            return self.left(x) + self.right(z), self.left(x)

    def loss(sum_, left, y, z):
        return dl.mean_squared_error(sum_, y) + dl.mean_absolute_error(left, z)

    def first_error(sum_, left, y, z):
        return dl.mean_absolute_error(sum_, y)

    x, y = data
    trainer = dl.Trainer(Both(), loss, metrics=[first_error], seed=0, device="cpu")
    history = trainer.fit((x, y), (y, y), epochs=5, batch_size=32, validation_data=((x, y), (y, y)), **QUIET)
    assert history.epochs["loss"][-1] < history.epochs["loss"][0]
    outputs = trainer.predict((x, y), batch_size=50)
    assert [output.shape for output in outputs] == [(96, 2), (96, 2)]
    assert trainer.evaluate((x, y), (y, y))["first_error"] == pytest.approx(numpy.abs(outputs[0] - y).mean())


# --- data that comes in mini-batches ------------------------------------------------------------------


def test_iterables_and_generators_of_mini_batches(make_trainer, data):
    x, y = data
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    trainers = [make_trainer() for _ in range(3)]
    trainers[0].fit(x, y, epochs=2, batch_size=32, shuffle="never", **QUIET)
    trainers[1].fit(batches, epochs=2, **QUIET)
    trainers[2].fit(lambda: iter(batches), epochs=2, validation_data=batches, output_network="last", **QUIET)
    assert_same_weights(trainers[0], trainers[1])
    assert_same_weights(trainers[0], trainers[2])
    numpy.testing.assert_array_equal(trainers[0].predict(x), trainers[0].predict(part for part, _ in batches))
    assert threading.active_count() == 1 or not any(
        thread.name == "minidl prefetch" for thread in threading.enumerate()
    )


def test_memory_mapped_arrays(make_trainer, data, tmp_path):
    for name, array in zip("xy", data, strict=True):
        numpy.save(tmp_path / f"{name}.npy", array)
    mapped = [numpy.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
    first, other = make_trainer(), make_trainer()
    first.fit(*data, epochs=2, batch_size=32, **QUIET)
    other.fit(*mapped, epochs=2, batch_size=32, validation_data=tuple(mapped), output_network="last", **QUIET)
    assert_same_weights(first, other)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data gave no mini-batches"),
        ([numpy.zeros((2, 4))], r"pair \(inputs, targets\), got ndarray of length 2"),
        ([([1.0], numpy.zeros(2))], "expected an array or a tuple of arrays, got float"),
        ([(numpy.zeros((0, 4), "f"), numpy.zeros((0, 2), "f"))], "mini-batch of step 1 is empty"),
    ],
)
def test_bad_mini_batches_are_refused(make_trainer, items, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_trainer().fit(items, epochs=1, **QUIET)


def test_an_iterator_that_is_used_up_says_so(make_trainer, data):
    with pytest.raises(ValueError, match="epoch 2: an iterator can be used only once"):
        make_trainer().fit(iter([data, data]), epochs=2, **QUIET)


def test_an_error_in_the_data_is_raised_here(make_trainer, data):
    def batches():
        yield data
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        make_trainer().fit(batches, epochs=1, **QUIET)


# --- evaluation and prediction ------------------------------------------------------------------------


@pytest.mark.parametrize("compile", [True, False])
def test_predict_and_evaluate_in_mini_batches(make_trainer, data, compile):
    x, y = data
    trainer = make_trainer(rate=0.5, compile=compile, metrics=[dl.rmse, dl.mae])
    with dl.no_grad(), trainer.network.evaluating():
        expected = trainer.network(x).numpy()
    for batch_size in (96, 50, 7, 200):
        numpy.testing.assert_allclose(trainer.predict(x, batch_size=batch_size), expected, atol=1e-6)
        figures = trainer.evaluate(x, y, batch_size=batch_size)
        assert figures["rmse"] == pytest.approx(numpy.sqrt(((expected - y) ** 2).mean()), rel=1e-5)
        assert figures["loss"] == pytest.approx(figures["rmse"] ** 2, rel=1e-5)
        assert figures["mae"] == pytest.approx(numpy.abs(expected - y).mean(), rel=1e-5)


def test_functions_as_metrics_see_all_predictions_at_once(make_trainer, data):
    x, y = data

    def largest_error(prediction, target):
        return abs(prediction - target).max()

    trainer = make_trainer(metrics=[largest_error])
    figures = trainer.evaluate(x, y, batch_size=10)
    assert figures["largest_error"] == pytest.approx(numpy.abs(trainer.predict(x) - y).max())
    history = trainer.fit(x, y, epochs=1, validation_data=(x, y), batch_size=32, **QUIET)
    assert list(history.validation) == ["step", "loss", "largest_error"]
    assert list(history.steps) == ["loss", "largest_error", "learning_rate"]


def test_metrics_that_cannot_be_computed_in_a_step(data):
    x, y = data
    target = (y[:, :1] > 0).astype("float32")
    network = dl.Network([dl.Dense(4, 1, seed=0), dl.Sigmoid()])
    trainer = dl.Trainer(network, dl.binary_cross_entropy, metrics=[dl.auc, dl.mae], seed=0, device="cpu")
    history = trainer.fit(
        x, target, epochs=30, batch_size=32, validation_data=(x, target), objective="auc", **QUIET
    )
    assert "auc" not in history.steps
    best = max(range(len(history.validation["auc"])), key=lambda i: history.validation["auc"][i])
    assert history.best_step == history.validation["step"][best]  # a larger one is better
    assert trainer.evaluate(x, target)["auc"] == pytest.approx(history.validation["auc"][best])


# --- validation, stopping, which network comes back ---------------------------------------------------


@pytest.fixture
def overfitting(make_trainer):
    """Noise to learn by heart: the validation loss falls, then rises."""
    rng = numpy.random.default_rng(0)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = (0.5 * x[:, :2] + rng.normal(size=(96, 2))).astype("float32")
    trainer = make_trainer(optimizer=lambda n: dl.Adam(n.parameters(), learning_rate=0.05))
    options = {"validation_data": (x[48:], y[48:]), "validation_frequency": 2, "batch_size": 16, **QUIET}
    return trainer, (x[:48], y[:48]), options


def test_the_best_network_comes_back(overfitting):
    trainer, data, options = overfitting
    history = trainer.fit(*data, epochs=40, **options)
    assert history.returned == "best"
    losses = history.validation["loss"]
    assert losses[-1] > min(losses)
    assert history.best_step == history.validation["step"][losses.index(min(losses))]
    assert trainer.evaluate(*options["validation_data"])["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_or_the_last_one(overfitting):
    trainer, data, options = overfitting
    history = trainer.fit(*data, epochs=40, output_network="last", **options)
    assert history.returned == "last"
    figures = trainer.evaluate(*options["validation_data"])
    assert figures["loss"] == pytest.approx(history.validation["loss"][-1], rel=1e-6)


def test_validation_patience(overfitting):
    trainer, data, options = overfitting
    history = trainer.fit(*data, epochs=1000, validation_patience=3, **options)
    assert history.stop_reason == "no better validation loss 3 times in a row"
    losses = history.validation["loss"]
    assert losses.index(min(losses)) == len(losses) - 4
    assert len(history) < 1000


def test_callbacks_see_the_training_and_can_stop_it(make_trainer, data):
    seen = []

    def callback(fit):
        latest = fit.history.steps["loss"][-1] if fit.step else None
        seen.append((fit.state, fit.step, fit.epoch, latest))
        return fit.step == 4

    history = make_trainer().fit(*data, epochs=5, batch_size=32, callbacks=[callback], **QUIET)
    assert [entry[:3] for entry in seen] == [
        ("start", 0, 1),
        ("step", 1, 1),
        ("step", 2, 1),
        ("step", 3, 1),
        ("step", 4, 2),
        ("end", 4, 2),
    ]
    assert [entry[3] for entry in seen[1:5]] == history.steps["loss"]
    assert history.stop_reason == "stopped by a callback"


def test_ctrl_c_stops_after_the_step_with_the_best_network(overfitting, capsys):
    trainer, data, options = overfitting

    def interrupt(fit):
        if fit.state == "step" and fit.step == 61:
            os.kill(os.getpid(), signal.SIGINT)

    history = trainer.fit(*data, epochs=100, callbacks=[interrupt], **options)
    assert history.stop_reason == "stopped by Ctrl-C"
    assert len(history) == 61
    assert history.validation["step"][-1] == 61
    assert history.returned == "best"
    assert "press Ctrl-C again" in capsys.readouterr().err


def test_ctrl_c_twice_interrupts_at_once(make_trainer, data):
    def interrupt(fit):
        if fit.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_trainer().fit(*data, epochs=5, batch_size=32, callbacks=[interrupt], **QUIET)
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_in_another_thread(make_trainer, data):
    results = []
    trainer = make_trainer()
    thread = threading.Thread(target=lambda: results.append(trainer.fit(*data, epochs=1, **QUIET)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


def test_schedules_are_followed_and_noted(make_trainer, data):
    schedule = dl.schedules.Step(0.1, period=2, factor=0.5)
    trainer = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), learning_rate=schedule))
    history = trainer.fit(*data, epochs=2, batch_size=32, **QUIET)
    assert history.steps["learning_rate"] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [("adam", dl.Adam, 0.001), ("rmsprop", dl.RMSProp, 0.001), ("sgdm", dl.SGD, 0.01)],
)
def test_solvers_by_name_have_the_originals_defaults(make_trainer, name, kind, rate):
    optimizer = make_trainer(optimizer=name).optimizer
    assert type(optimizer) is kind
    assert optimizer.learning_rate.item() == rate
    assert optimizer.l2 == 1e-4
    if name == "sgdm":
        assert optimizer.momentum == 0.9


def test_lbfgs_trains_on_all_data_at_once(make_trainer, data):
    trainer = make_trainer(optimizer=lambda n: dl.LBFGS(n.parameters(), max_iterations=60))
    history = trainer.fit(*data, validation_data=data, validation_frequency=10, **QUIET)
    assert history.steps["loss"][-1] < 0.1 * history.steps["loss"][0]
    assert (numpy.diff(history.steps["loss"]) <= 0).mean() > 0.9  # with L2 in what goes down for sure
    assert trainer.evaluate(*data)["loss"] == pytest.approx(history.steps["loss"][-1], rel=1e-3)
    assert history.validation["step"][0] == 10


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.LBFGS])
@pytest.mark.parametrize("compile", [True, False])
def test_a_part_of_a_network_can_be_trained(make_trainer, data, optimizer, compile):
    trainer = make_trainer(optimizer=lambda network: optimizer(network[3].parameters()), compile=compile)
    before = trainer.network.state_dict()
    trainer.fit(*data, epochs=3, batch_size=32, callbacks=[lambda fit: fit.step == 6], **QUIET)
    for name, array in trainer.network.state_dict().items():
        assert (before[name] == array).all() == name.startswith("0.")
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_lbfgs_stops_when_a_callback_says_so(make_trainer, data):
    trainer = make_trainer(optimizer="lbfgs")
    history = trainer.fit(*data, callbacks=[lambda fit: fit.step == 5], **QUIET)
    assert len(history) == 5
    assert history.stop_reason == "stopped by a callback"


# --- training that goes wrong -------------------------------------------------------------------------


def finite(network):
    return all(numpy.isfinite(array).all() for array in network.state_dict().values())


def relu_trainer(rate, **options):
    network = dl.Network([dl.Dense(4, 16, seed=1), dl.ReLU(), dl.Dense(16, 2, seed=3)])
    optimizer = dl.SGD(network.parameters(), learning_rate=rate)
    return dl.Trainer(network, dl.mean_squared_error, optimizer, seed=0, device="cpu", **options)


def test_divergence_in_data_that_cannot_be_gone_through_again_names_the_mini_batch(data):
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


# --- bad arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"shuffle": "sometimes"}, "shuffle must be one of every-epoch, once, never; got 'sometimes'"),
        ({"validation_frequency": 0}, "validation_frequency must be a number of steps or 'epoch', got 0"),
        ({"objective": "rmsse"}, "objective must be one of loss, rmse; got 'rmsse'"),
        ({"output_network": "first"}, "output_network must be one of auto, best, last"),
        ({"output_network": "best"}, "needs validation_data"),
        ({"resume": True}, "needs the checkpoint_folder"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        ({"plot": "nowhere/picture.png"}, "there is no folder 'nowhere'"),
        ({"validation_data": (1, 2, 3)}, "must be a pair"),
    ],
)
def test_bad_options_are_refused_before_training(make_trainer, data, options, message):
    trainer = make_trainer()
    before = trainer.network.state_dict()
    with pytest.raises(ValueError, match=message):
        trainer.fit(*data, **options, **QUIET)
    for name, array in trainer.network.state_dict().items():
        numpy.testing.assert_array_equal(before[name], array)


def test_bad_data_is_refused(make_trainer, data):
    x, y = data
    trainer = make_trainer()
    for arguments, message in [
        ((x,), "targets are missing: pass x and y"),
        ((x, y[:50]), r"equally many observations; got \[96, 50\]"),
        ((x[:0], y[:0]), "the arrays are empty"),
        (([x], y), "must be an array or a tuple of arrays, got list"),
        ((x, "y"), "expected an array or a tuple of arrays, got str"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            trainer.fit(*arguments, **QUIET)


def test_bad_trainers_are_refused(make_trainer):
    network = dl.Network([dl.Dense(2, 2)])
    for arguments, options, message in [
        ((abs, dl.mean_squared_error), {}, "Trainer trains a Layer, got builtin_function"),
        ((network, dl.mean_squared_error, "adamm"), {}, "unknown optimizer 'adamm': use one of adam"),
        ((network, dl.mean_squared_error, 0.1), {}, "takes an Optimizer or a name, got float"),
        (
            (network, dl.mean_squared_error, dl.Adam([dl.Parameter(dl.zeros(2))])),
            {},
            "trains none of the network's Parameters",
        ),
        ((network, dl.mean_squared_error), {"metrics": [dl.rmse, dl.rmse]}, "different names"),
        ((network, dl.mean_squared_error), {"device": "tpu"}, "unknown device 'tpu'"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            dl.Trainer(*arguments, **options)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("optimizer", ["adam", lambda network: dl.Adam(network.parameters())])
def test_training_on_device_arrays(gpu, gpu_name, make_trainer, data, compile, optimizer):
    """The same weights come out, with every mini-batch and figure carried over explicitly."""
    on_cpu, on_gpu = (
        make_trainer(optimizer=optimizer, device=device, compile=compile) for device in ("cpu", gpu_name)
    )
    assert {x.device for x in on_gpu.network.parameters()} == {gpu_name}
    for trainer in (on_cpu, on_gpu):
        history = trainer.fit(*data, epochs=2, batch_size=32, validation_data=data, **QUIET)
        assert len(history) == 6
    numpy.testing.assert_allclose(on_gpu.predict(data[0]), on_cpu.predict(data[0]), atol=1e-5)


@pytest.mark.parametrize("free", [1 << 30, 1000])
def test_data_are_kept_on_the_device_where_there_is_room(strict_gpu, make_trainer, data, monkeypatch, free):
    monkeypatch.setattr(strict_gpu.cuda.Device, "mem_info", (free, 1 << 30))
    moved, uploaded = [], []
    asarray, upload = strict_gpu.asarray, strict_gpu.ndarray.set
    monkeypatch.setattr(strict_gpu, "asarray", lambda x: moved.append(x) or asarray(x), raising=False)
    monkeypatch.setattr(
        strict_gpu.ndarray, "set", lambda self, x, stream: uploaded.append(x.shape) or upload(self, x, stream)
    )
    trainer = make_trainer(device="gpu")
    moved.clear()
    trainer.fit(*data, epochs=2, batch_size=32, **QUIET)
    whole = [x.shape for x in moved if type(x) is numpy.ndarray and x.ndim > 1]
    assert whole == ([array.shape for array in data] if free > 1000 else [])
    assert uploaded == ([] if free > 1000 else [(32, 4), (32, 2)] * 6)
    assert all(type(array) is numpy.ndarray for array in data)


@pytest.mark.parametrize("kind", ["arrays", "float64", "memory maps", "iterable"])
def test_data_that_stay_on_the_host_are_uploaded_ahead(
    gpu, gpu_name, make_trainer, data, monkeypatch, tmp_path, kind
):
    """Training, validation, evaluation and prediction, in which all the stand-in's copies arrive late."""
    monkeypatch.setattr(dl.devices, "has_room", lambda device, nbytes: False)
    x, y = data
    if kind == "float64":
        x, y = x.astype(float), y.astype(float)
    elif kind == "memory maps":
        for name, array in zip("xy", data, strict=True):
            numpy.save(tmp_path / f"{name}.npy", array)
        x, y = (numpy.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy")
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    results = []
    for device in ("cpu", gpu_name):
        trainer = make_trainer(device=device)
        if kind == "iterable":
            trainer.fit(batches, epochs=3, validation_data=batches, validation_frequency=2, **QUIET)
            figures, outputs = trainer.evaluate(batches), trainer.predict([x for x, _ in batches])
        else:
            trainer.fit(
                x, y, epochs=3, batch_size=32, validation_data=(x, y), validation_frequency=2, **QUIET
            )
            figures, outputs = trainer.evaluate(x, y, 20), trainer.predict(x, 20)
        results.append([*trainer.network.state_dict().values(), outputs, *figures.values()])
    for ours, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_network_that_was_moved_comes_back(gpu, make_trainer, data):
    trainer, stayed = (make_trainer(device="gpu") for _ in range(2))
    for one in (trainer, stayed):
        for _ in range(2):
            one.fit(*data, epochs=1, batch_size=32, **QUIET)
            if one is trainer:
                one.network.to("cpu")
        assert one.evaluate(*data) == one.evaluate(*data)
        one.network.to("cpu")
        assert one.predict(data[0]).shape == (96, 2)
    assert_same_weights(trainer, stayed)


def test_an_autoencoders_data_are_uploaded_once(strict_gpu, monkeypatch, data):
    monkeypatch.setattr(dl.devices, "has_room", lambda device, nbytes: False)
    uploaded = []
    upload = strict_gpu.ndarray.set
    monkeypatch.setattr(
        strict_gpu.ndarray, "set", lambda self, x, stream: uploaded.append(x.shape) or upload(self, x, stream)
    )
    x = data[0]
    for source in ((x, x), ([(x[:48], x[:48])],), ([((part := x[:48].astype(float)), part)],)):
        uploaded.clear()
        network = dl.Network([dl.Dense(4, 4, seed=0)])
        trainer = dl.Trainer(network, dl.mean_squared_error, device="gpu", seed=0)
        trainer.fit(*source, epochs=1, batch_size=48, **QUIET)
        assert set(uploaded) == {(48, 4)}
        assert len(uploaded) == (2 if len(source) == 2 else 1 if part is source[0][0][0] else 2)


@pytest.mark.parametrize("free", [1 << 30, 1000])
@pytest.mark.parametrize("compile", [True, False])
def test_the_host_does_not_wait_within_an_epoch(strict_gpu, make_trainer, data, monkeypatch, free, compile):
    monkeypatch.setattr(strict_gpu.cuda.Device, "mem_info", (free, 1 << 30))
    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", math.inf)
    waits = []
    trainer = make_trainer(rate=0.2, device="gpu", compile=compile)
    note = lambda running: waits.append((running.epoch, list(strict_device.synchronisations)))
    trainer.fit(*data, epochs=3, batch_size=12, callbacks=[note], **QUIET)
    for epoch in (1, 2, 3):
        within = [seen for number, seen in waits if number == epoch][2:8]  # behind recording and capture
        assert len(within) == 6
        assert all(seen == within[0] for seen in within)
    trainer.evaluate(*data, batch_size=4)  # recording looks at constants
    before = len(strict_device.synchronisations)
    trainer.evaluate(*data, batch_size=4)  # 24 mini-batches
    at_the_end = strict_device.synchronisations[before:]  # the figures of all mini-batches in one transfer
    assert at_the_end == ["synchronize()", "asnumpy()"]


def test_figures_are_fetched_every_so_often(strict_gpu, make_trainer, data, monkeypatch):
    seen = []
    trainer = make_trainer(device="gpu")

    def note(running):
        if running.state == "step":
            seen.append(len(running._history.steps.get("loss", [])))

    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", -1.0)
    trainer.fit(*data, epochs=1, batch_size=24, callbacks=[note], **QUIET)
    monkeypatch.setattr(metric_averages, "FLUSH_SECONDS", math.inf)
    trainer.fit(*data, epochs=1, batch_size=24, callbacks=[note], **QUIET)
    assert seen == [1, 2, 3, 4, 0, 0, 0, 0]


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


def test_a_validation_loss_that_is_nan_ends_the_training(make_trainer, data):
    x, y = data
    bad = numpy.where(numpy.arange(96)[:, None] == 3, numpy.nan, x).astype("float32")
    with pytest.raises(DivergenceError, match="the validation loss became nan"):
        make_trainer().fit(x, y, epochs=2, validation_data=[(bad, y)], **QUIET)


def test_lbfgs_wants_all_data_at_once(make_trainer, data):
    with pytest.raises(TypeError, match="LBFGS trains on all data at once: pass arrays"):
        make_trainer(optimizer="lbfgs").fit([data], **QUIET)


def test_lbfgs_shows_its_progress(make_trainer, data, capsys):
    trainer = make_trainer(optimizer=lambda network: dl.LBFGS(network.parameters(), max_iterations=3))
    trainer.fit(*data, verbose_frequency=1)
    assert "step 2/3: loss" in capsys.readouterr().out
