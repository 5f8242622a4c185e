"""Compare minidl with its peers: `python -m benchmarks.run [--job NAME]`, from the repository root.

benchmarks/README.md says what is measured, how, and how to read it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks import jobs, machine, processes, report, steps
from benchmarks.jobs.autoencoder import BATCH_SIZE, GPU_BATCH_SIZES, read_images
from benchmarks.peers import PEERS, peers_of

MAKE_IMAGES = """
import sys
from minidl.data import digits
from benchmarks.jobs.autoencoder import save_images
training, validation = digits(train=int(sys.argv[2]), test=3000)
save_images(sys.argv[1], training.images, validation.images)
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Compare minidl with its peers."
    )
    parser.add_argument("--job", choices=jobs.JOBS, default="autoencoder", help="default autoencoder")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="default cpu")
    parser.add_argument("--peers", type=names, help="names in benchmarks/peers; default all of the job")
    parser.add_argument(
        "--batch-sizes", type=integers, help="default those of the job, and on a GPU 128,1024,8192"
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help="turns of each peer at each batch size; default 20"
    )
    parser.add_argument(
        "--block-seconds",
        type=float,
        default=steps.BLOCK_SECONDS,
        help=f"of a turn; default {steps.BLOCK_SECONDS}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short turn each: only shows that all is well"
    )
    parser.add_argument("--whole-job", action="store_true", help="time the whole training as well (minutes)")
    parser.add_argument("--epochs", type=int, default=30, help="of the whole job; default 30")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each peer's whole job; default 3")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="images; default minidl.data.digits()")
    parser.add_argument("--output", type=Path, default=steps.ROOT / "benchmarks" / "results", metavar="DIR")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.block_seconds = 1, 0.0
    if options.job != "autoencoder" and (options.device != "cpu" or options.whole_job):
        parser.error(f"--job {options.job} has neither --device gpu nor --whole-job")
    possible = peers_of(options.job, options.device)
    if options.peers is None:
        options.peers = possible
    elif not set(options.peers) <= set(possible):
        parser.error(f"the peers of --job {options.job} --device {options.device} are {', '.join(possible)}")
    if options.batch_sizes is None:
        sizes = GPU_BATCH_SIZES if options.device == "gpu" else jobs.load(options.job).BATCH_SIZES
        options.batch_sizes = [*sizes]
    return options


def names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer named {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return chosen


def integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def measure(options: argparse.Namespace, images: Path | None, cache: Path) -> dict:
    """Everything that the options ask for, as the JSON will hold it.

    The folder ``cache`` is empty. What compilers keep there in first processes, later ones find.
    """
    cold = {}
    if options.device == "cpu":
        say("First calls")
        cold = steps.first_calls(options.peers, images, options.batch_sizes[0], cache)
    children, left_out = steps.start(options.peers, images, cache, say)
    measured = {}
    training = read_images(images)[0] if images is not None else None
    for batch_size in options.batch_sizes:
        say(f"Batch {batch_size}: {len(children)} peers")
        measured[str(batch_size)] = steps.measure(options, children, left_out, training, batch_size, say)
        milliseconds = measured[str(batch_size)]["milliseconds"]
        measured[str(batch_size)]["summary"] = report.summarise_steps(milliseconds)
    for child in children.values():
        child.close()

    installed = [name for name in options.peers if name not in left_out]
    imports = {}
    if options.device == "cpu" and not options.quick:
        say("Import times")
        imports = processes.import_times(installed)
    results = {
        "date": date.today().isoformat(),
        "job": options.job,
        "device": options.device,
        "machine": machine.describe() | ({"card": machine.card()} if options.device == "gpu" else {}),
        "versions": machine.versions(package for name in installed for package in PEERS[name].packages),
        "peers": options.peers,
        "reference": report.reference_of(dict.fromkeys(installed)),
        "rounds": options.rounds,
        "first_call_seconds_without_cache": cold,
        "steps": measured,
        "import_milliseconds": imports,
        "left_out": left_out,
    }
    if options.whole_job:
        say(f"Whole job: {options.epochs} epochs, batch {BATCH_SIZE}, {options.repeats} runs of each peer")
        arguments = (installed, images, options.epochs, options.repeats, left_out, say)
        results |= {"epochs": options.epochs, "whole_job": processes.whole_jobs(*arguments)}
    return results


def write(results: dict, folder: Path) -> None:
    """cpu.json, cpu.md, cpu-steps.png and, if measured, cpu-whole-job.png; of a GPU gpu.json and so on.

    Of another job than the autoencoder it is cpu-cnn.json and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = results["device"] + ("" if results["job"] == "autoencoder" else f"-{results['job']}")
    (folder / f"{device}.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    (folder / f"{device}.md").write_text(report.markdown(results))
    report.plot_steps(results, folder / f"{device}-steps.png")
    if results.get("whole_job"):
        report.plot_whole_jobs(results, folder / f"{device}-whole-job.png")


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if a peer failed or its losses disagree; a peer that is not installed is no failure."""
    options = parse_arguments(arguments)
    if options.device == "gpu" and machine.card() is None:
        sys.exit("--device gpu: there is no NVIDIA GPU on this machine (nvidia-smi finds none)")
    with tempfile.TemporaryDirectory() as folder:
        images = options.data.resolve() if options.data is not None else None
        if images is None and options.job == "autoencoder":
            images = Path(folder) / "digits.npz"
            count = max(5000, *options.batch_sizes)
            command = [sys.executable, "-c", MAKE_IMAGES, str(images), str(count)]
            subprocess.run(command, cwd=steps.ROOT, check=True)
        results = measure(options, images, Path(folder) / "cache")
    write(results, options.output)
    print(report.markdown(results))
    return int(any(reason != "not installed" for reason in results["left_out"].values()))


if __name__ == "__main__":
    sys.exit(main())
