import inspect
from dataclasses import fields

import pytest

import minidl as dl
from minidl.training.options import FitArguments, Options


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
        ((1,), {"epoch": 3}, r"Trainer\.fit\(\) got an unexpected keyword argument 'epoch'"),
        ((1, 2, 3), {}, r"Trainer\.fit\(\) too many positional arguments"),
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
