"""A type checker sees what a user's script may and may not do."""

import os
import subprocess
import sys
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


step(x)
"""
WRONG = [
    ("dl.Adam(network.parameters(), lr=1e-3)", 'Unexpected keyword argument "lr"'),
    ("dl.Dropout(p=0.5)", 'Unexpected keyword argument "p"'),
    ("dl.sum(x, dim=0)", 'Unexpected keyword argument "dim"'),
    ("x.sum(keepdim=True)", 'Unexpected keyword argument "keepdim"'),
    ("trainer.fit(1, MaxEpochs=3)", 'Unexpected keyword argument "MaxEpochs"'),
    ("trainer.fit(1, epochs='3')", 'incompatible type "str"; expected "int"'),
    ("x.cuda()", '"Tensor" has no attribute "cuda"'),
    ("network.fit()", '"Network" has no attribute "fit"'),
]


def mypy(folder, path):
    options = [
        "--strict",
        "--ignore-missing-imports",
        "--no-error-summary",
        "--cache-dir",
        str(folder / "cache"),
    ]
    environment = {**os.environ, "MYPYPATH": "", "PYTHONPATH": ""} | ({"MYPYPATH": str(path)} if path else {})
    process = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("types")
    lines = [*SCRIPT.splitlines(), *(line for line, _ in WRONG)]
    (folder / "script.py").write_text("\n".join(lines))
    return lines, mypy(folder, ROOT)


def test_a_right_script_has_no_errors(answers):
    lines, output = answers
    first_wrong = len(lines) - len(WRONG) + 1
    numbers = [int(line.split(":")[1]) for line in output.splitlines() if line.startswith("script.py:")]
    assert [n for n in numbers if n < first_wrong] == [], output


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_line_is_an_error(answers, number):
    lines, output = answers
    place = len(lines) - len(WRONG) + 1 + number
    found = [line for line in output.splitlines() if line.startswith(f"script.py:{place}:")]
    assert any(WRONG[number][1] in line for line in found), output
