import json

import numpy
import pytest

import minidl as dl


def test_json_and_back(history, tmp_path):
    text = history.to_json(tmp_path / "history.json")
    assert json.loads((tmp_path / "history.json").read_text()) == json.loads(text)
    back = dl.History.from_json(tmp_path / "history.json")
    assert back.steps == history.steps
    assert back.validation == history.validation
    assert back.epochs == history.epochs
    assert (back.best_step, back.stop_reason) == (history.best_step, history.stop_reason)


def test_values_that_are_not_finite_become_null(tmp_path):
    history = dl.History(steps={"loss": [1.0, float("nan"), float("inf")]})
    assert json.loads(history.to_json(tmp_path / "h.json"))["steps"]["loss"] == [1.0, None, None]
    assert numpy.isnan(dl.History.from_json(tmp_path / "h.json").steps["loss"][1:]).all()


def test_tables_have_columns_of_one_length(history):
    content = history.to_dict()
    for table, length in (("steps", 18), ("epochs", 6), ("validation", 5)):
        assert {len(column) for column in content[table].values()} == {length}


def test_it_says_what_happened(history):
    assert repr(history).startswith("History(18 steps, loss ")
    assert "validation loss" in repr(history)
    assert repr(dl.History()) == "History(0 steps, )"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[1, 2]", "indices must be integers"),
        ("{}", "'steps' is missing"),
        ('{"steps": {"loss": [1, "x"]}, "epochs": {}, "validation": {}}', "'x' is not a number"),
        ('{"steps": {"loss": [1], "rmse": []}, "epochs": {}, "validation": {}}', "columns of steps have"),
        ('{"steps": {}, "epochs": {}, "validation": {}}', "'settings' is missing"),
        ("[" * 100_000, "recursion"),
        ("\udcff", "codec can't decode"),
    ],
)
def test_a_file_that_holds_no_history_is_named(tmp_path, content, message):
    path = tmp_path / "history.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=f"history.json holds no History: .*{message}"):
        dl.History.from_json(path)
