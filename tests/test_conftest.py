"""The fixture that every test runs under sees what a test leaves behind."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LEAKS = """
import os, signal, threading, time, numpy, threadpoolctl
from minidl.mode import mode

def test_nothing():
    pass

def test_umask():
    os.umask(0o011)

def test_numpy_errors():
    numpy.seterr(all="ignore")

def test_signal_handler():
    signal.signal(signal.SIGTERM, lambda *_: None)

def test_environment():
    os.environ["LEFT_BY_A_TEST"] = "1"

def test_thread():
    threading.Thread(target=time.sleep, args=(3,)).start()

def test_mode():
    mode.grad_enabled = False

def test_folder():
    os.chdir("/")

def test_blas():
    for library in threadpoolctl.ThreadpoolController().lib_controllers:
        library.set_num_threads(library.num_threads + 1)
"""


def test_what_a_test_leaves_behind_is_seen(tmp_path):
    path = tmp_path / "test_leaks.py"
    path.write_text(LEAKS)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-rE", "-q"]
    command = [sys.executable, "-m", "pytest", *options, "--confcutdir", str(tmp_path), str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    failed = {line.split("::")[1].split()[0] for line in run.stdout.splitlines() if line.startswith("ERROR")}
    names = {line.split()[1].removesuffix("():") for line in LEAKS.splitlines() if line.startswith("def ")}
    assert failed == names - {"test_nothing"}, run.stdout
