"""The example learns to tell squares by where they are, writes its files, and refuses bad arguments."""

import gzip
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "classify_digits.py"


def example_module():
    specification = importlib.util.spec_from_file_location("classify_digits", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def run(*arguments):
    return subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def labelled_folder(tmp_path_factory):
    """Bright squares, labelled by where they are, in MNIST's files."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = numpy.random.default_rng(0)
    for name, count in (("train", 600), ("t10k", 200)):
        labels = rng.integers(0, 10, count).astype("uint8")
        images = numpy.zeros((count, 28, 28), "uint8")
        for image, label in zip(images, labels, strict=True):
            row, column = 6 * (label // 5) + 6, 5 * (label % 5) + 1
            image[row : row + 5, column : column + 4] = 200
        for kind, content in (
            ("images-idx3", struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()),
            ("labels-idx1", struct.pack(">II", 0x801, count) + labels.tobytes()),
        ):
            with gzip.open(folder / f"{name}-{kind}-ubyte.gz", "wb") as file:
                file.write(content)
    return folder


def test_the_network_is_the_one_of_the_benchmarks():
    network = example_module().build_network(0)
    shapes = [p.shape for name, p in network.named_parameters() if name.endswith("weight")]
    assert shapes == [(3, 3, 1, 8), (3, 3, 8, 16), (3, 3, 16, 32), (1568, 10)]
    assert network.parameter_count() == 21_634


def test_a_short_run_learns_and_writes_every_file(labelled_folder, tmp_path):
    result = run("--data", labelled_folder, "--epochs", 3, "--batch-size", 32, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1]
    assert last.startswith("test accuracy ")
    assert float(last.split()[-1].rstrip("%")) > 90
    for picture in ("predictions.png", "training.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    history = json.loads((tmp_path / "history.json").read_text())
    assert len(history["steps"]["loss"]) == 3 * (540 // 32)
    assert example_module().build_network(1).load(tmp_path / "weights.safetensors")


def test_bad_arguments_are_refused_before_training(idx_folder, labelled_folder, tmp_path):
    cases = [
        (("--data", tmp_path / "nowhere"), "nowhere"),
        (("--data", idx_folder), "no labels"),
        (("--data", labelled_folder, "--device", "tpu"), "unknown device 'tpu'"),
        (("--data", labelled_folder, "--epochs", 0), "--epochs"),
    ]
    for arguments, message in cases:
        result = run(*arguments, "--out", tmp_path)
        assert result.returncode == 1
        assert message in result.stderr
        assert "epoch 1" not in result.stdout
