"""The example's loss is the formula, it learns, writes its files, and refuses bad arguments."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import minidl as dl

EXAMPLE = Path(__file__).parents[2] / "examples" / "variational_autoencoder.py"


def example_module():
    specification = importlib.util.spec_from_file_location("variational_autoencoder", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


def test_the_divergence_is_that_of_normal_distributions(rng):
    """Compared with the mean of log(q / p) over draws from q."""
    mean, log_variance = rng.normal(size=(2, 1, 2))
    code = mean + numpy.exp(0.5 * log_variance) * rng.standard_normal((400_000, 2))
    log_q = -0.5 * (log_variance + (code - mean) ** 2 / numpy.exp(log_variance))
    expected = (log_q + 0.5 * code**2).sum(axis=1).mean()
    assert example_module().divergence(dl.tensor(mean), dl.tensor(log_variance)).item() == pytest.approx(
        expected, rel=0.02
    )


def test_codes_are_drawn_in_training_alone(rng):
    network = example_module().VariationalAutoencoder(3, 8, 0)
    x = rng.uniform(size=(4, 28, 28, 1)).astype("float32")
    assert not numpy.array_equal(network(x)[0].numpy(), network(x)[0].numpy())
    network.eval()
    numpy.testing.assert_array_equal(network(x)[0].numpy(), network(x)[0].numpy())
    assert network(x)[0].shape == x.shape


def test_a_short_run_learns_and_writes_every_file(idx_folder, tmp_path):
    sizes = ("--epochs", 8, "--batch-size", 40, "--hidden", 32, "--code-size", 4)
    result = run("--data", idx_folder, *sizes, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("a test image costs ")
    history = json.loads((tmp_path / "history.json").read_text())
    assert history["steps"]["loss"][-1] < 0.5 * history["steps"]["loss"][0]
    assert history["steps"]["code_cost"][-1] > 0.5  # the code says something
    for picture in ("images.png", "training.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert example_module().VariationalAutoencoder(4, 32, 1).load(tmp_path / "weights.safetensors")


def test_bad_arguments_are_refused_before_training(tmp_path):
    for arguments, message in (
        (("--code-size", 0), "at least 1"),
        (("--data", tmp_path / "no"), "no folder"),
    ):
        result = run(*arguments, "--out", tmp_path)
        assert result.returncode == 1
        assert message in result.stderr
