"""The example of a custom layer finds both mistakes, and nothing in what is put right."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_layer.py"


def test_the_wrong_layer_is_reported_and_the_right_one_passes():
    finished = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True)
    wrong, right = finished.stdout.split("--- put right ---")
    assert "2 failed" in wrong.splitlines()[0]
    assert "something is computed over the batch" in wrong
    assert "'detach' stops the gradient (custom_layer.py, line " in wrong
    assert "check_layer Standardize(): " in right
    assert ", 0 failed, " in right
