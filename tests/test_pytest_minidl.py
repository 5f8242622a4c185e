"""The pytest plugin, in a pytest of its own."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

SUITE = """
import minidl as dl

class Bad(dl.Layer):
    def __init__(self):
        self.gain = dl.Parameter(dl.ones(3))
    def forward(self, x):
        return x * self.gain.detach()

def test_bad(assert_layer):
    assert_layer(Bad(), (3,))

def test_good(assert_layer, check_gradients):
    assert_layer(dl.ReLU(), (3,))
    check_gradients(dl.sin, [1.0, 2.0])

def test_equal():
    assert dl.tensor([1.0, 2.0]) == dl.tensor([1.0, 3.0])
"""


def test_fixtures_and_failures(tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "2 failed, 1 passed" in done.stdout, done.stdout
    assert "- gradients exist" in done.stdout
    assert "no gradient reaches gain" in done.stdout
    assert "raise_if_failed" not in done.stdout


def test_it_imports_nothing_of_minidl():
    code = "import sys, pytest_minidl; assert not {'minidl', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_pytest_finds_it():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["entry-points"]["pytest11"] == {"minidl": "pytest_minidl"}
    assert "pytest_minidl" in settings["tool"]["setuptools"]["py-modules"]
