"""Python in a browser starts neither threads nor processes: one thread and NumPy's kernels do it all.

The process of these tests only resembles Pyodide's; docs/guides/browser.md says what has not been tested.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Pyodide's Python is a POSIX one")
ROOT = Path(__file__).parents[2]


def run(*arguments, **settings):
    command = [sys.executable, "-W", "error", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": "", "OPENBLAS_NUM_THREADS": "1"} | settings
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_training_needs_no_threads_no_processes_and_no_compiler(tmp_path):
    import matplotlib.font_manager  # noqa: F401  # keeps its list of fonts; some versions start a thread for it

    ended = run(
        "-m",
        "tests.processes.training_in_a_browser",
        str(tmp_path),
        MPLBACKEND="agg",
        MINIDL_CACHE=str(tmp_path / "cache"),
    )
    assert ended.returncode == 0, ended.stderr
    report = dict(line.split(maxsplit=1) for line in ended.stdout.splitlines()[-5:])
    assert report["NumPy"].endswith("by numpy.matmul: no BLAS was found that can be called directly")
    assert report["threads"] == "1: this system starts no others"
    assert report["kernels"] == "NumPy: this system runs no C compiler"
    assert not (tmp_path / "cache" / "kernels").exists()
    for name in ("run.png", "network.png", "program.png", "weights.safetensors"):
        assert (tmp_path / name).stat().st_size > 1000


def test_the_browser_of_these_tests_starts_nothing():
    ended = run(
        "-c",
        "from tests.processes import like_a_browser; like_a_browser.begin()\n"
        "import subprocess, threading, _thread\n"
        "for begin in (threading.Thread(target=print).start, lambda: _thread.start_new_thread(print, ()),\n"
        "              lambda: subprocess.run(['true']), lambda: __import__('resource')):\n"
        "    try: begin()\n"
        "    except (RuntimeError, OSError, ImportError) as error: print(type(error).__name__)\n",
    )
    assert ended.stdout.split() == ["RuntimeError"] * 2 + ["OSError", "ModuleNotFoundError"], ended.stderr
