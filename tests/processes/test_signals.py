"""Signals at random instants: nothing hangs, nothing is swallowed, no file is torn.

A short campaign belongs to the tests. A long one is run by hand, from the folder of the project:

    PYTHONPATH=. python tests/processes/test_signals.py 2000
"""

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from minidl.program.cpu import kernel_cache
from tests.processes.training_under_signals import LENGTH

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has other signals")
needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")

#: After this many seconds without an answer, a process hangs. Machines that run tests are busy.
PATIENCE = 60
PROGRAM = Path(__file__).with_name("training_under_signals.py")


class Training:
    """A training in a process of its own, which writes a file again and again."""

    def __init__(self, kind, path):
        command = [sys.executable, str(PROGRAM), kind, str(path)]
        settings = os.environ | {"PYTHONPATH": str(PROGRAM.parents[2])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=settings)
        self.path, self.text = path, ""
        self.wait_for("ready")

    def wait_for(self, line):
        """Wait until the process says a line; take it out of what it has said."""
        deadline = time.monotonic() + PATIENCE
        while f"{line}\n" not in self.text:
            self.listen(deadline - time.monotonic())
            assert time.monotonic() < deadline, f"the process does not answer: {line!r} is missing"
            assert self.process.poll() is None, "the process ended by itself"
        self.text = self.text.replace(f"{line}\n", "", 1)

    def listen(self, seconds):
        if select.select([self.process.stdout], [], [], max(seconds, 0))[0]:
            self.text += os.read(self.process.stdout.fileno(), 65536).decode()
        assert "wrong" not in self.text, self.text

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number):
        """End the process by a signal; its file is whole."""
        self.send(number)
        assert self.process.wait(PATIENCE) == -number
        self.process.stdout.close()
        if self.path.exists():
            contents = self.path.read_bytes()
            assert len(contents) == LENGTH
            assert len(set(contents)) == 1


def campaign(kind, signals, folder, seed=0):
    """Send so many signals to trainings of one kind; return how many of each it were."""
    draw, sent = random.Random(seed), Counter()
    path = folder / "state.bin"
    training = Training(kind, path)
    try:
        while sent.total() < signals:
            time.sleep(draw.uniform(0, 0.01))
            what = draw.choices(["once", "twice", "stop", "SIGTERM", "SIGKILL"], [45, 25, 22, 2, 2])[0]
            if what in ("once", "twice"):
                training.send(signal.SIGINT)
                if what == "twice":
                    time.sleep(draw.choice([0, 0.0001, 0.001, 0.003]))
                    training.send(signal.SIGINT)
                training.wait_for("interrupted")
                training.listen(0.005)
                training.text = ""  # the second may have been told of, or be one with the first
                sent["SIGINT " + what] += 1 if what == "once" else 2
            elif what == "stop":
                training.send(signal.SIGSTOP)
                time.sleep(draw.uniform(0, 0.003))
                training.send(signal.SIGCONT)
                sent["SIGSTOP and SIGCONT"] += 2
            else:
                training.end(signal.Signals[what])
                sent[what] += 1
                training = Training(kind, path)
        # It is still at work.
        before, deadline = path.stat().st_mtime_ns if path.exists() else 0, time.monotonic() + PATIENCE
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "the process is not at work any more"
            time.sleep(0.01)
        training.end(signal.SIGKILL)
    finally:
        training.process.kill()
        training.process.wait()
        training.process.stdout.close()
    return sent


@pytest.mark.parametrize("kind", ["plain", "numpy", pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("signals", [30, pytest.param(700, marks=pytest.mark.slow)])
def test_signals_at_any_instant(kind, signals, tmp_path):
    assert campaign(kind, signals, tmp_path, seed=signals).total() >= signals


if __name__ == "__main__":
    import tempfile

    total = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for kind in ("plain", "numpy", "c"):
        with tempfile.TemporaryDirectory() as name:
            print(kind, dict(campaign(kind, -(-total // 3), Path(name), seed=total)), flush=True)
