"""Whatever happens to one process, all end soon; and a training goes on where it was, on any number of them.

A short campaign belongs to the tests. A longer one is run by hand, from the folder of the project:

    PYTHONPATH=. python tests/distributed/test_failures.py 20
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.distributed import campaign
from tests.distributed.mpi import PATIENCE, finish, needs_mpi, start

pytestmark = needs_mpi

#: So many seconds after the end of one process, all have ended. Machines that run tests are busy.
LIMIT = 10


def begin(processes, folder, *arguments):
    for old in folder.glob("rank-*.pid"):
        old.unlink()
    return start(processes, campaign.__file__, folder, *arguments)


def wait_for_step(process, number):
    """Read what rank 0 prints until it has made a step."""
    for line in process.stdout:
        if line == f"step {number}\n":
            return
    pytest.fail(f"no step {number}: {process.stderr.read()}")


def pids(folder):
    return {int(path.stem[5:]): int(path.read_text()) for path in folder.glob("rank-*.pid")}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def final_line(process):
    status, out, errors = finish(process)
    assert status == 0, errors
    return out.splitlines()[-1]


def kill(folder, processes, draw, steps):
    """Start a training, kill a random process at a random moment; return how long all others lived."""
    process = begin(processes, folder, steps)
    seen = 0
    target = draw.randrange(1, 8)
    for line in process.stdout:
        seen += line.startswith("step ")
        if seen == target:
            break
    else:
        process.wait()
        return None  # it was complete
    time.sleep(draw.uniform(0, 0.02))
    everybody = pids(folder)
    os.kill(everybody[draw.randrange(processes)], signal.SIGKILL)
    killed = time.monotonic()
    status, _, _ = finish(process, PATIENCE)
    while any(map(is_alive, everybody.values())) and time.monotonic() < killed + PATIENCE:
        time.sleep(0.01)
    assert status != 0
    return time.monotonic() - killed


def run_campaign(kills, folder, steps, seed=0):
    """Kill trainings, each of which goes on where the one before was, on 2 to 4 processes; return times."""
    draw, times = random.Random(seed), []
    folder.mkdir(exist_ok=True)
    while len(times) < kills:
        seconds = kill(folder, draw.choice([2, 3, 4]), draw, steps)
        if seconds is None:
            break
        times.append(seconds)
    return times


def test_a_killed_process_ends_all_and_the_training_goes_on_bit_for_bit(tmp_path):
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    expected = final_line(begin(1, undisturbed, 30))
    assert "all epochs completed, 30 steps" in expected
    folder = tmp_path / "killed"
    times = run_campaign(3, folder, 30)
    assert len(times) == 3
    assert max(times) < LIMIT
    assert final_line(begin(2, folder, 30)) == expected


def test_an_error_of_one_process_ends_all_with_its_traceback(tmp_path):
    process = begin(3, tmp_path, 30, 7)
    wait_for_step(process, 6)
    started = time.monotonic()
    status, _, errors = finish(process)
    assert status != 0
    assert "rank 1 of 3 failed" in errors
    assert "RuntimeError: planted" in errors
    assert time.monotonic() - started < LIMIT
    assert not any(map(is_alive, pids(tmp_path).values()))


def test_ctrl_c_at_any_process_stops_all_after_the_same_step(tmp_path):
    process = begin(3, tmp_path, 2000)
    wait_for_step(process, 5)
    os.kill(pids(tmp_path)[2], signal.SIGINT)
    status, out, errors = finish(process)
    assert status == 0, errors
    assert "stopped by Ctrl-C, " in out
    assert sorted((tmp_path / "checkpoints").iterdir())  # everything is written


def test_ctrl_c_in_the_terminal_stops_all(tmp_path):
    process = begin(2, tmp_path, 2000)
    wait_for_step(process, 5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; mpiexec ends its processes
    finish(process)
    assert not any(map(is_alive, pids(tmp_path).values()))


def test_a_process_that_leaves_is_not_waited_for(tmp_path):
    program = tmp_path / "leaves.py"
    program.write_text(
        "import sys\n"
        "import numpy\n"
        "import minidl as dl\n"
        "ranks = dl.distributed.communicator()\n"
        "ranks.barrier()\n"
        "if ranks.rank == 1:\n"
        "    sys.exit('no more')\n"
        "ranks.sum(numpy.ones(3))\n"
    )
    started = time.monotonic()
    status, _, errors = finish(start(2, program))
    assert status != 0
    assert "no more" in errors
    assert "rank 1 has ended: all processes must make the same steps" in errors
    assert time.monotonic() - started < 60


if __name__ == "__main__":
    import tempfile

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "undisturbed"
        whole.mkdir()
        total = 8 * count
        lines = final_line(begin(1, whole, total))
        seconds = run_campaign(count, Path(name) / "killed", total, seed=1)
        end = final_line(begin(3, Path(name) / "killed", total))
        median = sorted(seconds)[len(seconds) // 2]
        print(f"{len(seconds)} kills; all ended within {max(seconds):.2f} s, median {median:.2f} s")
        print(f"undisturbed: {lines}\nresumed:     {end}\n{'equal' if end == lines else 'DIFFERENT'}")
