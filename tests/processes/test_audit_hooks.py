"""Changes of functions are noticed, even where another hook of Python's audit events keeps minidl's out."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys

def keep_out(event, arguments):
    if event == "sys.addaudithook" and sys.argv[1] == "alone":
        raise RuntimeError("no other hook")

sys.addaudithook(keep_out)
import minidl as dl

def scale(x, by=2.0):
    return x * by

@dl.compile
def function(x):
    return scale(x)

x = dl.ones(1)
print(function(x).item())
scale.__defaults__ = (3.0,)
print(function(x).item())
scale.__code__ = (lambda x, by: x - by).__code__
print(function(x).item())
"""


@pytest.mark.parametrize("hooks", ["together", "alone"])
def test_changed_functions_are_noticed(hooks):
    command = [sys.executable, "-c", SCRIPT, hooks]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["2.0", "3.0", "-2.0"]
