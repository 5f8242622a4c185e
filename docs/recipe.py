"""Measure what each part of the recipe in docs/better_than_pca.md brings: its table.

``python -m docs.recipe --data digits FOLDER`` trains the tied autoencoder with ``--recipe best``, and with
one part of the recipe changed, with three seeds each, and prints the table. FOLDER has MNIST's IDX files.
Results of finished runs are kept in a file, so that a run which was stopped goes on where it was. ``--rows``
takes some rows only, and ``--show`` prints what is there.
"""

import argparse
import json
import os
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from examples import tied_autoencoder

#: What is changed in the recipe, by the name of the row.
ROWS = {
    "the recipe": [],
    "plain Adam": ["--optimizer", "adam"],
    "no shifts": ["--shift", "0"],
    "shifts of 1 pixel": ["--shift", "1"],
    "start at random": ["--start", "random"],
    "cross-entropy": ["--loss", "bce"],
    "constant learning rate": ["--schedule", "constant"],
    "the original's settings": ["--recipe", "original"],
}
METRICS = ("test_rmse", "pca_test_rmse", "training_seconds")


def arguments_of(row, data, seed, epochs):
    """Return the command line of the example for one run."""
    more = ["--epochs", str(epochs)] if epochs else []
    return ["--recipe", "best", *ROWS[row], "--data", data, "--seed", str(seed), *more]


def key_of(arguments):
    """Return all that decides the result of a run: when the recipe changes, its results are made again."""
    options = vars(tied_autoencoder.parse_arguments(arguments))
    settings = {name: options[name] for name in tied_autoencoder.RECIPES["best"]}
    return json.dumps([Path(options["data"][0]).name, options["seed"], settings])


def train(arguments):
    """Return the figures of one run of the example, without what it prints."""
    with TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        tied_autoencoder.main([*arguments, "--device", "cpu", "--out", folder])
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
    return {name: metrics[name] for name in METRICS}


def read(path):
    """Return the results in a file, by their keys."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path, results):
    """Write results so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(results, indent=1))
    new.replace(path)


def cell(found):
    """Return the mean of some runs and how far they lie apart, the highest minus the lowest."""
    if not found:
        return "-"
    spread = f" ± {(max(found) - min(found)) / 2:.4f}" if len(found) > 1 else " (one seed)"
    return f"{statistics.mean(found):.4f}{spread}"


def table(results, data, rows, seeds, epochs):
    """Return the lines of the table in Markdown: a row for each change, a column for each data set."""

    def cells(row, metric):
        keys = [[key_of(arguments_of(row, name, seed, epochs)) for seed in seeds] for name in data]
        return [cell([results[key][metric] for key in column if key in results]) for column in keys]

    lines = [["", *(Path(name).name for name in data)], ["---"] + ["---:"] * len(data)]
    lines.append(["PCA, clipped", *cells(rows[0], "pca_test_rmse")])
    lines += [[row, *cells(row, "test_rmse")] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def parse_arguments(arguments=None):
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["digits"], help="'digits', or folders of IDX files")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--results", type=Path, default=Path("runs/recipe.json"), metavar="FILE")
    parser.add_argument("--show", action="store_true", help="print the table of what is there; train nothing")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Make the runs that are missing, and print the table."""
    options = parse_arguments(arguments)
    results = read(options.results)
    if not options.show:
        runs = [
            arguments_of(row, data, seed, options.epochs)
            for row in options.rows
            for seed in options.seeds
            for data in options.data
        ]
        missing = [run for run in runs if key_of(run) not in results]
        for run in tqdm(missing, desc="runs", unit="run", disable=None):
            results[key_of(run)] = train(run)
            write(options.results, results)
    print("\n".join(table(results, options.data, options.rows, options.seeds, options.epochs)))


if __name__ == "__main__":
    main()
