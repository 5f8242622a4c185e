"""Programs on several processes, started by mpiexec: none may hang, and what they print is returned."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: What is next to Python comes first: the wheel of MPICH puts mpiexec there.
_BESIDE = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(_BESIDE) if _BESIDE.exists() else shutil.which("mpiexec")

try:
    import mpi4py  # noqa: F401

    _problem = None if MPIEXEC else "there is no mpiexec: pip install 'minidl[mpi]'"
except ImportError:
    _problem = "mpi4py is not installed: pip install 'minidl[mpi]'"

needs_mpi = pytest.mark.skipif(_problem is not None, reason=str(_problem))

#: Seconds after which a program hangs. Machines that run tests are busy.
PATIENCE = 240


def start(processes, program, *arguments, module=()):
    """Start a program on several processes; return the Popen of mpiexec, a process group of its own."""
    command = [MPIEXEC, "-n", str(processes), sys.executable, *module, str(program), *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
    )


def finish(process, patience=PATIENCE):
    """Wait for the end of a program; return its exit status, what it printed, and its errors."""
    try:
        out, errors = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        pytest.fail(f"the processes hang\n{out}\n{errors}")
    return process.returncode, out, errors


def run(processes, program, *arguments, module=()):
    """Run a program that must not fail; return what it printed."""
    status, out, errors = finish(start(processes, program, *arguments, module=module))
    assert status == 0, f"{out}\n{errors}"
    return out
