"""The example learns a text that repeats itself, writes it, and says early what it cannot do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "character_model.py"
SMALL = ("--features", 32, "--context", 16, "--batch-size", 8)


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one two three four five\n" * 200)
    return path


@pytest.mark.parametrize("model", ["gpt", "lstm"])
def test_a_short_run_learns_the_text_and_writes_it(model, text, tmp_path):
    out = tmp_path / model
    options = ("--model", model, "--depth", 1, "--steps", 150, "--learning-rate", 0.01, "--length", 60)
    result = run("--data", text, *SMALL, *options, "--out", out)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["validation_loss"] < 0.5  # single characters' frequencies give 2.4
    assert "three" in (out / "sample.txt").read_text()
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "weights.safetensors").exists()


def test_pythons_documentation_is_the_default(tmp_path):
    result = run(*SMALL, "--depth", 1, "--steps", 1, "--length", 1, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[0].replace(",", "")) > 100_000


def test_bad_arguments_are_refused_before_training(text, tmp_path):
    assert "nowhere" in run("--data", tmp_path / "nowhere", "--out", tmp_path).stderr
    assert run("--steps", 0, "--out", tmp_path).returncode == 2
    result = run("--data", text, "--context", 1000, "--out", tmp_path)
    assert result.returncode == 1
    assert "too few for a context of 1000" in result.stderr
