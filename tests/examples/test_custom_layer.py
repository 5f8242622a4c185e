"""The example of a custom layer finds both mistakes, and nothing in the corrected layer."""

import re
import subprocess
import sys
from pathlib import Path

import minidl as dl

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "checking.md"
EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_layer.py"
ON_A_GPU_TOO = {"GPU"} if dl.devices.gpu_problem() is None else set()  # a wrong gradient is wrong there too


def test_the_wrong_layer_is_reported_and_the_right_one_passes():
    finished = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True)
    wrong, right = finished.stdout.split("--- corrected ---")
    assert f"{2 + len(ON_A_GPU_TOO)} failed" in wrong.splitlines()[0]
    assert "something is computed over the batch" in wrong
    assert "'detach' stops the gradient (custom_layer.py, line " in wrong
    assert "check_layer Standardize(): " in right
    assert ", 0 failed, " in right


def test_the_page_shows_the_layer_and_what_is_reported():
    (code,) = re.findall(r"```python\n(class Standardize.*?)```", PAGE.read_text(), re.DOTALL)
    namespace = {"dl": dl}
    exec(code, namespace)
    report = dl.check_layer(namespace["Standardize"](6), (6,))
    shown = {"observations are independent in evaluation", "gradients agree with differences"}
    assert {row.test for row in report.failures} == shown | ON_A_GPU_TOO
    numbers = (
        "at (1, 2), backward gives 0.16445523, the difference quotient is 0.97727353: relative error 0.83"
    )
    assert numbers in str(report)
    assert numbers in PAGE.read_text()
