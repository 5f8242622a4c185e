import math
import signal
import threading

import numpy
import pytest

import minidl as dl
from minidl.errors import DivergenceError
from minidl.optimizers.full_batch import FullBatchOptimizer
from tests.training.helpers import QUIET, assert_same_weights, files


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


def test_schedules_are_followed_and_noted(make_trainer, data):
    schedule = dl.schedules.Step(0.1, period=2, factor=0.5)
    trainer = make_trainer(optimizer=lambda n: dl.SGD(n.parameters(), learning_rate=schedule))
    history = trainer.fit(*data, epochs=2, batch_size=32, **QUIET)
    assert history.steps["learning_rate"] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


@pytest.mark.parametrize("optimizer", [dl.Adam, dl.LBFGS])
@pytest.mark.parametrize("compile", [True, False])
def test_a_part_of_a_network_can_be_trained(make_trainer, data, optimizer, compile):
    trainer = make_trainer(optimizer=lambda network: optimizer(network[3].parameters()), compile=compile)
    before = trainer.network.state_dict()
    trainer.fit(*data, epochs=3, batch_size=32, callbacks=[lambda fit: fit.step == 6], **QUIET)
    for name, array in trainer.network.state_dict().items():
        assert (before[name] == array).all() == name.startswith("0.")
    assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_fit_in_another_thread(make_trainer, data):
    results = []
    trainer = make_trainer()
    thread = threading.Thread(target=lambda: results.append(trainer.fit(*data, epochs=1, **QUIET)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


# --- validation, stopping, which network comes back -----------------------------------------------


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


def test_a_validation_loss_that_is_nan_ends_the_training(make_trainer, data):
    x, y = data
    bad = numpy.where(numpy.arange(96)[:, None] == 3, numpy.nan, x).astype("float32")
    with pytest.raises(DivergenceError, match="the validation loss became nan"):
        make_trainer().fit(x, y, epochs=2, validation_data=[(bad, y)], **QUIET)


# --- full-batch optimizers ------------------------------------------------------------------------


def test_lbfgs_trains_on_all_data_at_once(make_trainer, data):
    trainer = make_trainer(optimizer=lambda n: dl.LBFGS(n.parameters(), max_iterations=60))
    history = trainer.fit(*data, validation_data=data, validation_frequency=10, **QUIET)
    assert history.steps["loss"][-1] < 0.1 * history.steps["loss"][0]
    assert (numpy.diff(history.steps["loss"]) <= 0).mean() > 0.9  # with L2 in what goes down for sure
    assert trainer.evaluate(*data)["loss"] == pytest.approx(history.steps["loss"][-1], rel=1e-3)
    assert history.validation["step"][0] == 10


def test_lbfgs_stops_when_a_callback_says_so(make_trainer, data):
    trainer = make_trainer(optimizer="lbfgs")
    history = trainer.fit(*data, callbacks=[lambda fit: fit.step == 5], **QUIET)
    assert len(history) == 5
    assert history.stop_reason == "stopped by a callback"


def test_lbfgs_wants_all_data_at_once(make_trainer, data):
    with pytest.raises(TypeError, match="LBFGS trains on all data at once: pass arrays"):
        make_trainer(optimizer="lbfgs").fit([data], **QUIET)


# --- checkpoints ----------------------------------------------------------------------------------


def test_the_last_checkpoints_and_the_best_weights_are_kept(make_trainer, data, tmp_path):
    trainer = make_trainer()
    history = trainer.fit(
        *data,
        epochs=5,
        batch_size=32,
        validation_data=data,
        validation_frequency=4,
        checkpoint_folder=tmp_path / "new" / "folder",
        keep_checkpoints=3,
        **QUIET,
    )
    folder = tmp_path / "new" / "folder"
    assert files(folder) == [
        "best.safetensors",
        "checkpoint-000009.safetensors",
        "checkpoint-000012.safetensors",
        "checkpoint-000015.safetensors",
    ]
    best = make_trainer()
    best.network.load(folder / "best.safetensors")
    assert history.returned == "best"
    assert_same_weights(trainer, best)


def test_an_earlier_training_is_not_overwritten_by_mistake(make_trainer, data, tmp_path):
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"holds checkpoints of an earlier training: pass resume=True"):
        make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    assert files(tmp_path) == before


def test_a_full_disk_loses_a_checkpoint_and_not_the_training(make_trainer, data, tmp_path):
    resource = pytest.importorskip("resource")
    trainer, whole = make_trainer(), make_trainer()
    whole.fit(*data, epochs=4, batch_size=32, **QUIET)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(fit):
        if fit.step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.warns(UserWarning, match=r"checkpoint of step .* could not be written.*training goes on"):
            trainer.fit(
                *data,
                epochs=4,
                batch_size=32,
                checkpoint_folder=tmp_path,
                callbacks=[fill_the_disk],
                **QUIET,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_same_weights(whole, trainer)
    assert files(tmp_path) == ["checkpoint-000003.safetensors"]
    resumed = make_trainer()
    resumed.fit(*data, epochs=4, batch_size=32, checkpoint_folder=tmp_path, resume=True, **QUIET)
    assert_same_weights(whole, resumed)


def test_a_folder_that_cannot_be_made_is_said_before_training(make_trainer, data, tmp_path):
    (tmp_path / "file").write_text("")
    steps = []
    with pytest.raises(OSError, match="file"):
        make_trainer().fit(
            *data, checkpoint_folder=tmp_path / "file" / "inside", callbacks=[steps.append], **QUIET
        )
    assert not steps


@pytest.mark.parametrize("kind", [dl.LBFGS, dl.ConjugateGradient])
def test_full_batch_trainings_are_resumed_bit_for_bit(kind, make_trainer, data, tmp_path):
    def training():
        trainer = make_trainer()
        trainer.optimizer = kind(trainer.network.parameters(), max_iterations=12)
        return trainer

    options = {"checkpoint_folder": tmp_path, "checkpoint_frequency": 2, "keep_checkpoints": 1, **QUIET}
    whole, first, second = training(), training(), training()
    expected = whole.fit(*data, **QUIET)
    assert first.fit(*data, callbacks=[lambda fit: fit.step == 3], **options).stop_reason == (
        "stopped by a callback"
    )
    assert files(tmp_path) == ["checkpoint-000003.safetensors"]
    history = second.fit(*data, resume=True, **options)
    assert history.steps == expected.steps
    assert len(history) == 12
    ours, theirs = second.network.state_dict(), whole.network.state_dict()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_a_full_batch_optimizer_without_state_cannot_be_resumed(make_trainer, data, tmp_path):
    class OneStep(FullBatchOptimizer):
        def search(self, objective, start, after_iteration):
            after_iteration(start - 0.01 * objective(start)[1], 1.0)
            return "one step"

    def training():
        trainer = make_trainer()
        trainer.optimizer = OneStep(trainer.network.parameters(), 1, 0.0)
        return trainer

    training().fit(*data, checkpoint_folder=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="OneStep cannot be resumed: it has no state"):
        training().fit(*data, checkpoint_folder=tmp_path, resume=True, **QUIET)


# --- a plot that cannot be written ----------------------------------------------------------------


def test_a_plot_that_fails_at_the_end_does_not_cost_the_history(make_trainer, data, tmp_path):
    folder = tmp_path / "plots"
    folder.mkdir()
    vanish = lambda fit: folder.rmdir() if fit.step == 1 and fit.state == "step" else None
    with pytest.warns(UserWarning, match=r"the plot '.*training\.png' could not be written"):
        history = make_trainer().fit(
            *data, epochs=2, batch_size=96, plot=folder / "training.png", callbacks=[vanish], **QUIET
        )
    assert len(history) == 2


def test_a_plot_that_fails_does_not_hide_a_divergence(make_trainer, data, tmp_path):
    folder = tmp_path / "plots"
    folder.mkdir()
    x, y = data
    bad = numpy.full_like(x, numpy.nan)
    vanish = lambda fit: folder.rmdir() if fit.step == 1 and fit.state == "step" else None
    with (
        pytest.warns(UserWarning, match="could not be written"),
        pytest.raises(DivergenceError, match="became nan at step 2"),
    ):
        make_trainer().fit(
            [(x, y), (bad, y)], epochs=1, plot=folder / "training.png", callbacks=[vanish], **QUIET
        )
