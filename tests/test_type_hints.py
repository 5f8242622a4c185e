"""A type checker sees what a user's script may and may not do."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="types are checked with the extra `dev`")
ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import numpy
from typing_extensions import assert_type

import minidl as dl

network = dl.Network([dl.Dense(2, 3), dl.ReLU()])
x = dl.tensor([[1.0, 2.0]])
assert_type(x + 1, dl.Tensor)
assert_type(2 * x, dl.Tensor)
assert_type(x @ x.T, dl.Tensor)
assert_type(x == 1, dl.Tensor)
assert_type(x[0], dl.Tensor)
assert_type(x.sum(axis=0), dl.Tensor)
assert_type(dl.relu(x), dl.Tensor)
assert_type(dl.softmax(x, axis=-1), dl.Tensor)
assert_type(dl.mean_squared_error(x, x), dl.Tensor)
assert_type(network(x), dl.Tensor)
optimizer = dl.Adam(network.parameters(), learning_rate=1e-3, l2=1e-4, clip_norm=1.0)
trainer = dl.Trainer(network, dl.huber, optimizer, metrics=[dl.rmse])
history = trainer.fit(numpy.ones((4, 2)), numpy.ones((4, 3)), epochs=3)
assert_type(history, dl.History)


@dl.compile
def step(x: dl.Tensor) -> dl.Tensor:
    loss: dl.Tensor = network(x).sum()
    loss.backward()
    optimizer.step()
    return loss


assert_type(step(x), dl.Tensor)
assert_type(step(numpy.ones((1, 2))), dl.Tensor)  # arrays become Tensors


@dl.compile(kernels="numpy", threads=1)
def both(x: dl.Tensor) -> tuple[dl.Tensor, dl.Tensor]:
    return x, x


assert_type(both(x), tuple[dl.Tensor, dl.Tensor])
dl.Dense(None, 3), dl.LSTM(in_features=None, hidden_features=3), dl.Conv2D(1, 2, (3, 3), padding="same")
dl.Dense(in_features=2, out_features=3, seed=0, weight_initializer="zeros"), dl.BatchNorm(3, momentum=0.2)
print(len(step.programs), step.kernels)
"""
WRONG = [
    ("dl.Adam(network.parameters(), lr=1e-3)", 'Unexpected keyword argument "lr"'),
    ("dl.Dense(2, 3, units=4)", 'Unexpected keyword argument "units"'),
    ("dl.Dense('2', 3)", 'incompatible type "str"; expected "int | None"'),
    ("dl.Dense(2)", 'Missing positional argument "out_features"'),
    ("dl.Conv2D(1, 2, kernel=3)", 'Unexpected keyword argument "kernel"'),
    ("dl.LSTM(2, 3, batch_first=True)", 'Unexpected keyword argument "batch_first"'),
    ("dl.BatchNorm(3, eps=1e-3)", 'Unexpected keyword argument "eps"'),
    ("dl.compile(3)", "No overload variant"),
    ("dl.compile(step, kernel='c')", "No overload variant"),
    ("step(x).fit()", '"Tensor" has no attribute "fit"'),
    ("dl.Dropout(p=0.5)", 'Unexpected keyword argument "p"'),
    ("dl.sum(x, dim=0)", 'Unexpected keyword argument "dim"'),
    ("x.sum(keepdim=True)", 'Unexpected keyword argument "keepdim"'),
    ("trainer.fit(1, MaxEpochs=3)", 'Unexpected keyword argument "MaxEpochs"'),
    ("trainer.fit(1, epochs='3')", 'incompatible type "str"; expected "int"'),
    ("x.cuda()", '"Tensor" has no attribute "cuda"'),
    ("network.fit()", '"Network" has no attribute "fit"'),
]


def mypy(folder, path="", python=sys.executable):
    """Run mypy on script.py in a folder, where minidl is found on a path or in the packages of a Python."""
    options = [
        "--strict",
        "--ignore-missing-imports",
        "--no-error-summary",
        "--python-executable",
        str(python),
    ]
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--cache-dir", str(folder / "cache"), "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""} | {"MYPYPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.stdout + process.stderr


def write_script(folder):
    """Write the script with the wrong lines after it; return its lines."""
    lines = [*SCRIPT.splitlines(), *(line for line, _ in WRONG)]
    (folder / "script.py").write_text("\n".join(lines))
    return lines


def errors_of(output):
    """Return mypy's errors in the script, (line, what it says)."""
    found = [line.split(":", 2) for line in output.splitlines() if line.startswith("script.py:")]
    return [(int(number), text) for _, number, text in found]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    lines = write_script(folder)
    return lines, mypy(folder, ROOT)


def test_a_right_script_has_no_errors(answers):
    lines, output = answers
    first_wrong = len(lines) - len(WRONG) + 1
    assert [n for n, _ in errors_of(output) if n < first_wrong] == [], output


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_line_is_an_error(answers, number):
    lines, output = answers
    place = len(lines) - len(WRONG) + 1 + number
    assert any(WRONG[number][1] in text for n, text in errors_of(output) if n == place), output


@pytest.mark.slow
@pytest.mark.parametrize("build", ["build_wheel", "build_editable"])
def test_they_are_found_where_minidl_is_installed(build, tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="setuptools, which builds minidl, is too old")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "minidl", source / "minidl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "pytest_minidl.py"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta; build_meta.{build}({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = next(
        path for name in ("bin/python", "Scripts/python.exe") if (path := tmp_path / "venv" / name).exists()
    )
    (packages,) = [*tmp_path.glob("venv/lib/python*/site-packages"), *tmp_path.glob("venv/Lib/site-packages")]
    zipfile.ZipFile(wheel).extractall(packages)
    assert (packages / "minidl" / "py.typed").exists() == (build == "build_wheel")

    lines = write_script(tmp_path)
    output = mypy(tmp_path, python=python)
    wrong = range(len(lines) - len(WRONG) + 1, len(lines) + 1)
    assert sorted({n for n, _ in errors_of(output)}) == [*wrong], output
