"""A sweep that may be killed: writes a file for each call of its function.

python tests/distributed/sweeping.py FOLDER COUNT
mpiexec -n 3 python -m mpi4py.futures tests/distributed/sweeping.py FOLDER COUNT mpi
"""

import os
import sys
import time
from pathlib import Path

from minidl.distributed import sweep


def square(row):
    time.sleep(row["seconds"])
    folder = Path(row["folder"])
    with open(folder / f"call-{row['x']}", "a") as file:
        file.write(f"{os.getpid()}\n")
    return {"square": row["x"] ** 2}


def main(folder, count, kind="processes"):
    rows = [{"x": x, "folder": folder, "seconds": 0.05} for x in range(int(count))]
    executor = None
    if kind == "mpi":
        from mpi4py.futures import MPIPoolExecutor

        executor = MPIPoolExecutor()
    for row in sweep(square, rows, Path(folder) / "results.jsonl", executor=executor, workers=2):
        print(row["x"], row["square"], flush=True)
    if executor is not None:
        executor.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
