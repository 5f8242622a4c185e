import random

import numpy
import pytest

from minidl.errors import CheckpointError
from minidl.training import checkpoints
from minidl.training.checkpoints import Checkpoint
from tests.training.helpers import QUIET, files, resume


def test_what_a_killed_process_left_over_is_removed(make_trainer, data, tmp_path):
    (tmp_path / ".checkpoint-000007.safetensors.abc123.tmp").write_bytes(b"half of it")
    (tmp_path / "notes.txt").write_text("mine")
    make_trainer().fit(*data, epochs=1, checkpoint_folder=tmp_path, **QUIET)
    assert files(tmp_path) == ["checkpoint-000001.safetensors", "notes.txt"]


@pytest.mark.parametrize("length", [0, 5, 100, 3000, -1])
def test_a_truncated_checkpoint_is_named(make_trainer, data, checkpoint_file, length):
    checkpoint_file.write_bytes(checkpoint_file.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=f"{checkpoint_file.name} is damaged or not a safetensors file"):
        resume(make_trainer, data, checkpoint_file.parent)


def test_any_changed_byte_is_noticed(make_trainer, data, checkpoint_file):
    content = checkpoint_file.read_bytes()
    positions = random.Random(0).sample(range(len(content)), 200)
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 1 << random.Random(position).randrange(8)
        checkpoint_file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=checkpoint_file.name):
            checkpoints.read(checkpoint_file)


def test_a_foreign_file_is_named(make_trainer, data, checkpoint_file):
    make_trainer().network.save(checkpoint_file)
    with pytest.raises(CheckpointError, match="not a checkpoint of a training; weights alone are read with"):
        resume(make_trainer, data, checkpoint_file.parent)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoints.read(checkpoint_file.with_name("another"))


def test_values_and_arrays_come_back(tmp_path):
    rng = numpy.random.default_rng(0)
    arrays = {"a/x": rng.normal(size=(3, 2)), "a/y": numpy.array(1.5), "b": numpy.zeros((0, 4), "float32")}
    values = {"state": 2**127 - 1, "text": "ü", "nothing": None, "infinity": float("inf"), "third": 1 / 3}
    checkpoints.write(tmp_path / "c", Checkpoint(arrays, values))
    read = checkpoints.read(tmp_path / "c")
    assert read.values == values
    assert list(read.part("a")) == ["x", "y"]
    for name, array in arrays.items():
        numpy.testing.assert_array_equal(read.arrays[name], array, strict=True)
