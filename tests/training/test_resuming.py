import math
import warnings

import numpy
import pytest

import minidl as dl
from minidl.errors import CheckpointError
from tests.training.helpers import QUIET, assert_same_weights

SETTINGS = [{"compile": False}, {"compile": {"kernels": "numpy"}}, {"compile": {"kernels": "c"}}]
OPTIONS = {"epochs": 3, "batch_size": 32, **QUIET}


def stop_at(step):
    return {"callbacks": [lambda fit: fit.step == step]}


@pytest.fixture
def interrupted(make_trainer, data, tmp_path):
    """Return a function that trains to a step, and then gives what resumes there: a function with options."""

    def interrupt(step=4, trainer=None, **options):
        folder = {"checkpoint_folder": tmp_path, "resume": True}
        make_trainer(**(trainer or {})).fit(*data, **OPTIONS | folder | stop_at(step) | options)

        def resume(trainer=None, x=data[0], y=data[1], **options):
            resumed = make_trainer(**(trainer or {}))
            return resumed, resumed.fit(x, y, **OPTIONS | folder | options)

        return resume

    return interrupt


def changes(history):
    return [note for entry in history.settings.get("resumed", []) for note in entry["changes"]]


def column_lengths(table):
    return {len(column) for column in table.values()}


@pytest.mark.parametrize("trainer", SETTINGS, ids=str)
def test_the_same_again_changes_nothing(interrupted, make_trainer, data, trainer):
    resumed, history = interrupted(trainer=trainer)(trainer=trainer)
    whole = make_trainer(**trainer)
    whole.fit(*data, **OPTIONS)
    assert_same_weights(whole, resumed)
    assert changes(history) == []


def test_without_validation_data_the_last_network_comes_back(interrupted, make_trainer, data):
    """And not the best one of before the resume."""
    resumed, history = interrupted(validation_data=data, validation_frequency=2)()
    whole = make_trainer()
    whole.fit(*data, **OPTIONS)
    assert_same_weights(whole, resumed)
    assert history.returned == "last"
    assert "validation data: some before, now none" in changes(history)
    assert history.validation["step"] == [2, 4]  # what was seen stays


def test_with_validation_data_for_the_first_time(interrupted, data):
    resumed, history = interrupted()(validation_data=data, validation_frequency=2)
    assert history.validation["step"] == [6, 8, 9]
    assert history.returned == "best"
    figures = resumed.evaluate(*data)
    assert figures["loss"] == pytest.approx(min(history.validation["loss"]), rel=1e-6)


@pytest.mark.parametrize("trainer", SETTINGS, ids=str)
def test_a_new_learning_rate_wins(interrupted, trainer):
    sgd = lambda rate: {"optimizer": lambda n: dl.SGD(n.parameters(), rate), **trainer}
    _, history = interrupted(trainer=sgd(0.1))(trainer=sgd(0.02))
    assert history.steps["learning_rate"] == pytest.approx([0.1] * 4 + [0.02] * 5)
    assert "learning_rate was 0.1, now it is 0.02" in changes(history)


def test_a_learning_rate_that_a_callback_changed_is_resumed(interrupted):
    """Nobody asks for another one: the training goes on with that of the checkpoint."""

    def lower(fit):
        if fit.step == 2 and fit.state == "step":
            fit.trainer.optimizer.learning_rate = 0.01
        return fit.step == 4

    sgd = {"optimizer": lambda n: dl.SGD(n.parameters(), 0.1)}
    _, history = interrupted(trainer=sgd, callbacks=[lower])(trainer=sgd)
    assert history.steps["learning_rate"] == pytest.approx([0.1] * 2 + [0.01] * 7)
    assert changes(history) == []


@pytest.mark.parametrize(
    ("before", "now", "rates"),
    [
        (0.1, dl.schedules.Step(0.2, 5), [0.1] * 4 + [0.2] + [0.02] * 4),
        (dl.schedules.Step(0.2, 5), 0.3, [0.2] * 4 + [0.3] * 5),
        (dl.schedules.Step(0.2, 5), dl.schedules.Step(0.1, 5), [0.2] * 4 + [0.1] + [0.01] * 4),
        (lambda step: 0.5 / (step + 1), dl.schedules.Constant(0.1), [0.5, 0.25, 0.5 / 3, 0.125] + [0.1] * 5),
    ],
)
def test_a_new_schedule_wins(interrupted, before, now, rates):
    sgd = lambda rate: {"optimizer": lambda n: dl.SGD(n.parameters(), rate)}
    _, history = interrupted(trainer=sgd(before))(trainer=sgd(now))
    assert history.steps["learning_rate"] == pytest.approx(rates)
    assert changes(history)[0].startswith("learning_rate was ")


