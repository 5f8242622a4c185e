"""The child process in which one peer runs: `python -m benchmarks.worker PEER [IMAGES.npz]`.

It reads one JSON object a line from standard input and answers each with one; between them it sleeps.

- `{"command": "build", "batch_size": 128, "checked": 20}` builds the peer again and trains the checked steps:
  `{"losses", "first_seconds"}`, where the first step is the one in which compilers compile.
- `{"command": "block", "seconds": 0.3}` trains for about that time: `{"steps", "seconds", "foreign_load"}`.
- `{"command": "memory"}` says by how many bytes resident memory has risen, at its highest, since everything
  was imported: `{"peak"}`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import jobs, machine, peers

MIN_STEPS = 3


class Worker:
    """One peer, its job at the current batch size, and the prepared batches that it goes through."""

    def __init__(self, peer: str, images: Path | None):
        self.build_job = peers.load(peer)
        self.what = jobs.load(peers.PEERS[peer].job)
        self.images = self.what.read_images(images)[0] if images is not None else None
        self.memory_before = machine.resident_memory()
        self.job = None
        self.batches = []
        self.steps = 0

    def build(self, batch_size: int, checked: int) -> dict:
        self.job = None  # the previous one's memory goes first
        self.job = self.build_job(self.what.initial_weights(), batch_size)
        self.batches = [self.job.prepare(batch) for batch in self.what.step_batches(self.images, batch_size)]
        self.steps = 0
        start = time.perf_counter()
        losses = [float(self.step())]
        first = time.perf_counter() - start
        losses += [float(self.step()) for _ in range(checked - 1)]
        return {"losses": losses, "first_seconds": first}

    def step(self) -> Any:
        batch = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        return self.job.step(batch)

    def block(self, seconds: float) -> dict:
        """One step that is not timed (it fills the caches and wakes the threads), then those that are."""
        self.step()
        self.job.wait()
        steps = 0
        load = machine.ForeignLoad()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or steps < MIN_STEPS:
            self.step()
            steps += 1
        self.job.wait()
        elapsed = time.perf_counter() - start
        return {"steps": steps, "seconds": elapsed, "foreign_load": load.cores()}

    def memory(self) -> dict:
        return {"peak": machine.peak_memory() - self.memory_before}


def main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # what a library prints must not get between the answers
    worker = Worker(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else None)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        command = {"build": worker.build, "block": worker.block, "memory": worker.memory}[
            request.pop("command")
        ]
        print(json.dumps(command(**request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
