"""The script of the recipe's table trains what is missing, and no more; its rows are those on the page."""

import json
import re
from pathlib import Path

import pytest

import minidl as dl
from docs import recipe
from examples import tied_autoencoder

PAGE = Path(__file__).parents[2] / "docs" / "better_than_pca.md"
SPREAD = re.compile(r" ± |\(one seed\)")  # in every row with figures of the script


@pytest.fixture
def trained(monkeypatch):
    """The command lines of the runs that were made: stand-ins, whose figures follow from the seed."""
    made = []

    def train(arguments):
        made.append(arguments)
        seed = tied_autoencoder.parse_arguments(arguments).seed
        return {"test_rmse": 0.03 + 0.001 * seed, "pca_test_rmse": 0.0305, "training_seconds": 1}

    monkeypatch.setattr(recipe, "train", train)
    return made


def test_what_is_there_is_not_trained_again(trained, tmp_path, capsys):
    options = ["--data", "digits", "a/folder", "--results", str(tmp_path / "new" / "results.json")]
    recipe.main([*options, "--rows", "no shifts", "--seeds", "0", "2"])
    assert len(trained) == 4
    assert capsys.readouterr().out.splitlines() == [
        "|  | digits | folder |",
        "| --- | ---: | ---: |",
        "| PCA, clipped | 0.0305 ± 0.0000 | 0.0305 ± 0.0000 |",
        "| no shifts | 0.0310 ± 0.0010 | 0.0310 ± 0.0010 |",
    ]
    recipe.main([*options, "--rows", "no shifts", "plain Adam", "--seeds", "0", "2"])
    assert len(trained) == 8
    assert all("adam" in arguments for arguments in trained[4:])


def test_show_trains_nothing_and_says_what_is_missing(trained, tmp_path, capsys):
    recipe.main(["--show", "--results", str(tmp_path / "results.json")])
    assert not trained
    assert capsys.readouterr().out.count("| - |") == 1 + len(recipe.ROWS)


def test_a_changed_recipe_is_trained_again(trained, tmp_path, monkeypatch):
    options = ["--results", str(tmp_path / "results.json"), "--rows", "the recipe", "--seeds", "0"]
    recipe.main(options)
    recipe.main(options)
    assert len(trained) == 1
    changed = tied_autoencoder.RECIPES["best"] | {"learning_rate": 0.5}
    monkeypatch.setitem(tied_autoencoder.RECIPES, "best", changed)
    recipe.main(options)
    assert len(trained) == 2


def test_every_row_changes_the_recipe():
    settings = [recipe.key_of(recipe.arguments_of(row, "digits", 0, None)) for row in recipe.ROWS]
    assert len(set(settings)) == len(recipe.ROWS)


def test_a_run_gives_the_examples_figures(monkeypatch, tmp_path):
    train, test = dl.data.digits(train=300, test=50)
    monkeypatch.setattr(tied_autoencoder, "load_images", lambda data: (train.images, test.images))
    arguments = recipe.arguments_of("the recipe", "digits", 1, 1)
    figures = recipe.train(arguments)
    tied_autoencoder.main([*arguments, "--device", "cpu", "--out", str(tmp_path)])
    expected = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["test_rmse"] == expected["test_rmse"]
    assert set(figures) == set(recipe.METRICS)


def test_the_rows_on_the_page_are_rows_of_the_script():
    lines = PAGE.read_text().splitlines()
    on_page = [line.split("|")[1].strip().strip("*`") for line in lines if SPREAD.search(line)]
    assert "the recipe" in on_page
    assert set(on_page) - {"PCA, clipped"} <= set(recipe.ROWS)
