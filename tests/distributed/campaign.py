"""A training that is killed: run by itself on several processes, with a folder for its checkpoints.

    mpiexec -n 3 python tests/distributed/campaign.py FOLDER STEPS [ERROR_STEP]

Rank 0 prints "step N" after each step, and the hash of the weights at the end. Every process writes its
number into the folder. With ERROR_STEP, rank 1 raises an error at this step.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

import minidl as dl
from tests.distributed import trainings


def main(folder, steps, error_step=0):
    folder, rank = Path(folder), dl.distributed.communicator().rank
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))

    def after_step(run):
        time.sleep(0.005)
        if run.trainer.ranks.is_first and run.state == "step":
            print(f"step {run.step}", flush=True)
        if error_step and run.step == int(error_step) and rank == 1:
            raise RuntimeError("planted")

    trainer, weights, figures = trainings.train(
        "batchnorm",
        "ordered",
        True,
        epochs=int(steps) // 5,
        checkpoint_folder=folder / "checkpoints",
        checkpoint_frequency=3,
        resume=True,
        callbacks=[after_step],
    )
    if trainer.ranks.is_first:
        digest = hashlib.sha256(b"".join(array.tobytes() for array in weights.values())).hexdigest()
        print(f"{figures['reason']}, {len(figures['steps']['loss'])} steps, hash {digest[:16]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
