"""Compare settings of the tied autoencoder: every combination is trained, several at a time.

The answer to "which learning rate, which L2, which batch size, which latent size?" as a table
(sweep.csv, best first) and a plot (sweep.png). Run it with --help to see what can be varied. Results are
written as they come (results-*.jsonl): a sweep that was killed goes on where it was. On several machines:

    mpiexec -n 9 python -m mpi4py.futures examples/sweep.py --executor mpi
"""

import argparse
import csv
import itertools
import os
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minidl as dl

sys.path.insert(0, str(Path(__file__).parent))
from tied_autoencoder import TiedAutoencoder, load_images

FACTORS = ("learning_rate", "l2", "batch_size", "latent_size")


def build_network(latent_size, seed):
    generator = dl.Generator(seed)
    sizes = (784, 784, 392, latent_size)
    layers = [dl.Flatten()]
    for in_features, out_features in itertools.pairwise(sizes):
        layers += [dl.Dense(in_features, out_features, seed=generator), dl.ReLU()]
    return TiedAutoencoder(dl.Network(layers))


def train_one(settings, data, epochs, seed):
    """Train with one combination of settings, on one core; return the results."""
    images, test_images = load_images(data)
    validation_part, test_part = dl.data.partition(len(test_images), [0.6, 0.4], seed=seed)
    validation, test = test_images[validation_part], test_images[test_part]
    network = build_network(settings["latent_size"], seed)
    trainer = dl.Trainer(
        network,
        dl.binary_cross_entropy,
        dl.Adam(network.parameters(), learning_rate=settings["learning_rate"], l2=settings["l2"]),
        metrics=[dl.rmse],
        device="cpu",
        compile={"threads": 1},
        seed=seed,
    )
    try:
        history = trainer.fit(
            images,
            images,
            epochs=epochs,
            batch_size=settings["batch_size"],
            validation_data=(validation, validation),
            verbose=False,
        )
    except FloatingPointError:  # divergence is a result as well
        return {"test_rmse": float("nan"), "validation_loss": float("nan"), "seconds": float("nan")}
    return {
        "test_rmse": trainer.evaluate(test, test)["rmse"],
        "validation_loss": min(history.validation["loss"]),
        "seconds": round(history.seconds, 1),
    }


def executor(options):
    """Return what runs the trainings: None for processes on this machine."""
    if options.executor == "processes":
        return nullcontext()
    from mpi4py.futures import MPIPoolExecutor  # the other processes of mpiexec

    return MPIPoolExecutor()


def run_all(combinations, options):
    """Train all combinations, several at a time; return the results, best first."""
    # The file is for one data set, number of epochs and seed.
    train = partial(train_one, data=options.data, epochs=options.epochs, seed=options.seed)
    name = (
        f"results-{'-'.join(Path(part).name for part in options.data)}-{options.epochs}-{options.seed}.jsonl"
    )
    with executor(options) as pool:
        rows = dl.distributed.sweep(
            train, combinations, options.out / name, executor=pool, workers=options.workers
        )
        results = list(tqdm(rows, total=len(combinations), unit="run", disable=None))
    return sorted(results, key=lambda result: (np.isnan(result["test_rmse"]), result["test_rmse"]))


def write_table(results, path):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, results[0])
        writer.writeheader()
        writer.writerows(results)


def show_table(results):
    names = list(results[0])
    rows = [[f"{result[name]:.4g}" for name in names] for result in results]
    widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
    for row in [names, *rows]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def plot_results(results, path):
    """Draw the test RMSE of every run over each setting that was varied; a line joins the best ones."""
    from matplotlib.figure import Figure

    finished = [result for result in results if not np.isnan(result["test_rmse"])]
    varied = [name for name in FACTORS if len({result[name] for result in results}) > 1] or ["learning_rate"]
    figure = Figure(figsize=(3.2 * len(varied) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(varied), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, varied, strict=True):
        values = sorted({result[name] for result in results})
        runs = [[r["test_rmse"] for r in finished if r[name] == value] for value in values]
        for place, column in enumerate(runs):
            axes.plot([place] * len(column), column, "o", color="tab:blue", alpha=0.45, markersize=6)
        best = [min(column, default=np.nan) for column in runs]
        axes.plot(range(len(values)), best, "-", color="tab:blue", linewidth=1.5)
        if finished:
            place = values.index(finished[0][name])
            axes.plot(place, finished[0]["test_rmse"], "o", color="tab:orange", markersize=9)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.set_xlabel(name.replace("_", " "))
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test RMSE")
    diverged = len(results) - len(finished)
    title = f"{len(results)} runs; the best in orange" + (f"; {diverged} diverged" if diverged else "")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=120)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[3e-4, 1e-3, 3e-3], metavar="X")
    parser.add_argument("--l2", nargs="+", type=float, default=[0.0, 1e-4], metavar="X")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128], metavar="N")
    parser.add_argument("--latent-sizes", nargs="+", type=int, default=[98, 196], metavar="N")
    parser.add_argument(
        "--data", nargs="+", default=["digits"], metavar="WHAT", help="as tied_autoencoder.py"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument(
        "--executor", choices=("processes", "mpi"), default="processes", help="what runs the trainings"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), metavar="DIR")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    load_images(options.data)  # made or refused before the processes start
    grid = (options.learning_rates, options.l2, options.batch_sizes, options.latent_sizes)
    combinations = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*grid)]
    print(f"{len(combinations)} combinations, {options.workers} at a time")
    results = run_all(combinations, options)
    write_table(results, options.out / "sweep.csv")
    plot_results(results, options.out / "sweep.png")
    show_table(results)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, ExceptionGroup) as error:
        sys.exit(f"error: {error}")
