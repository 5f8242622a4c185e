"""The training step of every peer, timed in turns."""

import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import jobs, machine, peers

ROOT = Path(__file__).resolve().parent.parent
BLOCK_SECONDS = 0.3
SETTLE_SECONDS = 0.15  # until the threads of the peer that had its turn have stopped spinning
QUIET = 0.15  # cores: a block that other work disturbed more than this is measured again,
MAX_TRIES = 5  # the largest number of attempts


class Failure(Exception):
    """A peer that stopped; the message is what it last wrote."""


class Child:
    """A peer in its own process, whose compilers keep what they make in the folder ``cache``."""

    def __init__(self, peer: str, images: Path | None, cache: Path):
        self.peer = peer
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- lives as long as the process that writes it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer, *([str(images)] if images else [])],
            cwd=ROOT,
            env=machine.environment(**machine.compiler_caches(cache)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.read()

    def ask(self, command: str, **arguments) -> dict:
        with contextlib.suppress(BrokenPipeError):  # if it has stopped, read() finds the reason in the log
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
        return self.read()

    def read(self) -> dict:
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.log.seek(0)
            raise Failure(last_line(self.log.read()))
        return json.loads(answer)

    def close(self) -> None:
        """End the process: it stops where its input does."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def last_line(text: str) -> str:
    """Where a traceback says what went wrong."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "stopped without a word"


def reason(message: str) -> str:
    """What the results say of a failure: its kind alone, for a message may hold a path of this machine."""
    if message.startswith("ModuleNotFoundError"):
        return "not installed"
    return message.split(":")[0]


def start(names: list[str], images: Path | None, cache: Path, say) -> tuple[dict[str, Child], dict[str, str]]:
    """Start the peers. Returns those that run, and what is wrong with the others."""
    children, problems = {}, {}
    for name in names:
        try:
            children[name] = Child(name, images, cache)
        except Failure as failure:
            problems[name] = reason(str(failure))
            say(f"{peers.PEERS[name].title} is left out: {failure}")
    return children, problems


def first_calls(names: list[str], images: Path | None, batch_size: int, cache: Path) -> dict[str, float]:
    """Seconds of each peer's first step in a new process, where nothing has been compiled before."""
    seconds = {}
    for name in names:
        with contextlib.suppress(Failure), contextlib.closing(Child(name, images, cache)) as child:
            seconds[name] = child.ask("build", batch_size=batch_size, checked=1)["first_seconds"]
    return seconds


def measure(options, children: dict[str, Child], problems: dict[str, str], images, batch_size, say) -> dict:
    """Build, check and time all peers at one batch size. A peer that fails or disagrees joins `problems`."""
    what = jobs.load(options.job)
    checked = jobs.QUICKLY_CHECKED_STEPS if options.quick else jobs.CHECKED_STEPS
    reference = what.reference_losses(what.step_batches(images, batch_size), checked)
    agreement, first, memory = {}, {}, {}
    for name, child in list(children.items()):
        try:
            built = child.ask("build", batch_size=batch_size, checked=checked)
        except Failure as failure:
            exclude(name, str(failure), children, problems, say)
            continue
        agreement[name] = largest_difference(built["losses"], reference)
        first[name] = built["first_seconds"]
        if not agreement[name] <= peers.PEERS[name].tolerance:  # a NaN disagrees as well
            message = f"losses differ by {agreement[name]:.1e} at batch {batch_size}"
            exclude(name, message, children, problems, say)
    samples, foreign_load = take_turns(children, problems, options.rounds, options.block_seconds, say)
    for name, child in children.items():
        memory[name] = child.ask("memory")["peak"] / 2**20
    return {
        "reference_losses": {"first": reference[0], "last": reference[-1]},
        "largest_relative_difference_of_losses": agreement,
        "foreign_load_cores": foreign_load,
        "first_call_seconds": first,
        "peak_memory_mib": memory,
        "milliseconds": {name: [1e3 * sample for sample in samples[name]] for name in samples},
    }


def exclude(name, message, children, problems, say) -> None:
    problems[name] = reason(message)
    children.pop(name).close()
    say(f"{peers.PEERS[name].title} is left out: {message}")


def largest_difference(losses: list[float], reference: list[float]) -> float:
    """Relative, over the checked steps."""
    return max(abs(loss / right - 1) for loss, right in zip(losses, reference, strict=True))


def take_turns(children, problems, rounds, seconds, say) -> tuple[dict[str, list[float]], float]:
    """Seconds per step of each peer in each round, and how many cores other work kept busy meanwhile.

    A round gives every peer one block, in a new random order: no peer always follows the same other one.
    """
    samples = {name: [] for name in children}
    loads = []
    order_generator = random.Random(0)
    for count in range(rounds):
        for name in order_generator.sample(list(children), len(children)):
            try:
                block = quiet_block(children[name], seconds, MAX_TRIES if seconds else 1)
            except Failure as failure:
                exclude(name, str(failure), children, problems, say)
                samples.pop(name)
                continue
            samples[name].append(block["seconds"] / block["steps"])
            loads.append(block["foreign_load"])
        say(f"  round {count + 1} of {rounds}", end="\r")
    say("")
    return samples, round(statistics.fmean(loads), 3) if loads else 0.0


def quiet_block(child: Child, seconds: float, tries: int) -> dict:
    """A block undisturbed by other processes, or else the least disturbed of a few."""
    blocks = []
    for _ in range(tries):
        time.sleep(SETTLE_SECONDS)
        blocks.append(child.ask("block", seconds=seconds))
        if blocks[-1]["foreign_load"] <= QUIET:
            break
    return min(blocks, key=lambda block: block["foreign_load"])
