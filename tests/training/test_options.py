import inspect
from dataclasses import fields

import numpy
import pytest

import minidl as dl
from minidl.training.options import FitArguments, Options
from tests.training.helpers import QUIET, assert_same_weights


def test_fit_has_the_signature_of_its_arguments():
    parameters = inspect.signature(dl.Trainer.fit).parameters
    assert [*parameters][:3] == ["self", "x", "y"]
    assert set(parameters) - {"self"} == {field.name for field in fields(FitArguments)}
    for field in fields(Options):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", [field.name for field in fields(FitArguments)])
def test_fit_describes_every_argument(name):
    described = inspect.getdoc(dl.Trainer.fit).partition("Parameters\n")[2].partition("Raises\n")[0]
    names = [part for line in described.splitlines() for part in line.partition(" : ")[0].split(", ")]
    assert name in names


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, r"Trainer\.fit\(\) missing a required argument: 'x'"),
        ((1,), {"epoch": 3}, r"Trainer\.fit\(\) has no argument 'epoch': did you mean 'epochs'\?"),
        ((1, 2, 3), {}, r"Trainer\.fit\(\) takes no more than x, y by position; got 3 arguments"),
    ],
)
def test_wrong_arguments_name_the_method(make_trainer, arguments, options, message):
    with pytest.raises(TypeError, match=message):
        make_trainer().fit(*arguments, **options)


def test_to_dict_holds_the_options_and_not_the_data(tmp_path):
    content = FitArguments([1.0], [2.0], plot=tmp_path / "a.png", callbacks=[print]).to_dict()
    assert content.keys() == {field.name for field in fields(Options)}
    assert content["plot"] == str(tmp_path / "a.png")


def test_data_may_be_named(make_trainer, data):
    x, y = data
    history = make_trainer().fit(y=y, x=x, epochs=1, batch_size=48, verbose=False)
    assert len(history) == 2


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
        ({"validation_data": (1, 2, 3, 4)}, "must be a pair"),
    ],
)
def test_bad_options_are_refused_before_training(make_trainer, data, options, message):
    trainer = make_trainer()
    before = trainer.network.state_dict()
    with pytest.raises(ValueError, match=message):
        trainer.fit(*data, **options, **QUIET)
    for name, array in trainer.network.state_dict().items():
        numpy.testing.assert_array_equal(before[name], array)


@pytest.mark.parametrize("convert", [numpy.int64, numpy.int32, numpy.uint8, numpy.array])
def test_numbers_of_numpy_are_taken(make_trainer, data, tmp_path, convert):
    network = make_trainer().network
    optimizer = dl.Adam(network.parameters(), learning_rate=numpy.float64(0.001), l2=numpy.float64(1e-4))
    trainer = dl.Trainer(network, dl.mean_squared_error, optimizer, device="cpu", seed=convert(0))
    names = ("epochs", "validation_frequency", "checkpoint_frequency", "keep_checkpoints")
    history = trainer.fit(
        *data,
        batch_size=convert(32),
        drop_last=numpy.bool_(True),
        validation_data=data,
        validation_patience=numpy.float32(9),
        checkpoint_folder=tmp_path,
        **{name: convert(2) for name in names},
        **QUIET,
    )
    assert history.validation["step"] == [2, 4, 6]
    assert dl.History.from_json(_written(history, tmp_path)).settings == history.settings
    assert {x.dtype for x in network.parameters()} == {numpy.dtype("float32")}
    expected = make_trainer()
    expected.fit(*data, epochs=2, batch_size=32, validation_data=data, validation_frequency=2, **QUIET)
    assert_same_weights(trainer, expected)


def _written(history, folder):
    history.to_json(folder / "history.json")
    return folder / "history.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("picture.xyz", "'.xyz' is not a format of matplotlib; use one of .*png"),
        ("", "is a folder; name a file in it"),
        ("nowhere/picture.png", "there is no folder"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_first(make_trainer, data, tmp_path, name, message):
    steps = []
    with pytest.raises(ValueError, match=message):
        make_trainer().fit(*data, plot=tmp_path / name, callbacks=[steps.append], **QUIET)
    assert steps == []
