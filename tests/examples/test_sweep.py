"""The sweep trains every combination in processes, and writes a table and a picture."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"


def run(*arguments):
    return subprocess.run([sys.executable, SWEEP, *map(str, arguments)], capture_output=True, text=True)


def test_every_combination_is_in_the_table_best_first(idx_folder, tmp_path):
    result = run(
        *("--data", idx_folder, "--epochs", 1, "--workers", 2, "--out", tmp_path),
        *("--learning-rates", 0.001, 0.003, "--l2", 0, "--latent-sizes", 8, 16),
    )
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    combinations = {(float(row["learning_rate"]), int(row["latent_size"])) for row in rows}
    assert combinations == {(0.001, 8), (0.001, 16), (0.003, 8), (0.003, 16)}
    errors = [float(row["test_rmse"]) for row in rows]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.5
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len(result.stdout.splitlines()) == 1 + 1 + 4


def test_bad_data_is_refused_before_training(tmp_path):
    result = run("--data", tmp_path / "nowhere", "--out", tmp_path)
    assert result.returncode == 1
    assert "nowhere" in result.stderr


@pytest.mark.parametrize("option", ["--learning-rates", "--epochs"])
def test_bad_arguments_are_refused(option, tmp_path):
    assert run(option, "many", "--out", tmp_path).returncode == 2
