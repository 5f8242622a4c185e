import subprocess
import sys
from pathlib import Path

import pytest

from minidl.errors import CheckpointError
from minidl.training import checkpointing
from tests.training.helpers import QUIET, files

ROOT = Path(__file__).parents[2]


def test_memory_that_runs_out_costs_a_checkpoint_alone(make_trainer, data, tmp_path, monkeypatch):
    def no_memory(run):
        raise MemoryError

    monkeypatch.setattr(checkpointing, "checkpoint_of", no_memory)
    with pytest.warns(
        UserWarning, match="checkpoint of step 3 could not be written: MemoryError; training goes on"
    ):
        history = make_trainer().fit(*data, epochs=1, batch_size=32, checkpoint_folder=tmp_path, **QUIET)
    assert history.stop_reason == "all epochs completed"
    assert files(tmp_path) == []


def test_a_folder_belongs_to_one_training_at_a_time(make_trainer, data, tmp_path):
    pytest.importorskip("fcntl")
    options = {"epochs": 1, "checkpoint_folder": tmp_path, "resume": True, **QUIET}
    steps = []

    def another(fit):
        if fit.state == "step":
            with pytest.raises(CheckpointError, match="another training is writing checkpoints into"):
                make_trainer().fit(*data, callbacks=[lambda inner: steps.append(inner.step)], **options)

    make_trainer().fit(*data, callbacks=[another], **options)
    assert steps == []
    make_trainer().fit(*data, **options)  # now it is free


def test_a_folder_of_another_process(make_trainer, data, tmp_path):
    pytest.importorskip("fcntl")
    command = [sys.executable, "-m", "tests.training.killed", tmp_path, "0.1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        while not list(tmp_path.glob("checkpoint-*")):
            assert process.poll() is None
        with pytest.raises(CheckpointError, match="another training is writing checkpoints into"):
            make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, resume=True, **QUIET)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with pytest.raises(CheckpointError, match="does not fit this training"):
        make_trainer(optimizer="sgdm").fit(*data, checkpoint_folder=tmp_path, resume=True, **QUIET)
