"""python -m minidl.checks."""

import json
import subprocess
import sys

import pytest

from minidl.checks.__main__ import main

SOURCE = """
import minidl as dl

def good():
    return dl.Dense(3, 2, seed=0)

def pair():
    return dl.ReLU(), (4,)

def several():
    return [(dl.Tanh(), (2,)), (dl.Dense(2, 2, seed=0), (2,))]

class Bad(dl.Layer):
    def __init__(self):
        self.gain = dl.Parameter(dl.ones(3))
    def forward(self, x):
        return x * self.gain.detach()

bad = Bad()
text = "no layer"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "layers_to_check.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "layers_to_check"
    sys.modules.pop("layers_to_check", None)


def test_layers_pass_and_fail(module, capsys):
    assert main([f"{module}:good", "--shape", "3"]) == 0
    assert main([f"{module}:pair", f"{module}:several"]) == 0
    assert main([f"{module}:bad", "--shape", "3"]) == 1
    assert "no gradient reaches gain" in capsys.readouterr().out
    assert main([f"{module}:bad", "--shape", "3", "--skip", "gradients=it is fixed"]) == 0


def test_reports_as_json(module, tmp_path):
    main([f"{module}:bad", "--shape", "3", "--json", "report.json"])
    (report,) = json.loads((tmp_path / "report.json").read_text())
    assert not report["passed"]
    assert {row["test"] for row in report["rows"] if row["outcome"] == "failed"} == {"gradients exist"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers_to_check"], "should be module:factory"),
        (["layers_to_check:good"], "give the shape of one observation"),
        (["layers_to_check:nothing"], "has no attribute 'nothing'"),
        (["layers_to_check:text"], "a pair (layer, input_shape) is needed"),
        (["no_such_module:f"], "No module named"),
    ],
)
def test_what_cannot_be_checked(module, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_as_a_module(module):
    command = [sys.executable, "-m", "minidl.checks", f"{module}:pair"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("check_layer ReLU(): ")
