"""The example counts parameters as the paper does, learns a repetitive text, and goes on where it was."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

import minidl as dl

EXAMPLE = Path(__file__).parents[2] / "examples" / "tied_language_model.py"


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("tied_language_model", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    sys.modules["tied_language_model"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["tied_language_model"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one two three four five six\n" * 1000)
    return path


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variant", "count"),
    [("plain", 4_651_600), ("tied", 2_651_600), ("projection", 4_691_800), ("tied-projection", 2_691_800)],
)
def test_parameters_of_the_small_model_are_as_many_as_in_the_paper(example, variant, count):
    model = example.LanguageModel(10_000, example.SIZES["small"], variant, 0)
    assert model.parameter_count() == count
    assert (model.output_weight is model.embedding.weight) is variant.startswith("tied")


def test_the_loss_is_summed_over_the_window_and_the_projection_is_kept_small(example):
    settings = replace(example.SIZES["small"], units=4, steps=3, streams=2, clip=1e9)
    model = example.LanguageModel(7, settings, "projection", 0)
    optimizer = dl.SGD(model.parameters(), 1.0, momentum=0.0)
    before = {name: x.numpy() for name, x in model.named_parameters()}
    words = numpy.array([[0, 1, 2], [3, 4, 5]])
    model.reset_state(2)
    logits = model(words).reshape(-1, 7)
    probabilities = dl.softmax(logits).numpy()
    probabilities[numpy.arange(6), [1, 2, 3, 4, 5, 6]] -= 1
    model.reset_state(2)
    example.make_step(model, optimizer, settings)(words, words + 1)
    after = {name: x.numpy() for name, x in model.named_parameters()}
    change = before["output_bias"] - after["output_bias"]
    numpy.testing.assert_allclose(change, probabilities.sum(axis=0) / 2, rtol=1e-4, atol=1e-6)
    # Without the penalty, the gradient of P is what the products give; the penalty adds P / 6.5 / batch.
    h = model.recurrent
    model.reset_state(2)
    model.load_state_dict({name: dl.tensor(x) for name, x in {**model.state_dict(), **before}.items()})
    states = h(model.embedding(words)).numpy().reshape(6, 4)
    product = states.T @ (probabilities @ before["output_weight"]) / 2
    moved = before["projection.weight"] - after["projection.weight"]
    numpy.testing.assert_allclose(
        moved, product + before["projection.weight"] / 6.5 / 2, rtol=1e-3, atol=1e-6
    )


def test_a_short_run_learns_the_text_and_goes_on_where_it_was(text, tmp_path):
    options = ("--data", text, "--variant", "tied", "--units", 16)
    for epochs, folder in ((1, "parts"), (3, "parts"), (3, "whole")):
        result = run(*options, "--epochs", epochs, "--out", tmp_path / folder)
        assert result.returncode == 0, result.stderr
    parts, whole = (
        json.loads((tmp_path / folder / "metrics.json").read_text())["tied"] for folder in ("parts", "whole")
    )
    assert [entry["train"] for entry in parts] == [entry["train"] for entry in whole]
    assert [entry["valid"] for entry in parts] == [entry["valid"] for entry in whole]
    assert whole[-1]["test"] < 2  # the frequencies of single words give 7
    assert (tmp_path / "whole" / "perplexity.png").read_bytes().startswith(b"\x89PNG")
    refused = run(*options, "--epochs", 4, "--seed", 1, "--out", tmp_path / "whole")
    assert "other settings" in refused.stderr


def test_neighbours_are_the_rows_of_the_nearest_directions(example):
    vocabulary = dl.data.Vocabulary(["a", "b", "c", "d"])
    table = numpy.array([[1.0, 0.0], [5.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert example.neighbours(table, vocabulary, "a", count=2) == ["b", "c"]


def test_bad_arguments_are_refused_before_training(tmp_path):
    assert "nowhere" in run("--data", tmp_path / "nowhere", "--out", tmp_path).stderr
    assert run("--units", 0, "--out", tmp_path).returncode == 2