def test_the_same_schedule_is_no_change(interrupted):
    schedule = {"optimizer": lambda n: dl.SGD(n.parameters(), lambda step: 0.5 / (step + 1))}
    assert changes(interrupted(trainer=schedule)(trainer=schedule)[1]) == []


def test_other_options_of_the_optimizer_win(interrupted):
    adam = lambda **options: {"optimizer": lambda n: dl.Adam(n.parameters(), 0.01, **options)}
    resumed, history = interrupted(trainer=adam(l2=0.1))(trainer=adam(beta1=0.5, clip_norm=1.0))
    assert resumed.optimizer.beta1 == 0.5
    assert {"optimizer.l2 was 0.1, now it is 0.0", "optimizer.beta1 was 0.9, now it is 0.5"} < set(
        changes(history)
    )
    assert "optimizer.clip_norm was None, now it is 1.0" in changes(history)


def test_factors_of_parameters_win(interrupted, make_trainer, data, tmp_path):
    interrupted()
    trainer = make_trainer()
    trainer.network[0].weight.learning_rate_factor = 0.0
    frozen = []
    history = trainer.fit(
        *data,
        **OPTIONS,
        checkpoint_folder=tmp_path,
        resume=True,
        callbacks=[lambda fit: frozen.append(fit.network[0].weight.numpy()) and None],
    )
    numpy.testing.assert_array_equal(frozen[0], frozen[-1])
    assert changes(history) == ["factors of Parameters: other ones of 0.weight"]


@pytest.mark.parametrize(("epochs", "steps"), [(5, 15), (2, 6), (1, 4)])
def test_other_epochs(interrupted, make_trainer, data, epochs, steps):
    resumed, history = interrupted()(epochs=epochs)
    assert len(history) == steps
    whole = make_trainer()
    whole.fit(*data, **OPTIONS | {"epochs": 9} | stop_at(steps))
    assert_same_weights(whole, resumed)


def test_a_training_that_patience_ended_stays_ended(interrupted, data):
    x, y = data
    options = {"validation_data": (x, -y), "validation_frequency": 1, "validation_patience": 2, "epochs": 9}
    fast = {"optimizer": lambda n: dl.SGD(n.parameters(), 0.1)}
    resume = interrupted(trainer=fast, step=99, **options)
    _, history = resume(trainer=fast, **options)
    assert history.stop_reason == "no better validation loss 2 times in a row"
    steps = len(history)
    assert steps < 27
    _, longer = resume(trainer=fast, **options | {"validation_patience": 5})
    assert len(longer) == steps + 3


@pytest.mark.parametrize(
    "now",
    [
        {"batch_size": 16},
        {"shuffle": "never"},
        {"steps_per_epoch": 2},
        {"batch_size": 20, "drop_last": False},
    ],
    ids=str,
)
def test_other_mini_batches_begin_the_epoch_again(interrupted, data, now):
    """The fourth step was the first of the second epoch: what it has seen comes again."""
    _, history = interrupted()(**now)
    steps = now.get("steps_per_epoch") or math.ceil(96 / now.get("batch_size", 32))
    assert history.epochs["epoch"] == [1, 2, 3]
    assert history.epochs["step"] == [3, 4 + steps, 4 + 2 * steps]
    assert "epoch 2 begins again, as its mini-batches are others now" in changes(history)
    mean = numpy.average(history.steps["loss"][4 : 4 + steps])
    if 96 % now.get("batch_size", 32) == 0:
        assert history.epochs["loss"][1] == pytest.approx(mean)


def test_between_epochs_other_mini_batches_are_no_matter(interrupted):
    _, history = interrupted(step=99, epochs=2)(batch_size=48)
    assert history.epochs["step"] == [3, 6, 8]
    assert changes(history) == ["batch_size was 32, now it is 48", "epochs was 2, now it is 3"]


def test_another_seed_wins_if_it_is_given(interrupted):
    resume = interrupted(trainer={"seed": 1})
    assert resume(trainer={"seed": None}, **stop_at(5))[1].settings["seed"] == 1
    _, history = resume(trainer={"seed": 2})
    assert history.settings["seed"] == 2
    assert "seed was 1, now it is 2" in changes(history)


def test_other_data_of_the_same_size_are_noticed(interrupted, data):
    x, y = data
    resume = interrupted()
    _, history = resume(y=y + (numpy.arange(96) == 95)[:, None], **stop_at(5))
    assert "training data have other values" in changes(history)
    _, history = resume(x=x[:64], y=y[:64])
    assert "observations was 96, now it is 64" in changes(history)


