"""What is measured of whole processes: the job from start to saved weights, its memory, and import times."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import machine, peers
from benchmarks.steps import ROOT, SETTLE_SECONDS, last_line, reason

IMPORT_REPEATS = 9


def run(arguments: list[str], platform: str = "cpu", **variables: str) -> tuple[float, str]:
    """Run Python in the repository root. Returns seconds and what it printed; RuntimeError if it fails.

    ``platform`` is where JAX computes; ``variables`` are more of the environment.
    """
    environment = machine.environment(KERAS_BACKEND="jax", JAX_PLATFORMS=platform, **variables)
    time.sleep(SETTLE_SECONDS)
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    if result.returncode:
        raise RuntimeError(last_line(result.stderr))
    return elapsed, result.stdout


def import_times(names: list[str]) -> dict[str, float]:
    """Median milliseconds that `import` adds to a bare Python, by what is imported; always with NumPy's."""
    imports = ["numpy", *(peers.PEERS[name].imports for name in names)]
    commands = {"": "pass", **{modules: f"import {modules}" for modules in imports}}
    for command in commands.values():
        run(["-c", command])  # once untimed: reads the files from disk, writes the byte code
    samples = {modules: [] for modules in commands}
    for _ in range(IMPORT_REPEATS):
        for modules, command in commands.items():
            samples[modules].append(run(["-c", command])[0])
    bare = statistics.median(samples.pop(""))
    return {modules: 1e3 * (statistics.median(values) - bare) for modules, values in samples.items()}


def whole_jobs(names: list[str], images: Path, epochs: int, repeats: int, problems: dict, say) -> dict:
    """By peer: seconds, peak memory and validation loss of each run. The peers take turns.

    One epoch comes first and is not timed, so that no run is the first to read its files from the disk. Every
    run begins with empty compiler caches: what is compiled is part of the job.
    """
    results = {}
    for repeat in range(repeats + 1):
        for name in names:
            if name in problems:
                continue
            try:
                seconds, answer = train(name, images, epochs if repeat else 1)
            except RuntimeError as failure:
                problems[name] = reason(str(failure))
                results.pop(name, None)
                say(f"{peers.PEERS[name].title} is left out: {failure}")
                continue
            if repeat:
                result = results.setdefault(
                    name, {"seconds": [], "peak_memory_mib": [], "validation_loss": []}
                )
                result["seconds"].append(seconds)
                result["peak_memory_mib"].append(answer["peak_memory"] / 2**20)
                result["validation_loss"].append(answer["validation_loss"])
                say(f"  run {repeat} of {repeats}: {peers.PEERS[name].title} {seconds:.1f} s")
    return results


def train(name: str, images: Path, epochs: int) -> tuple[float, dict]:
    """One whole job with empty caches; its weights are thrown away."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        weights = Path(folder) / "weights"
        command = ["-m", "benchmarks.whole_job", name, str(images), str(epochs), str(weights)]
        platform = "cuda" if peers.PEERS[name].device == "gpu" else "cpu"
        seconds, output = run(command, platform, **machine.compiler_caches(Path(cache)))
        if not list(Path(folder).iterdir()):
            raise RuntimeError("saved no weights")
    return seconds, json.loads(output.splitlines()[-1])