@pytest.mark.parametrize("change", ["objective", "loss", "validation data"])
def test_what_is_judged_by_something_else_is_looked_for_anew(
    interrupted, make_trainer, data, tmp_path, change
):
    """The best loss so far says nothing about the best of another figure."""
    x, y = data
    best = {"metrics": [dl.mae, dl.rmse, dl.r_squared]}
    options = {"validation_data": (x, y), "validation_frequency": 2}
    interrupted(trainer=best, **options)
    trainer = make_trainer(**best)
    if change == "loss":
        trainer.loss = dl.mean_absolute_error
    if change == "validation data":
        options["validation_data"] = (x, 10 * y)
    if change == "objective":
        options["objective"] = "r_squared"
    history = trainer.fit(*data, **OPTIONS, checkpoint_folder=tmp_path, resume=True, **options)
    assert history.best_step in (6, 8, 9)
    assert any(note.startswith(change) for note in changes(history))
    assert "the best network is looked for anew, as it was judged by something else" in changes(history)
    after = history.validation["loss" if change != "objective" else "r_squared"][2:]
    best_value = max(after) if change == "objective" else min(after)
    assert history.validation["step"][2:][after.index(best_value)] == history.best_step


@pytest.mark.parametrize("trainer", SETTINGS, ids=str)
def test_other_metrics_leave_tables_of_one_length(interrupted, data, trainer):
    options = {"validation_data": data, "validation_frequency": 2}
    resume = interrupted(trainer={**trainer, "metrics": [dl.rmse]}, **options)
    _, history = resume(trainer={**trainer, "metrics": [dl.mae]}, **options)
    assert column_lengths(history.steps) == {9}
    assert column_lengths(history.epochs) == {3}
    assert column_lengths(history.validation) == {5}
    for table in (history.steps, history.epochs, history.validation):
        numbers = numpy.isfinite(table["rmse"]) ^ numpy.isfinite(table["mae"])
        assert numbers.tolist() == [True] * len(numbers) or table is history.epochs
    assert numpy.isnan(history.epochs["mae"]).tolist() == [True, True, False]  # the second one only in part
    assert history.epochs["mae"][2] == pytest.approx(numpy.mean(history.steps["mae"][6:]), rel=1e-5)
    assert numpy.isfinite(history.epochs["loss"]).all()
    assert "metrics was ['rmse'], now it is ['mae']" in changes(history)


def test_another_loss_has_no_average_over_an_epoch_of_both(interrupted, make_trainer, data, tmp_path):
    interrupted()
    trainer = make_trainer()
    trainer.loss = dl.mean_absolute_error
    history = trainer.fit(*data, **OPTIONS, checkpoint_folder=tmp_path, resume=True)
    assert numpy.isnan(history.epochs["loss"]).tolist() == [False, True, False]
    assert history.epochs["rmse"][1] == pytest.approx(
        math.sqrt(numpy.mean(numpy.square(history.steps["rmse"][3:6]))), rel=1e-5
    )


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"threads": 2}, {"threads": 1}, "threads was 2, now it is 1"),
        ({"kernels": "c"}, {"kernels": "numpy"}, "kernels was 'c', now it is 'numpy'"),
        ({"kernels": "numpy"}, False, "compiled was True, now it is False"),
    ],
)
def test_other_threads_and_kernels_are_said(interrupted, before, now, message):
    resume = interrupted(trainer={"compile": before})
    with pytest.warns(UserWarning, match=f"{message}.*the same steps may be rounded differently"):
        _, history = resume(trainer={"compile": now})
    assert any(message in note for note in changes(history))


def test_what_has_changed_is_printed(interrupted, capsys):
    interrupted()(batch_size=16, verbose=True)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "resumed from checkpoint-000004.safetensors",
        "batch_size was 32, now it is 16",
        "epoch 2 begins again, as its mini-batches are others now",
    ]


def test_a_checkpoint_without_what_is_needed_is_named(interrupted, tmp_path):
    from minidl.training import checkpoints

    resume = interrupted()
    path = next(tmp_path.glob("checkpoint-*"))
    checkpoint = checkpoints.read(path)
    del checkpoint.values["identity"]
    checkpoints.write(path, checkpoint)
    with pytest.raises(
        CheckpointError, match=r"checkpoint-000004\.safetensors does not fit this training: .*identity"
    ):
        resume()


class Count(dl.Callback):
    def __init__(self):
        self.count = 0

    def step(self, run):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_callbacks_go_on_with_their_state(interrupted):
    resume = interrupted(callbacks=[Count(), lambda fit: fit.step == 4])
    count = Count()
    resume(callbacks=[count, lambda fit: fit.step == 6])
    assert count.count == 6
    with warnings.catch_warnings():
        _, history = resume()
    assert changes(history) == ["there is no Count now, whose state the checkpoint holds"]
